"""The command that makes a damaged index anew, from what can still be known of it."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from searchengine.errors import SearchEngineError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.index.catalog import Catalog
from searchengine.index.disk import translated


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an index was made of, and how: what a rebuild without further words keeps.

    The extractor, its weights file or "", the image folders, the choice of labels and the metric (None: unknown).
    """

    spec: ExtractorSpec
    weights_file: str
    roots: tuple[bytes, ...]
    labels: str | None
    metric: str | None


def recorded(folder: Path) -> Recorded | None:
    """Read off the catalog, whatever its format, or else off its copy; None where neither can be read."""
    for backup in (False, True):
        with suppress(SearchEngineError, TypeError):  # damaged there
            opened = Catalog.open_backup(folder, any_format=True) if backup else Catalog.open(folder, any_format=True)
            try:
                with translated(folder):
                    roots = tuple(bytes(row[0]) for row in opened.execute("SELECT path FROM roots ORDER BY id"))
                    spec = ExtractorSpec.from_json(opened.need("spec"))
                    labels, metric = opened.get("labels"), opened.get("metric")
                    return Recorded(spec, opened.get("weights_file") or "", roots, labels, metric)
            finally:
                opened.close()
    return None


def command(folder: Path, *, rebuild: bool = True) -> str:
    """What to type, names quoted as a shell wants them; words in capitals are for the person to fill in."""
    known = recorded(folder)
    where = shlex.quote(str(folder))
    if known is not None and not known.spec.embeds:
        return f"searchengine import FEATURES --index-dir {shlex.quote(str(folder) + '-2')}"
    images = " ".join(map(_quoted, known.roots)) if known is not None and known.roots else "IMAGES"
    model = "" if known is not None else " --model MODEL"
    return f"searchengine index {images} --index-dir {where}{model}{' --rebuild' if rebuild else ''}"


def _quoted(path: bytes) -> str:
    try:
        return shlex.quote(path.decode("utf-8"))
    except UnicodeDecodeError:  # bytes that no terminal shows, as bash and zsh read them
        return "$'" + "".join(chr(b) if 32 <= b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in path) + "'"
