#!/usr/bin/env bash
# Subject:     age-encryption 0.3.1 (npm), beside filippo.io/age 1.3.1 (Go)
# One expects: to encrypt for nobody is an error, as in Go: "no recipients specified".
# What is so:  an `Encrypter` to which no recipient was added returns a complete file without a stanza. Nobody can ever open it: the file key
#              is nowhere. A list of recipients that is empty by mistake shows only when the file is needed.
# Source:      github.com/FiloSottile/typage, lib/index.ts; github.com/FiloSottile/age, age.go
source "$(dirname "$0")/lib.sh"
install npm:age-encryption@0.3.1 go:filippo.io/age@v1.3.1

cat >main.go <<'GO'
package main

import (
	"fmt"
	"io"

	"filippo.io/age"
)

func main() {
	_, err := age.Encrypt(io.Discard)
	fmt.Println(err)
}
GO
cat >main.mjs <<'JS'
import { Decrypter, Encrypter, generateX25519Identity } from 'age-encryption';
const file = await new Encrypter().encrypt('hello');
const header = new TextDecoder('latin1').decode(file).split('\n---')[0];
console.log(`header: ${header}`);
const decrypter = new Decrypter();
decrypter.addIdentity(await generateX25519Identity());
console.log(await decrypter.decrypt(file, 'text').catch((error) => error.message));
JS
version "age-encryption $(jq -r .version node_modules/age-encryption/package.json), Node $(node --version), $(go list -m filippo.io/age)"
expect "Go" "no recipients specified" "$(go run .)"
expect "npm" "header: age-encryption.org/v1
no identity matched any of the file's recipients" "$(node main.mjs)"
