# One image for every role, `docker run tallylight role NAME`, and one with Varnish for the role `edge`. Python packages are pinned by hash in requirements.lock.
FROM docker.io/library/python:3.12-slim-bookworm AS build
WORKDIR /app
RUN python -m venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Dependencies first: they change seldom, and this layer with them.
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY domain domain
COPY commands commands
COPY eventstore eventstore
COPY projections projections
COPY media media
COPY gateways gateways
# In place, as on a laptop: the packages are an application's, not a library's.
RUN pip install --no-deps --no-build-isolation --config-settings editable_mode=compat -e . \
    && python -m compileall -q domain commands eventstore projections media gateways

FROM docker.io/library/python:3.12-slim-bookworm AS role
RUN apt-get update && apt-get install -y --no-install-recommends libsrt1.5-openssl && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin tallylight \
    && install -d -o tallylight -g tallylight -m 0700 /data /archive
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TALLYLIGHT_DATA_DIR=/data \
    TALLYLIGHT_LOG_FORMAT=json \
    TALLYLIGHT_HOST=0.0.0.0 \
    TALLYLIGHT_HEALTH_HOST=0.0.0.0 \
    TALLYLIGHT_HEALTH_PORT=9090
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
    CMD ["python", "-m", "gateways.probe", "127.0.0.1", "9090", "/healthz"]
ENTRYPOINT ["tallylight"]
CMD ["--help"]

# Varnish compiles its configuration, so it brings a compiler along.
FROM role AS edge
USER root
RUN apt-get update && apt-get install -y --no-install-recommends varnish varnish-vmod-digest && rm -rf /var/lib/apt/lists/*
USER 10001:10001
