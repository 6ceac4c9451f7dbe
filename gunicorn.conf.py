"""The gunicorn configuration, which ``gunicorn "app:create_app()"`` finds by the name of this file.

The settings are explained in searchengine/web/gunicorn_settings.py, which an installed package has too. They read the
environment variables SEARCHENGINE_INDEX_DIR, SEARCHENGINE_IMAGES_DIR, PORT (default: 8000), BIND (127.0.0.1) and
THREADS (32).
"""

from searchengine.web.gunicorn_settings import (  # noqa: F401
    bind,
    control_socket_disable,
    graceful_timeout,
    keepalive,
    on_starting,
    preload_app,
    threads,
    timeout,
    worker_class,
    workers,
)
