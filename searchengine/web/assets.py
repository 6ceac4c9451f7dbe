"""Templates, styles and scripts: where they lie, and addresses that change when they do."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from flask import Flask, Response, request, send_from_directory, url_for

from searchengine.web.headers import ASK_AGAIN, FOREVER


def folder(name: str) -> Path:
    """``templates`` or ``static``: beside this package where it was installed, at the top of the project otherwise."""
    here = Path(__file__).resolve().parent
    installed = here / name
    return installed if installed.is_dir() else here.parents[1] / name


def serve_assets(app: Flask, mounted: str = "") -> None:
    """Adds ``/static/VERSION/NAME``, and ``asset(NAME)`` to the templates.

    The version stands in the path, so a script module that imports another by a relative name gets the same version,
    and every file can be kept by browsers for good. An application that is ``mounted`` under a path beside others
    takes theirs, so that browsers hold them once.
    """
    root = folder("static")
    version = _version(root)

    def static(version_asked: str, filename: str) -> Response:
        response = send_from_directory(root, filename, conditional=True)
        # Not send_file's own guess: without a version of ours the answer must be asked for again.
        response.headers["Cache-Control"] = FOREVER if version_asked == version else ASK_AGAIN
        return response

    def asset(filename: str) -> str:
        address, root = url_for("static", version_asked=version, filename=filename), request.script_root
        return root.removesuffix(mounted) + address.removeprefix(root)

    def favicon() -> Response:
        # Asked for by browsers that show a picture or JSON by itself.
        return send_from_directory(root, "favicon.svg", conditional=True)

    app.add_url_rule("/favicon.ico", "favicon", favicon)
    app.add_url_rule("/static/<version_asked>/<path:filename>", "static", static)
    app.add_template_global(asset)


def _version(root: Path) -> str:
    digest = blake2b(digest_size=6)
    for file in sorted(root.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
