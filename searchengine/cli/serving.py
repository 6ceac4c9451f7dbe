"""``searchengine serve`` and ``prepare``: the web page, by gunicorn, and the model made ready ahead of time."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchengine.cli.options import add_images_dir, add_running, print_note, print_result, whole_number
from searchengine.errors import IndexNotFoundError
from searchengine.settings import SettingsError, load_settings


def add_verbs(verbs: Any) -> None:
    """Add ``serve`` and ``prepare``."""
    serve = verbs.add_parser(
        "serve",
        help="serve the search page",
        description="Serve the search page with gunicorn: one process that holds the model, and a few threads.",
        epilog="An index that grows while it is served shows without a restart. Several are served by repeating "
        "--index-dir: the first at /, each at /i/NAME, and any two side by side for the same query.",
    )
    serve.set_defaults(act=act_serve)
    _add_index_dirs(serve)
    add_images_dir(serve)
    serve.add_argument("--host", help="address to listen on (default: $BIND, or this machine only)")
    serve.add_argument("--port", type=whole_number, help="port to listen on (default: $PORT, or 8000)")
    serve.add_argument("--threads", type=whole_number, help="connections served at a time (default: $THREADS, or 32)")

    prepare = verbs.add_parser(
        "prepare",
        help="make the model of an index ready, so that serving starts at once",
        description="Make the exported model of an index on this machine, if it is not in the cache yet.",
    )
    prepare.set_defaults(act=act_prepare)
    _add_index_dirs(prepare)
    prepare.add_argument("--weights", metavar="FILE", type=Path, help="the weights file, if it has moved")
    add_running(prepare)


def _add_index_dirs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--index-dir",
        metavar="DIR",
        type=Path,
        action="append",
        help="the index folder; may be given several times (default: $SEARCHENGINE_INDEX_DIR, with several of them "
        f"separated by {os.pathsep!r}, or ./index)",
    )


def _folders(given: Path | Sequence[Path] | None) -> tuple[Path, ...]:
    """What was named, by the flag or else by the environment."""
    return load_settings({"index_dir": given}, only=("index_dir",)).index_dir


def act_serve(options: argparse.Namespace) -> int:
    """Become gunicorn."""
    from searchengine.index.catalog import Catalog
    from searchengine.web import gunicorn_config

    folders = _folders(options.index_dir)
    given = {
        "SEARCHENGINE_INDEX_DIR": os.pathsep.join(map(str, folders)),
        "SEARCHENGINE_IMAGES_DIR": options.images_dir,
        "BIND": options.host,
        "PORT": options.port,
        "THREADS": options.threads,
    }
    environment = {**os.environ, **{name: str(value) for name, value in given.items() if value is not None}}
    # A wrong value and a missing index are told in a sentence, before gunicorn starts.
    settings = load_settings(environ=environment)
    for folder in folders:
        Catalog.open(folder).close()
        if len(folders) > 1 and os.pathsep in str(folder):
            raise IndexNotFoundError(f"{folder} has {os.pathsep!r} in its name, so it can only be served by itself.")
    check_free(settings.bind, settings.port)
    print_note(f"Serving {', '.join(map(str, folders))} at http://{settings.bind}:{settings.port} (stop with Ctrl+C)")
    command = [sys.executable, "-m", "gunicorn", "-c", str(gunicorn_config()), "searchengine.web:create_app()"]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606  (gunicorn gets our signals)


def check_free(host: str, port: int) -> None:
    """SettingsError unless something can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except (OSError, UnicodeError) as error:  # the latter for a name with a part of no letters, or of too many
        advice = (
            f"another server listens there. Choose another port: --port {port % 65535 + 1}"
            if getattr(error, "errno", None) == errno.EADDRINUSE
            else f"{getattr(error, 'strerror', error)}. Choose another --port or --host"
        )
        raise SettingsError(f"{host}, port {port}, cannot be served at: {advice}.") from error


def act_prepare(options: argparse.Namespace) -> int:
    """Make the models."""
    from searchengine.extractors import ExtractorSpec, prepare
    from searchengine.index.catalog import Catalog

    for folder in _folders(options.index_dir):
        catalog = Catalog.open(folder)
        try:
            spec = ExtractorSpec.from_json(catalog.need("spec"))
            weights = options.weights or catalog.get("weights_file")
        finally:
            catalog.close()
        if not spec.embeds:
            print_result(f"{spec.title}: no model is needed")
            continue
        place = prepare(spec, weights_file=Path(weights) if weights else None, progress=print_note)
        print_result(f"{spec.title}: ready in {place}")
    return 0
