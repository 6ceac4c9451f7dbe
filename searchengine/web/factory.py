"""Builds the web application."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from searchengine.web import answers, assets, headers, pages, pictures, words
from searchengine.web.incoming import FORM_OVERHEAD_BYTES, InMemoryRequest
from searchengine.web.renditions import Renditions
from searchengine.web.seam import Engine
from searchengine.web.settings import Settings, load_settings


def create_app(config: Mapping[str, Any] | None = None, *, engine: Engine | None = None) -> Flask:
    """A Flask application over one index.

    ``config`` overrides the environment (see ``searchengine.web.settings``); keys that Flask knows, such as TESTING,
    reach Flask. Without an ``engine`` the index at SEARCHENGINE_INDEX_DIR is opened here, which is why gunicorn calls
    this in the worker and not before it forks. Raises IndexError_ or SettingsError with a sentence for a person.
    """
    settings = load_settings(os.environ, config)
    engine = engine if engine is not None else open_engine(settings)

    app = Flask("searchengine.web", template_folder=str(assets.folder("templates")), static_folder=None)
    app.request_class = InMemoryRequest
    app.config.from_mapping(
        {
            "MAX_CONTENT_LENGTH": settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
            "MAX_FORM_PARTS": 16,
            "TRUSTED_HOSTS": [host.strip() for host in settings.hosts.split(",") if host.strip()] or None,
        }
    )
    app.config.from_mapping(config or {})
    app.json.sort_keys = False  # type: ignore[attr-defined]  # rank before path, as people read it
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}

    assets.serve_assets(app)
    words.teach(app)
    headers.secure(app)
    answers.answer_errors(app, settings)
    app.register_blueprint(pages.blueprint(engine, settings))
    app.register_blueprint(pictures.blueprint(engine, Renditions(settings.cache_root / "renditions")))
    app.extensions["searchengine"] = engine
    if settings.proxies:
        count = settings.proxies
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=count, x_port=count, x_prefix=count
        )
    return app


def open_engine(settings: Settings) -> Engine:
    """The search engine over the index that the settings name; IndexError_."""
    from searchengine.engine import SearchEngine

    return cast(
        Engine,
        SearchEngine.open(
            settings.index_dir,
            images_dir=settings.images_dir,
            precision=settings.precision,
            runtime=settings.runtime,
        ),
    )
