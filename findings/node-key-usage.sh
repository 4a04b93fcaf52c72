#!/usr/bin/env bash
# Subject:     Node.js 24.21.0, node:crypto
# One expects: `X509Certificate.keyUsage` holds the Key Usage extension, so that a CA can be asked for keyCertSign.
# What is so:  it holds the object identifiers of the Extended Key Usage extension. Of a CA certificate with critical Key Usage keyCertSign
#              it is `undefined`, and no property of the class shows that extension, nor the path length.
# Source:      nodejs.org/api/crypto.html#x509keyusage; RFC 5280, 4.2.1.3 and 4.2.1.12
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0

# make NAME EXTENSION…: creates a certificate with these extensions.
make() {
  local name=$1 extensions=() extension
  shift
  for extension in "$@"; do extensions+=(-addext "$extension"); done
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out "$name.pem" -days 1 -subj "/CN=$name" \
    "${extensions[@]}" 2>openssl.log || { cat openssl.log && exit 1; }
}
make ca keyUsage=critical,keyCertSign,cRLSign
make leaf basicConstraints=CA:false keyUsage=critical,digitalSignature extendedKeyUsage=serverAuth
version "Node $(node --version)"
cat >main.mjs <<'JS'
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
for (const name of ['ca', 'leaf']) {
  const certificate = new X509Certificate(readFileSync(`${name}.pem`));
  console.log(`${name}: ca ${certificate.ca}, keyUsage ${JSON.stringify(certificate.keyUsage)}`);
}
JS
# 1.3.6.1.5.5.7.3.1 is serverAuth
expect "certificates" 'ca: ca true, keyUsage undefined
leaf: ca false, keyUsage ["1.3.6.1.5.5.7.3.1"]' "$(node main.mjs)"
