"""How the pages are served for real: ``gunicorn "app:create_app()"`` finds this file by its name.

The settings and their reasons are in searchengine/web/gunicorn_settings.py, which an installed package has too. From
the environment: SEARCHENGINE_INDEX_DIR, SEARCHENGINE_IMAGES_DIR, PORT (8000), BIND (127.0.0.1), THREADS (32).
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
