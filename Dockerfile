# The pages and the command in one image:
#
#   docker build -t searchengine .
#   docker run --rm -v ~/Pictures:/photos:ro -v pictures:/index -v searchengine-cache:/cache searchengine \
#       python offline_index.py /photos --index-dir /index --model compact
#   docker run --rm -p 127.0.0.1:8000:8000 -v ~/Pictures:/photos:ro -v pictures:/index -v searchengine-cache:/cache searchengine
#
# The photos are only read. The index may be mounted read-only where it is served only. Exported models, thumbnails and
# Keras's weights stay in /cache. In the second command, 127.0.0.1 keeps others out: put a reverse proxy with TLS in front.

FROM python:3.12-slim AS build
WORKDIR /source
RUN python -m venv /opt/searchengine
ENV PATH=/opt/searchengine/bin:$PATH
# First what changes seldom: this layer is made again only with the lock.
COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY searchengine searchengine
COPY templates templates
COPY static static
# The lock also holds what only development needs; it stays behind here.
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
    && pip uninstall --yes --quiet hatchling hypothesis mypy playwright pre-commit pytest ruff uv

FROM python:3.12-slim
COPY --from=build /opt/searchengine /opt/searchengine
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
EXPOSE 8000
# Long enough to export a model at the first start.
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s CMD ["python", "-c", "import http.client, os, sys; server = http.client.HTTPConnection(os.environ['BIND'], int(os.environ['PORT']), timeout=8); server.request('GET', '/healthz', headers={'Host': os.environ.get('SEARCHENGINE_HOSTS', '').split(',')[0].strip() or 'localhost'}); sys.exit(server.getresponse().status != 200)"]
# The worker tells in a file that it lives: in memory, since writing to a container's disk may block.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "--worker-tmp-dir", "/dev/shm", "app:create_app()"]
