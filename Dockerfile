# syntax=docker/dockerfile:1
# Two images without shell, package manager or build tools:
#
#   docker build --target fleet --tag vst-fleet:0.1.0 .   coordinator and workers; no query engine
#   docker build --target vst   --tag vst:0.1.0 .         everything `vst` can do; reads run directories
#
# Both run as user 65532 and write only to /tmp, /var/cache and /var/lib/vst, which may be volumes.

FROM rust:1.95-bookworm AS sources
WORKDIR /src
COPY . .
# What the finished images lack a `mkdir` for.
RUN mkdir -p /out/runs /out/cache

FROM sources AS build-fleet
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=vst-target-fleet,sharing=locked \
    cargo build --release --locked -p vst --no-default-features && cp target/release/vst /out/vst

FROM sources AS build-vst
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,id=vst-target-vst,sharing=locked \
    cargo build --release --locked -p vst && cp target/release/vst /out/vst

# glibc, libgcc, CA certificates and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot AS base
# Where a scenario of the image finds its data: ../data from its own folder, the same in every container.
COPY scenarios /usr/share/vst/scenarios
COPY data /usr/share/vst/data
COPY LICENSE /usr/share/vst/LICENSE
COPY --from=sources --chown=65532:65532 /out/runs /var/lib/vst/runs
COPY --from=sources --chown=65532:65532 /out/cache /var/cache
ENV XDG_CACHE_HOME=/var/cache
WORKDIR /var/lib/vst
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/vst"]
CMD ["--help"]

FROM base AS vst
COPY --from=build-vst /out/vst /usr/local/bin/vst

FROM base AS fleet
COPY --from=build-fleet /out/vst /usr/local/bin/vst
