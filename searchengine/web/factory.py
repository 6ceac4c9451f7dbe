"""Builds the web application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Flask
from jinja2 import ChoiceLoader, PrefixLoader
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from searchengine.analyse.evaluation.report import templates as evaluation_templates
from searchengine.settings import Settings, load_settings
from searchengine.web import (
    answers,
    assets,
    compare,
    compression,
    evaluations,
    headers,
    health,
    hosts,
    maps,
    pages,
    pictures,
    words,
)
from searchengine.web.incoming import FORM_OVERHEAD_BYTES, InMemoryRequest
from searchengine.web.judging import MOST
from searchengine.web.renditions import Renditions
from searchengine.web.seam import Engine
from searchengine.web.served import Collection, Collections, mount, names_of


def create_app(
    config: Mapping[str, Any] | None = None,
    *,
    engine: Engine | None = None,
    engines: Mapping[str, Engine] | None = None,
) -> Flask:
    """A Flask application over one index or several.

    ``config`` overrides the environment (see ``searchengine.settings``); keys that Flask knows, such as TESTING,
    reach Flask. Without an ``engine``, or several by name, the indexes at SEARCHENGINE_INDEX_DIR are opened here, which
    is why gunicorn calls this in the worker and not before it forks. Raises IndexError_ or SettingsError with a
    sentence for a person.

    The application of the first index has the plain addresses; each index has one of its own under ``/i/NAME``, so
    that nothing in a page need know of the others but the way there.
    """
    settings = load_settings(config)
    if engines is None:
        engines = {"index": engine} if engine is not None else _opened(settings)
    collections = Collections(dict(engines))
    renditions = Renditions(settings.cache_root / "renditions")  # bounds how many are made at once, of all indexes
    apps = {
        collection.name: _app_of(collection, collections, settings, renditions, config)
        for collection in collections.all
    }

    app = apps[collections.first.name]
    app.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        app.wsgi_app, {mount(name): one.wsgi_app for name, one in apps.items()}
    )
    if settings.proxies:
        count = settings.proxies
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=count, x_port=count, x_prefix=count
        )
    return app


def _app_of(
    collection: Collection,
    collections: Collections,
    settings: Settings,
    renditions: Renditions,
    config: Mapping[str, Any] | None,
) -> Flask:
    """The pages of one index."""
    engine = collection.engine
    app = Flask("searchengine.web", template_folder=str(assets.folder("templates")), static_folder=None)
    app.request_class = InMemoryRequest
    app.config.from_mapping(
        {
            "MAX_CONTENT_LENGTH": settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
            "MAX_FORM_PARTS": MOST + 16,
        }
    )
    app.config.from_mapping(config or {})
    app.json.sort_keys = False  # type: ignore[attr-defined]  # rank before path, as people read it
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    own = app.jinja_loader
    assert own is not None
    app.jinja_loader = ChoiceLoader([own, PrefixLoader(evaluation_templates())])

    compression.compress(app)  # first, because it is the first to be called last
    assets.serve_assets(app, mount(collection.name))
    words.teach(app)
    headers.secure(app)
    answers.answer_errors(app, settings)
    hosts.check_hosts(app, settings)
    app.register_blueprint(pages.blueprint(collection, collections, settings))
    app.register_blueprint(compare.blueprint(collection, collections, settings))
    app.register_blueprint(health.blueprint(collection, collections))
    app.register_blueprint(maps.blueprint(engine, settings))
    app.register_blueprint(evaluations.blueprint(engine))
    app.register_blueprint(pictures.blueprint(engine, renditions))
    app.extensions["searchengine"] = collection
    return app


def _opened(settings: Settings) -> dict[str, Engine]:
    from searchengine.web.engines import open_engines

    return dict(zip(names_of(settings.index_dir), open_engines(settings), strict=True))
