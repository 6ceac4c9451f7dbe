"""The search engine in a browser: pages, JSON answers, uploads and thumbnails.

``create_app`` builds the whole application; nothing is opened or loaded when this package is imported.
"""

from searchengine.web.factory import create_app


def gunicorn_config() -> str:
    """What gunicorn's ``-c`` takes to serve as the project's own gunicorn.conf.py does, wherever this is installed."""
    return "python:searchengine.web.serving"


__all__ = ["create_app", "gunicorn_config"]
