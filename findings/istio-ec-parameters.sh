#!/usr/bin/env bash
# Subject:     istio.io/istio 1.31 development (2026-08-27), security/pkg/pki/util, which reads istiod's ca-key.pem
# One expects: a P-256 key as `openssl ecparam -genkey` writes it is good for ca-key.pem.
# What is so:  it is refused. OpenSSL puts a block EC PARAMETERS before the key, and Istio reads the first block only: "unsupported PEM
#              block type for a private key". The same key without that block (`-noout`, or as Vault exports it) is taken.
# Source:      github.com/istio/istio, security/pkg/pki/util/crypto.go (ParsePemEncodedKey); docs.openssl.org/master/man1/openssl-ecparam
source "$(dirname "$0")/lib.sh"
istio=v0.0.0-20260827124520-eed52ebb66ad
install go:istio.io/istio/security/pkg/pki/util@$istio

cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"

	"istio.io/istio/security/pkg/pki/util"
)

func main() {
	for _, name := range os.Args[1:] {
		text, err := os.ReadFile(name)
		if err != nil {
			panic(err)
		}
		if _, err := util.ParsePemEncodedKey(text); err != nil {
			fmt.Printf("%s: %v\n", name, err)
		} else {
			fmt.Printf("%s: taken\n", name)
		}
	}
}
GO
openssl ecparam -name prime256v1 -genkey -out with-parameters
sed '/BEGIN EC PARAMETERS/,/END EC PARAMETERS/d' with-parameters >key-only
version "$(go list -m istio.io/istio), $(openssl version)"
grep --no-filename BEGIN with-parameters
expect "keys" 'with-parameters: unsupported PEM block type for a private key: EC PARAMETERS
key-only: taken' "$(go run . with-parameters key-only)"
