"""``searchengine demo``: sample photos, or one's own, indexed with the shipped model and served, in one command."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

from searchengine.cli.options import print_note, whole_number


def add_verbs(verbs: Any) -> None:
    """Add ``demo``."""
    parser = verbs.add_parser(
        "demo",
        help="try it: index sample photos, or your own, and serve the page",
        description="Index sample photos, or your own, with the model that ships with the program, and serve the page. "
        "No download is needed. A second start takes seconds.",
    )
    parser.set_defaults(act=act)
    parser.add_argument("images", metavar="IMAGES", nargs="?", type=Path, help="a folder of your own photos")
    parser.add_argument(
        "--dir", type=Path, default=Path(".demo"), help="where to keep photos and index (default: .demo)"
    )
    parser.add_argument("--host", default="127.0.0.1", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=whole_number, default=8000, help="port of the page (default: 8000)")


def act(options: argparse.Namespace) -> int:
    """Run it: photos -> index -> page."""
    from searchengine.cli import indexing, serving
    from searchengine.errors import IndexingError
    from searchengine.samples import write_samples

    images = options.dir / "photos" if options.images is None else options.images.expanduser()
    try:
        options.dir.mkdir(parents=True, exist_ok=True)
        samples = write_samples(images) if options.images is None else 0
    except OSError as error:
        raise IndexingError(
            f"{options.dir} cannot be written to ({error.strerror}). Name another folder: --dir DIR"
        ) from error
    if options.images is None:
        print_note(f"{samples} sample photos in {images}")
        index_dir = options.dir / "index"
    else:
        index_dir = options.dir / f"index-{hashlib.sha256(bytes(images.absolute())).hexdigest()[:8]}"
    command = [str(images), "--index-dir", str(index_dir), "--model", "compact"]
    if _of_another_version(index_dir):
        print_note("The model has changed since this index was made: it is made anew.")
        command.append("--rebuild")
    status = indexing.main(command)
    if status != 0:
        return status
    serve = argparse.Namespace(index_dir=index_dir, images_dir=None, host=options.host, port=options.port, threads=4)
    return serving.act_serve(serve)


def _of_another_version(index_dir: Path) -> bool:
    from searchengine.errors import SearchEngineError
    from searchengine.extractors import make_spec
    from searchengine.index.catalog import Catalog

    try:
        catalog = Catalog.open(index_dir)
    except SearchEngineError:
        return False
    try:
        return catalog.get("fingerprint") != make_spec("compact").fingerprint
    finally:
        catalog.close()
