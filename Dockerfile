# The operator's image: one bundled file on a Node runtime, not as root. Two ways to build it:
#
#   docker build -t istio-vault-ca .                               builds the program in a container
#   npm run build && docker build --target prebuilt -t istio-vault-ca .    takes ./dist as it is; pulls only BASE_IMAGE
#
# BASE_IMAGE needs Node 22.22 or later somewhere on the PATH below, such as node:24-bookworm-slim, or
# `FROM scratch` with /nodejs/bin/node and its libraries.
ARG BASE_IMAGE=gcr.io/distroless/nodejs24-debian12:nonroot
ARG BUILD_IMAGE=node:24-bookworm-slim

FROM ${BASE_IMAGE} AS runtime
LABEL org.opencontainers.image.title="istio-vault-ca" \
      org.opencontainers.image.description="Kubernetes operator that makes HashiCorp Vault or OpenBao the CA of an Istio control plane" \
      org.opencontainers.image.licenses="Apache-2.0"
# /nodejs/bin is where distroless has node; the container runtime looks "node" up along PATH, no shell is needed
ENV PATH=/nodejs/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    NODE_ENV=production
WORKDIR /app
USER 65532:65532
ENTRYPOINT ["node", "/app/main.js"]

FROM runtime AS prebuilt
COPY LICENSE package.json dist/main.js dist/main.js.map dist/main.js.LEGAL.txt ./

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY package.json package-lock.json .npmrc ./
# no package runs code of its own here, and the program is bundled by the Node of this image
RUN npm ci --ignore-scripts
COPY scripts scripts
COPY src src
RUN node scripts/build.ts

FROM runtime
COPY LICENSE package.json ./
COPY --from=build /src/dist/main.js /src/dist/main.js.map /src/dist/main.js.LEGAL.txt ./
