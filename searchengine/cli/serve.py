"""``searchengine serve``, ``prepare`` and ``demo``: the search page, served by gunicorn."""

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
from searchengine.cli.options import INDEX_DIRS, MILVUS, settings_options
from searchengine.cli.output import print_note, print_result
from searchengine.errors import IndexingError, IndexNotFoundError, SearchEngineError
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.settings import Settings

_DEMO_MODEL = "efficientnet-lite0"


@verb("serve")
@settings_options(
    "index_dir", "images_dir", "bind", "port", "threads", "keep_location", *MILVUS, index_dir=INDEX_DIRS, only=False
)
def serve(settings: Settings) -> int:
    """Serve the search page.

    gunicorn runs one process, which holds the model and answers in threads. Changes of the index appear without a
    restart.
    With several index folders, the first is served at / and each at /i/NAME, and any two can be compared side by side
    for the same query.
    """
    become_server(settings)


def become_server(settings: Settings) -> NoReturn:
    """Replace this process with gunicorn, after checking that the indexes open and the port is free."""
    from searchengine.index.storage import storage_of
    from searchengine.web import gunicorn_config

    addresses = settings.index_dir
    for address in addresses:
        with closing(storage_of(address).read()) as index:
            index.manifest("spec")
        if len(addresses) > 1 and isinstance(address, Path) and os.pathsep in str(address):
            raise IndexNotFoundError(f"{address} has {os.pathsep!r} in its name, so it can only be served alone.")
    check_free(settings.bind, settings.port)
    print_note(f"Serving {', '.join(map(str, addresses))} at http://{settings.bind}:{settings.port} (stop with Ctrl+C)")
    command = [sys.executable, "-m", "gunicorn", "-c", str(gunicorn_config()), "searchengine.web:create_app()"]
    sys.stdout.flush()
    if find_spec("fcntl") is None:
        _serve_without_gunicorn(settings)
    # exec, so that signals reach gunicorn
    os.execve(sys.executable, command, {**os.environ, **settings.environment()})  # noqa: S606


def _serve_without_gunicorn(settings: Settings) -> NoReturn:
    """Serve with Flask's development server, on Windows, where gunicorn does not run."""
    from werkzeug.serving import run_simple

    from searchengine.web import create_app

    os.environ.update(settings.environment())
    print_note(
        "gunicorn does not run on this system, so Flask's development server is used. Use it on this machine only."
    )
    run_simple(settings.bind, settings.port, create_app(), threaded=True)
    sys.exit(0)


def check_free(host: str, port: int) -> None:
    """Raise SettingsError unless a server can listen on this address."""
    from searchengine.settings import SettingsError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name with an empty or overlong part
        advice = (
            f"another server is listening there. Choose another port: --port {port % 65535 + 1}"
            if getattr(error, "errno", None) == errno.EADDRINUSE
            else f"{getattr(error, 'strerror', error)}. Choose another --port or --host"
        )
        raise SettingsError(f"Cannot listen on {host}, port {port}: {advice}.") from error


@verb("prepare")
@settings_options("index_dir", "precision", "runtime", index_dir=INDEX_DIRS)
@option("--weights FILE", "New location of the weights file, if it has moved.", PATH)
def prepare(settings: Settings, weights: Path | None) -> None:
    """Export the model of an index, so that serving starts at once.

    The exported model is kept in the cache of this machine. If it is there already, nothing happens.
    """
    from searchengine.extractors import ExtractorRecipe, cache
    from searchengine.index.storage import storage_of

    for address in settings.index_dir:
        with closing(storage_of(address).read()) as index:
            recipe, folder = ExtractorRecipe.of_manifest(index.spec, index.manifest("weights_file")), index.folder
        spec = recipe.spec
        if not spec.embeds:
            print_result(f"{spec.title}: needs no model")
            continue
        place = replace(recipe, weights_file=weights or recipe.weights_file).export(print_note).xml.parent
        cache.note_use(spec, folder)
        print_result(f"{spec.title}: ready in {place}")


@verb("demo")
@click.argument("images", metavar="[IMAGES]", required=False, type=PATH)
@option("--dir DIR", "Folder for the photos and the index (default: .demo).", PATH, name="folder", default=".demo")
@option("--host", default="127.0.0.1", hidden=True)
@option("--port PORT", "Port to listen on (default: 8000).", COUNT, default=8000)
def demo(images: Path | None, folder: Path, host: str, port: int) -> int:
    """Index sample photos, or your own, and serve the search page.

    The model is installed with the program, so nothing is downloaded. Starting it again takes only seconds.
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
        print_note("The index was made with another model, so it is made again.")
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
    """Return whether the index was made by another model than that of the demo."""
    from searchengine.extractors import make_spec
    from searchengine.index.storage import storage_of

    try:
        with closing(storage_of(index_dir).read()) as index:
            return index.fingerprint != make_spec(_DEMO_MODEL).fingerprint
    except SearchEngineError:
        return False
