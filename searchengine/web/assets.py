"""Templates, styles and scripts: where they lie, and addresses that change when they do."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path

from flask import Flask, Response, request, send_from_directory, url_for

from searchengine.web.headers import ASK_AGAIN, FOREVER

# Styles that every page has come in one piece: over a slow network each further file costs a round trip.
TOGETHER = {
    "all.css": (
        "base.css",
        "parts.css",
        "page.css",
        "results.css",
        "choices.css",
        "gallery.css",
        "judging.css",
        "above.css",
        "touch.css",
    )
}
_IMPORT = re.compile(r'^import [^;]*"\./([\w-]+\.js)";', re.MULTILINE)


def folder(name: str) -> Path:
    """``templates`` or ``static``: beside this package where it was installed, at the top of the project otherwise."""
    here = Path(__file__).resolve().parent
    installed = here / name
    return installed if installed.is_dir() else here.parents[1] / name


def files() -> list[Path]:
    """The styles, scripts and icons, in a fixed order."""
    return sorted(file for file in folder("static").rglob("*") if file.is_file())


def serve_assets(app: Flask, mounted: str = "") -> None:
    """Adds ``/static/VERSION/NAME``, and to the templates ``asset(NAME)`` and ``modules(NAME)``.

    The version stands in the path, so a script module that imports another by a relative name gets the same version,
    and every file can be kept by browsers for good. An application that is ``mounted`` under a path beside others
    takes theirs, so that browsers hold them once.
    """
    root = folder("static")
    version = _version()

    def static(version_asked: str, filename: str) -> Response:
        if filename in TOGETHER:
            response = Response("\n".join(_text(root, name) for name in TOGETHER[filename]), mimetype="text/css")
            response.set_etag(f"{version}-{filename}")
            response.make_conditional(request)
        else:
            response = send_from_directory(root, filename, conditional=True)
        # Not send_file's own guess: without a version of ours the answer must be asked for again.
        response.headers["Cache-Control"] = FOREVER if version_asked == version else ASK_AGAIN
        return response

    @lru_cache(maxsize=256)
    def address(root: str, filename: str) -> str:
        path = url_for("static", version_asked=version, filename=filename).removeprefix(root)
        return root.removesuffix(mounted) + path

    def asset(filename: str) -> str:
        return address(request.script_root, filename)

    @cache
    def modules(filename: str) -> tuple[str, ...]:
        """A script and all that it imports, so that a page can name them at once."""
        found, waiting = [filename], [filename]
        while waiting:
            for name in _IMPORT.findall(_text(root, waiting.pop(0))):
                if name not in found:
                    found.append(name)
                    waiting.append(name)
        return tuple(found)

    def favicon() -> Response:
        # Asked for by browsers that show a picture or JSON by itself.
        return send_from_directory(root, "favicon.svg", conditional=True)

    app.add_url_rule("/favicon.ico", "favicon", favicon)
    app.add_url_rule("/static/<version_asked>/<path:filename>", "static", static)
    app.add_template_global(asset)
    app.add_template_global(modules, "modules")


def _text(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def _version() -> str:
    root, digest = folder("static"), blake2b(repr(TOGETHER).encode(), digest_size=6)
    for file in files():
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
