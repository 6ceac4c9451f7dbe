"""``searchengine serve`` and ``prepare``: the web page, by gunicorn, and the model made ready ahead of time."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchengine.cli.options import add_images_dir, add_running, print_note, print_result, whole_number
from searchengine.errors import IndexNotFoundError
from searchengine.index.folders import Folders


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
    serve.add_argument(
        "--host", default=os.environ.get("BIND", "127.0.0.1"), help="address to listen on (default: this machine only)"
    )
    serve.add_argument(
        "--port",
        type=whole_number,
        default=whole_number(os.environ.get("PORT") or "8000"),
        help="port to listen on (default: $PORT, or 8000)",
    )
    serve.add_argument("--threads", type=whole_number, default=32, help="connections served at a time (default: 32)")

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


def _folders(given: Path | Sequence[Path] | None) -> Folders:
    """What was named, by the flag or else by the environment."""
    if given is None:
        return Folders.of_environment()
    return Folders.of([given] if isinstance(given, Path) else given)


def act_serve(options: argparse.Namespace) -> int:
    """Become gunicorn."""
    from searchengine.index.catalog import Catalog

    folders = _folders(options.index_dir)
    for folder in folders:
        Catalog.open(folder).close()  # a missing index is told in a sentence, before gunicorn starts
        if len(folders) > 1 and os.pathsep in str(folder):
            raise IndexNotFoundError(f"{folder} has {os.pathsep!r} in its name, so it can only be served by itself.")
    environment = dict(os.environ)
    environment["SEARCHENGINE_INDEX_DIR"] = str(folders)
    if options.images_dir is not None:
        environment["SEARCHENGINE_IMAGES_DIR"] = str(options.images_dir)
    environment["PORT"] = str(options.port)
    environment["BIND"] = options.host
    environment["THREADS"] = str(options.threads)
    from searchengine.web import gunicorn_config

    print_note(f"Serving {', '.join(map(str, folders))} at http://{options.host}:{options.port} (stop with Ctrl+C)")
    command = [sys.executable, "-m", "gunicorn", "-c", str(gunicorn_config()), "searchengine.web:create_app()"]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606  (gunicorn gets our signals)


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
