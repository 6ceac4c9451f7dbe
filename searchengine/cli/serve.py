"""``searchengine serve``, ``prepare`` and ``demo``: the web page, by gunicorn."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from searchengine.cli.command import COUNT, PATH, option, verb
from searchengine.cli.index import summarize
from searchengine.cli.options import MILVUS, settings_options
from searchengine.cli.output import print_note, print_result
from searchengine.errors import IndexingError, IndexNotFoundError, SearchEngineError
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.settings import Settings

_SERVE = """\
An index that grows while it is served shows without a restart. Several are served by repeating --index-dir: the first
at /, each at /i/NAME, and any two side by side for the same query.
"""
_DEMO_MODEL = "efficientnet-lite0"


@verb("serve", "serve the search page", _SERVE)
@settings_options(
    "index_dir", "images_dir", "bind", "port", "threads", "keep_location", *MILVUS, several=True, only=False
)
def serve(settings: Settings) -> int:
    """Serve the search page with gunicorn: one process that holds the model, and a few threads."""
    become_server(settings)


def become_server(settings: Settings) -> NoReturn:
    """Replace this process by gunicorn, once it is certain that the indexes open and the port is free."""
    from searchengine.index.storage import storage_of
    from searchengine.web import gunicorn_config

    addresses = settings.index_dir
    for address in addresses:
        with closing(storage_of(address).read()) as index:
            index.manifest("spec")
        if len(addresses) > 1 and isinstance(address, Path) and os.pathsep in str(address):
            raise IndexNotFoundError(f"{address} has {os.pathsep!r} in its name, so it can only be served by itself.")
    check_free(settings.bind, settings.port)
    print_note(f"Serving {', '.join(map(str, addresses))} at http://{settings.bind}:{settings.port} (stop with Ctrl+C)")
    command = [sys.executable, "-m", "gunicorn", "-c", str(gunicorn_config()), "searchengine.web:create_app()"]
    sys.stdout.flush()
    if find_spec("fcntl") is None:
        _serve_without_gunicorn(settings)
    # gunicorn gets our signals
    os.execve(sys.executable, command, {**os.environ, **settings.environment()})  # noqa: S606


def _serve_without_gunicorn(settings: Settings) -> NoReturn:
    """On Windows, where gunicorn does not run, by the server that comes with Flask."""
    from werkzeug.serving import run_simple

    from searchengine.web import create_app

    os.environ.update(settings.environment())
    print_note("gunicorn does not run on this system, so Flask's own server is used: for this machine only.")
    run_simple(settings.bind, settings.port, create_app(), threaded=True)
    sys.exit(0)


def check_free(host: str, port: int) -> None:
    """SettingsError unless a server can listen at this address."""
    from searchengine.settings import SettingsError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name with an empty or overlong part
        advice = (
            f"another server listens there. Choose another port: --port {port % 65535 + 1}"
            if getattr(error, "errno", None) == errno.EADDRINUSE
            else f"{getattr(error, 'strerror', error)}. Choose another --port or --host"
        )
        raise SettingsError(f"Cannot listen on {host}, port {port}: {advice}.") from error


@verb("prepare", "make the model of an index ready, so that serving starts at once")
@settings_options("index_dir", "precision", "runtime", several=True)
@option("--weights FILE", "the weights file, if it has moved", PATH)
def prepare(settings: Settings, weights: Path | None) -> None:
    """Make the exported model of an index on this machine, if it is not in the cache yet."""
    from searchengine.extractors import ExtractorRecipe, cache
    from searchengine.index.storage import storage_of

    for address in settings.index_dir:
        with closing(storage_of(address).read()) as index:
            recipe, folder = ExtractorRecipe.of_manifest(index.spec, index.manifest("weights_file")), index.folder
        spec = recipe.spec
        if not spec.embeds:
            print_result(f"{spec.title}: no model is needed")
            continue
        place = replace(recipe, weights_file=weights or recipe.weights_file).export(print_note).xml.parent
        cache.note_use(spec, folder)
        print_result(f"{spec.title}: ready in {place}")


@verb("demo", "try it: index sample photos, or your own, and serve the page")
@click.argument("images", metavar="[IMAGES]", required=False, type=PATH)
@option("--dir DIR", "where to keep photos and index (default: .demo)", PATH, name="folder", default=".demo")
@option("--host", default="127.0.0.1", hidden=True)
@option("--port PORT", "port of the page (default: 8000)", COUNT, default=8000)
def demo(images: Path | None, folder: Path, host: str, port: int) -> int:
    """Index sample photos, or your own, with a model that comes with the program, and serve the page.

    No download is needed. A second start takes seconds.
    """
    from searchengine.indexing import update_index
    from searchengine.samples import write_samples
    from searchengine.settings import load_settings

    photos = folder / "photos" if images is None else images.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if images is None:
            print_note(f"{write_samples(photos)} sample photos in {photos}")
    except OSError as error:
        raise IndexingError(
            f"{folder} cannot be written to ({error.strerror}). Name another folder: --dir DIR"
        ) from error
    name = "index" if images is None else f"index-{hashlib.sha256(bytes(photos.absolute())).hexdigest()[:8]}"
    index_dir = folder / name
    settings = load_settings({"index_dir": index_dir, "bind": host, "port": port, "threads": 4})
    outdated = _is_outdated(index_dir)
    if outdated:
        print_note("The model has changed since this index was made: it is made again.")
    with Bar() as bar:
        summary = update_index(
            photos,
            index_dir,
            model=_DEMO_MODEL,
            rebuild=outdated,
            precision=settings.precision,
            runtime=settings.runtime,
            progress=bar,
        )
    print_result(f"{index_dir}: {summarize(summary)}")
    if not summary.images:
        raise IndexingError(f"No image in {photos} can be read.")
    become_server(settings)


def _is_outdated(index_dir: Path) -> bool:
    """Whether the index was made by another model than that of the demo."""
    from searchengine.extractors import make_spec
    from searchengine.index.storage import storage_of

    try:
        with closing(storage_of(index_dir).read()) as index:
            return index.fingerprint != make_spec(_DEMO_MODEL).fingerprint
    except SearchEngineError:
        return False
