"""Fixtures: an application over drawn pictures, with a search engine whose results can be worked out by hand."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flask import Flask
from flask.templating import Environment
from flask.testing import FlaskClient
from jinja2 import FileSystemBytecodeCache

from searchengine.web import create_app
from tests.images.pictures import encoded
from tests.web.fake import COLOURS, FakeEngine, colour_classifier, draw, draw_collection

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.web.browsing import OpenPage


JSON = {"Accept": "application/json"}


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 45 pictures in eight colours; no test changes it."""
    return draw_collection(tmp_path_factory.mktemp("collection"), 45)


@pytest.fixture(scope="session", autouse=True)
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Share compiled templates between applications, because compiling takes longer than rendering a page."""
    cache = FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flask, "jinja_environment", partial(Environment, bytecode_cache=cache))
        yield


@pytest.fixture
def engine(collection: Path) -> FakeEngine:
    return FakeEngine(collection)


@pytest.fixture
def app(engine: FakeEngine, tmp_path: Path) -> Flask:
    return make_app(engine, tmp_path)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="session")
def workspace(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FakeEngine]]:
    """Serve the collection to the browser; yield the address and the engine."""
    from tests.web.browsing import serving

    engine = FakeEngine(collection)
    engine.classified_by = colour_classifier()
    with serving(make_app(engine, tmp_path_factory.mktemp("app"), SAMPLE=20, DEFAULT_K=11)) as base:
        yield base, engine


@pytest.fixture(scope="session")
def base(workspace: tuple[str, FakeEngine]) -> str:
    """The address of the server whose pages ``open_page`` opens; a module may override it."""
    return workspace[0]


@pytest.fixture
def open_page(browser: Browser, base: str) -> Iterator[OpenPage]:
    from tests.web.browsing import pages_at

    with pages_at(browser, base) as open_:
        yield open_


def make_app(engine: FakeEngine, tmp_path: Path, **config: object) -> Flask:
    settings = {"TESTING": True, "CACHE_DIR": tmp_path / "cache", "MAX_UPLOAD_MB": 1, "MAX_UPLOAD_MEGAPIXELS": 2}
    return create_app({**settings, **config}, engine)


def picture(colour: str = "red", size: tuple[int, int] = (320, 240)) -> tuple[io.BytesIO, str]:
    """Return a picture of one colour, as the test client sends it in a form."""
    return io.BytesIO(encoded(draw(COLOURS[colour], size))), f"{colour}.png"


def ids_on(page: str) -> list[int]:
    """Return the pictures in the grid of a page."""
    return [int(found) for found in re.findall(r'<li class="tile[^"]*" id="i(\d+)"', page)]


def next_page(page: str) -> str | None:
    """Return the address of the link "Show more"."""
    more = re.search(r'<p class="more"><a class="button" href="([^"]+)"', page)
    return html.unescape(more[1]) if more else None
