"""The Flask application, for gunicorn and for development.

::

    gunicorn -c gunicorn.conf.py "app:create_app()"    in production
    python app.py                                      during development; reloads when a file changes

Both serve the index at SEARCHENGINE_INDEX_DIR on http://127.0.0.1:8000; PORT sets another port.
"""

from __future__ import annotations

import sys

from searchengine.errors import SearchEngineError, missing_package

try:
    from searchengine.settings import load_settings
    from searchengine.web import create_app, pages
except ModuleNotFoundError as error:
    sys.exit(f"app.py: {missing_package(error)}")

__all__ = ["create_app"]


def main() -> int:
    """Serve with Flask's own server, on this machine only."""
    try:
        settings = load_settings()
        app = create_app({"TEMPLATES_AUTO_RELOAD": True})
    except SearchEngineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    # The application reads styles and scripts when it starts, and the reloader watches only Python files by default.
    watched = [str(file) for file in pages.static_files()]
    app.run(host="127.0.0.1", port=settings.port, threaded=True, use_reloader=True, extra_files=watched)
    return 0


if __name__ == "__main__":
    sys.exit(main())
