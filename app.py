"""The Flask application, for gunicorn and for development.

::

    gunicorn -c gunicorn.conf.py "app:create_app()"    for real
    python app.py                                      while working on the pages; reloads when a file changes

Both serve the index at SEARCHENGINE_INDEX_DIR, at http://127.0.0.1:8000 unless PORT says otherwise.
"""

from __future__ import annotations

import sys

from searchengine.errors import SearchEngineError, missing_package

try:
    from searchengine.settings import load_settings
    from searchengine.web import assets, create_app
except ModuleNotFoundError as error:
    sys.exit(f"app.py: {missing_package(error)}")

__all__ = ["create_app"]


def main() -> int:
    """Serves with Flask's own server, on this machine only."""
    try:
        settings = load_settings()
        app = create_app({"TEMPLATES_AUTO_RELOAD": True})
    except SearchEngineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    # Of styles and scripts the application knows what they were at its start; the reloader by itself sees Python only.
    watched = [str(file) for file in assets.files()]
    app.run(host="127.0.0.1", port=settings.port, threaded=True, use_reloader=True, extra_files=watched)
    return 0


if __name__ == "__main__":
    sys.exit(main())
