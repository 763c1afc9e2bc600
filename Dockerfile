# The flexhpc image; `make image` builds it (docs/containers.md).
# Build time and size with cached wheels on two cores: 1.5 minutes and 2.0 GB with TORCH=cpu, 3
# minutes and 6.8 GB with TORCH=cuda. After a change of the code, a build takes 4 seconds.
ARG BASE=docker.io/library/python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

# The virtual environment and the environment variables.
FROM ${BASE} AS base
ENV PATH=/opt/flexhpc/bin:$PATH \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    PYTHONSAFEPATH=1 \
    FLEXHPC_IMAGE=unknown
RUN python3 -m venv /opt/flexhpc \
 && useradd --uid 10001 --create-home flexhpc \
 && install -d -o flexhpc -g flexhpc /work

# The large layers are rebuilt only after a change of the pins. The pip configuration and the
# certificates of the site are build secrets; without them, the public index is used.
FROM base AS packages
WORKDIR /opt/flexhpc/build
COPY constraints.txt hpc/container/install.py ./
ARG TORCH=cuda
RUN --mount=type=secret,id=pipconf --mount=type=secret,id=cabundle --mount=type=secret,id=netrc \
    python install.py torch ${TORCH}
COPY pyproject.toml ./
RUN --mount=type=secret,id=pipconf --mount=type=secret,id=cabundle --mount=type=secret,id=netrc \
    python install.py packages

# The wheel of flexhpc.
FROM base AS wheel
WORKDIR /build
COPY pyproject.toml constraints.txt hpc/container/install.py ./
RUN --mount=type=secret,id=pipconf --mount=type=secret,id=cabundle --mount=type=secret,id=netrc \
    python install.py tools
COPY README.md LICENSE setup.py ./
COPY flexhpc flexhpc
COPY sweeps sweeps
COPY hpc/profiles hpc/profiles
RUN pip wheel --quiet --no-deps --no-index --no-build-isolation --no-cache-dir --wheel-dir /dist .

FROM packages
COPY --from=wheel /dist /opt/flexhpc/dist
RUN pip install --quiet --no-deps --no-index --no-cache-dir /opt/flexhpc/dist/*.whl
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="flexhpc" \
      org.opencontainers.image.description="Measures how much data a neural network can fit in practice" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER flexhpc
WORKDIR /work
HEALTHCHECK --interval=5m --timeout=1m --start-period=1m CMD ["flexhpc", "doctor"]
ENTRYPOINT ["flexhpc"]
CMD ["--help"]
