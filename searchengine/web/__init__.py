"""The search engine in a browser: pages, JSON, uploads and thumbnails.

``create_app`` builds the whole application; nothing is opened or loaded when this package is imported.
"""

from searchengine.web.factory import create_app


def gunicorn_config() -> str:
    """The argument of gunicorn's ``-c`` that serves like the project's gunicorn.conf.py, wherever this is installed."""
    return "python:searchengine.web.gunicorn_settings"


__all__ = ["create_app", "gunicorn_config"]
