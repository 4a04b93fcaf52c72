#!/usr/bin/env bash
# Subject:     Node.js 24.21.0, node:crypto
# One expects: `X509Certificate.subject` of a certificate with an empty subject, which is legal if it has a subjectAltName (the serving
#              certificate of istiod is one), is the empty string: the documentation and the types say string.
# What is so:  it is `undefined`. `issuer` of what such a certificate has signed, likewise.
# Source:      nodejs.org/api/crypto.html#x509subject; RFC 5280, 4.1.2.6
source "$(dirname "$0")/lib.sh"
install npm:node@24.21.0

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 1 -subj / \
  -addext subjectAltName=critical,DNS:istiod.example 2>openssl.log || { cat openssl.log && exit 1; }
version "Node $(node --version)"
expect "subject by OpenSSL" subject= "$(openssl x509 -in cert.pem -noout -subject | tr --delete ' ')"
cat >main.mjs <<'JS'
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
const { subject, issuer, subjectAltName } = new X509Certificate(readFileSync('cert.pem'));
console.log(`${typeof subject}, ${typeof issuer}, ${subjectAltName}`);
JS
expect "subject, issuer, subjectAltName" "undefined, undefined, DNS:istiod.example" "$(node main.mjs)"
