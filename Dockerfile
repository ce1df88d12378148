# One image for every role; the argument says which: `run --role engine`.
# The builder has a compiler, since faust-streaming has no wheel for Linux on arm64.
FROM python:3.13-trixie AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/thetastream
ENV PATH=/opt/thetastream/bin:$PATH

# Dependencies first: this layer is kept while only our code changes.
COPY requirements-runtime.lock /src/
RUN python -m pip install --no-deps --require-hashes -r /src/requirements-runtime.lock

COPY pyproject.toml README.md /src/
COPY schemas /src/schemas
COPY topics /src/topics
COPY stream /src/stream
# The root filesystem is read-only later, so that byte code has to be made now, and the engine's
# inner loops compiled: for any CPU, since nobody knows where the image will run.
ENV NUMBA_CACHE_DIR=/opt/thetastream/compiled NUMBA_CPU_NAME=generic
RUN python -m pip install --no-deps --no-build-isolation /src \
    && python -m compileall -q /opt/thetastream/lib \
    && python -m stream.engine.warm_up

FROM python:3.13-slim-trixie

COPY --from=builder /opt/thetastream /opt/thetastream

# Nothing durable is on disk: state lives in Kafka. Faust makes a directory here all the same.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin thetastream \
    && install -d -o thetastream -g thetastream /var/lib/thetastream
WORKDIR /var/lib/thetastream
ENV PATH=/opt/thetastream/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/opt/thetastream/compiled \
    NUMBA_CPU_NAME=generic \
    TMPDIR=/var/lib/thetastream \
    PYTHONDONTWRITEBYTECODE=1 \
    THETASTREAM_STATE_DIR=/var/lib/thetastream \
    THETASTREAM_WEB_HOST=0.0.0.0 \
    THETASTREAM_WEB_PORT=6066
# By number: Kubernetes cannot tell that a name is not root's.
USER 10001:10001
EXPOSE 6066

# For plain containers; Kubernetes has its own probes and ignores it. The first minute is start-up.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['THETASTREAM_WEB_PORT'] + '/healthz', timeout=4)"]

ENTRYPOINT ["thetastream"]
CMD ["--help"]
