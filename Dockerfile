# Two images. `index` contains TensorFlow, for indexing, preparing models, fitting classifiers and training. The last stage,
# which a plain `docker build` builds, only serves, and is a fifth of the size:
#
#   docker build -t searchengine-index --target index .
#   docker build -t searchengine .
#   docker run --rm -v ~/Pictures:/photos:ro -v pictures:/index -v searchengine-cache:/cache searchengine-index \
#       python offline_index.py /photos --model efficientnet-lite0
#   docker run --rm -p 127.0.0.1:8000:8000 -v ~/Pictures:/photos:ro -v pictures:/index -v searchengine-cache:/cache searchengine
#
# Indexing leaves the exported model in /cache, where the server finds it; if the cache is lost, `searchengine prepare` in
# the first image exports it again. Thumbnails and Keras's weights are kept in /cache too. The photos are only read, and a
# container that only serves can mount the index read-only. In the last command, 127.0.0.1 keeps other machines out; to
# admit them, put a reverse proxy with TLS in front.

FROM python:3.12-slim AS build
WORKDIR /source
RUN python -m venv /opt/searchengine
ENV PATH=/opt/searchengine/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# First the part that changes least: this layer is rebuilt only when the lock changes.
COPY requirements-serve.lock ./
RUN pip install --no-deps --require-hashes -r requirements-serve.lock
COPY pyproject.toml README.md LICENSE ./
COPY searchengine searchengine
COPY templates templates
COPY static static
RUN pip install --no-deps --no-build-isolation .

# The same environment with TensorFlow, scikit-learn and everything else that indexing and training need.
FROM build AS build-index
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock

FROM python:3.12-slim AS base
WORKDIR /app
COPY app.py gunicorn.conf.py offline_index.py ./
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin searchengine \
    && install --directory --owner=searchengine --group=searchengine /index /photos /cache
ENV PATH=/opt/searchengine/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    SEARCHENGINE_INDEX_DIR=/index \
    SEARCHENGINE_CACHE_DIR=/cache \
    KERAS_HOME=/cache/keras \
    BIND=0.0.0.0 \
    PORT=8000
VOLUME ["/index", "/photos", "/cache"]
USER searchengine

FROM base AS index
COPY --from=build-index /opt/searchengine /opt/searchengine
CMD ["python", "offline_index.py", "/photos"]

FROM base AS serve
COPY --from=build /opt/searchengine /opt/searchengine
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-c", "import http.client, os, sys; server = http.client.HTTPConnection(os.environ['BIND'], int(os.environ['PORT']), timeout=8); server.request('GET', '/healthz', headers={'Host': os.environ.get('SEARCHENGINE_HOSTS', '').split(',')[0].strip() or 'localhost'}); sys.exit(server.getresponse().status != 200)"]
# Keep the worker's heartbeat file in memory, because writing to a container's disk may block.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "--worker-tmp-dir", "/dev/shm", "app:create_app()"]
