"""The search engine in a browser: pages, JSON, uploads and thumbnails, as one Flask application.

``create_app`` builds all of it; importing this package opens and loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, request
from flask_compress import Compress
from jinja2 import ChoiceLoader, PrefixLoader
from werkzeug.middleware.proxy_fix import ProxyFix

from searchengine.analyse.evaluation.report import templates as evaluation_templates
from searchengine.compat import give_back_memory
from searchengine.settings import load_settings
from searchengine.spelling import MAX_EXAMPLES
from searchengine.web import analysis, compare, error_pages, images, pages, search
from searchengine.web.engines import ServedEngine, open_engines
from searchengine.web.requests import Site, serve_site
from searchengine.web.security import nonce, secure
from searchengine.web.uploads import FORM_OVERHEAD_BYTES, InMemoryRequest

__all__ = ["create_app", "gunicorn_config"]

_COMPRESSED_TYPES = [
    "text/html",
    "text/css",
    "text/plain",
    "text/javascript",
    "application/json",
    "application/octet-stream",  # the points of the map
    "image/svg+xml",
]


def gunicorn_config() -> str:
    """Return the argument of gunicorn's ``-c`` that serves like the project's gunicorn.conf.py, wherever installed."""
    return "python:searchengine.web.gunicorn_settings"


def create_app(config: Mapping[str, Any] | None = None, *engines: ServedEngine) -> Flask:
    """Return a Flask application that serves one or more indexes.

    Args:
        config: overrides the environment (see ``searchengine.settings``). Flask's own keys, such as TESTING, are
            passed on to Flask.
        engines: the indexes to serve; by default, those at SEARCHENGINE_INDEX_DIR are opened here. In a gunicorn
            worker this happens after the fork.

    Raises:
        IndexError_, SettingsError
    """
    give_back_memory()
    settings = load_settings(config)
    site = Site(engines or tuple(open_engines(settings)), settings)

    app = Flask("searchengine.web", template_folder=str(pages.folder("templates")), static_folder=None)
    app.request_class = InMemoryRequest
    app.config.from_mapping(
        MAX_CONTENT_LENGTH=settings.max_upload_bytes + FORM_OVERHEAD_BYTES, MAX_FORM_PARTS=MAX_EXAMPLES + 16
    )
    app.config.from_mapping(config or {})
    app.json.sort_keys = False  # type: ignore[attr-defined]  # keeps the readable order: rank before path
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    assert app.jinja_loader is not None
    app.jinja_loader = ChoiceLoader([app.jinja_loader, PrefixLoader(evaluation_templates())])
    app.add_template_global(nonce)

    _compress(app)  # first, because Flask calls the function registered first last
    secure(app, settings)
    serve_site(app, site)
    app.register_blueprint(error_pages.errors)
    app.register_blueprint(pages.pages)
    app.register_blueprint(search.search)
    app.register_blueprint(compare.compare)
    app.register_blueprint(analysis.analysis)
    app.register_blueprint(images.images)

    if settings.proxies:
        count = settings.proxies
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=count, x_port=count, x_prefix=count
        )
    return app


def _compress(app: Flask) -> None:
    """Compress text and the map for clients that accept it, but not streams such as original files.

    An attacker can guess secrets in compressed pages (BREACH) if they are the same in every response. There are none
    here: no session, no cookie, and the nonce of the policy differs in every response.
    """
    app.config.from_mapping(
        COMPRESS_ALGORITHM=["zstd", "br", "gzip"],
        COMPRESS_MIMETYPES=_COMPRESSED_TYPES,
        COMPRESS_MIN_SIZE=1000,
        COMPRESS_REGISTER=False,
        COMPRESS_STREAMS=False,
    )
    compress = Compress(app)

    @app.after_request
    def compress_response(response: Response) -> Response:
        # Flask-Compress adds Vary to every type, and takes "gzip;q=0" for "gzip".
        if response.mimetype not in _COMPRESSED_TYPES:
            return response
        codings = [(coding, quality) for coding, quality in request.accept_encodings if coding != "identity"]
        if not codings or not all(quality for _, quality in codings):
            response.vary.add("Accept-Encoding")
            return response
        return compress.after_request(response)
