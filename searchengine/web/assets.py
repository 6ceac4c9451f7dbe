"""Templates, styles and scripts: their folders, and addresses that change with their content."""

from __future__ import annotations

import re
from functools import cache
from hashlib import blake2b
from pathlib import Path

from flask import Response, abort, request

from searchengine.web.indexes import IndexBlueprint
from searchengine.web.security import ASK_AGAIN, FOREVER

# The styles of every page are one file: on a slow network each further file costs a round trip.
BUNDLES = {"all.css": ("base.css", "overlays.css", "top.css", "workspace.css", "grid.css")}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_IMPORT = re.compile(r'^import [^;]*"\./([\w-]+\.js)";', re.MULTILINE)

assets = IndexBlueprint("assets", __name__)


def folder(name: str) -> Path:
    """``templates`` or ``static``: in this package if it is installed, else at the top of the project."""
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parents[1] / name


@cache
def files() -> list[Path]:
    """The styles, scripts and icons, in a fixed order; without the notes in vendor/."""
    return sorted(file for file in folder("static").rglob("*") if file.suffix in _TYPES)


@assets.get("/static/<version>/<path:filename>")
def static(version: str, filename: str) -> Response:
    """A file or a bundle.

    The version is part of the path, so a script that imports another by a relative name gets the same version, and
    browsers may keep every file forever.
    """
    if filename not in BUNDLES and folder("static") / filename not in files():
        abort(404)
    text = "\n".join(_text(name) for name in BUNDLES.get(filename, (filename,)))
    response = Response(text, mimetype=_TYPES[Path(filename).suffix])
    response.set_etag(f"{_version()}-{filename}", weak=True)  # the same for every compression
    # Browsers must not keep these files under the address of another version.
    response.headers["Cache-Control"] = FOREVER if version == _version() else ASK_AGAIN
    response.make_conditional(request)
    return response


@assets.get("/favicon.ico")
def favicon() -> Response:
    """Requested by browsers that show an image or JSON by itself."""
    return static("", "favicon.svg")


@assets.app_template_global("asset")
def asset(filename: str) -> str:
    """The address of a file; the same on the pages of every index, so that browsers hold it once."""
    return f"{request.script_root}/static/{_version()}/{filename}"


@assets.app_template_global("modules")
@cache
def modules(filename: str) -> tuple[str, ...]:
    """A script and all that it imports, so that a page can name them at once."""
    names = [filename]
    for name in names:  # grows meanwhile
        names += [imported for imported in _IMPORT.findall(_text(name)) if imported not in names]
    return tuple(names)


def _text(name: str) -> str:
    return (folder("static") / name).read_text(encoding="utf-8")


@cache
def _version() -> str:
    root, digest = folder("static"), blake2b(repr(BUNDLES).encode(), digest_size=6)
    for file in files():
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
