"""Originals and thumbnails, each named by its id and never by a path."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, render_template, request, send_file

from searchengine import images
from searchengine.errors import ImageError, NotAnImageError, UnknownImageError
from searchengine.images.formats import BROWSER_TYPES, HEAD_BYTES
from searchengine.index.types import ImageRecord
from searchengine.web.headers import ASK_AGAIN, FOREVER_PRIVATE
from searchengine.web.incoming import parse_id
from searchengine.web.renditions import Rendition, Renditions, existing_file
from searchengine.web.seam import Engine


def blueprint(engine: Engine, renditions: Renditions) -> Blueprint:
    """``/images/ID`` and ``/thumbnails/ID``."""
    pictures = Blueprint("pictures", __name__)

    @pictures.get("/images/<image_id>")
    def image(image_id: str) -> Response:
        record = _record(engine, image_id)
        file = existing_file(record)
        with file.open("rb") as opened:
            format_ = images.sniff(opened.read(HEAD_BYTES))
        if format_ is None:
            # The file was an image when it was indexed. Whatever it is now, it is not ours to hand out.
            raise NotAnImageError(f"“{record.path}” is no longer an image. Index the folder again to leave it out.")
        if "download" in request.args:
            return _original(file, record, BROWSER_TYPES.get(format_, f"image/{format_.lower()}"), as_attachment=True)
        if format_ in BROWSER_TYPES:
            return _original(file, record, BROWSER_TYPES[format_])
        return _sent(renditions.full(record), record)

    @pictures.get("/thumbnails/<image_id>")
    def thumbnail(image_id: str) -> Response:
        try:
            record = _record(engine, image_id)
            return _sent(renditions.thumbnail(record), record)
        except (UnknownImageError, ImageError) as error:
            return _placeholder(error)

    return pictures


def _record(engine: Engine, text: str) -> ImageRecord:
    number = parse_id(text)
    if number is None:
        raise UnknownImageError("There is no such image: its number must be a whole number from 1 up.")
    return engine.record(number)


def _sent(rendition: Rendition, record: ImageRecord) -> Response:
    response = Response(rendition.data, mimetype="image/jpeg")
    if rendition.current and record.content_hash:
        response.set_etag(record.content_hash)
        named = request.args.get("v") == record.content_hash[:8]
        response.headers["Cache-Control"] = FOREVER_PRIVATE if named else ASK_AGAIN
    else:
        response.headers["Cache-Control"] = ASK_AGAIN
    response.make_conditional(request)
    return response


def _original(file: Path, record: ImageRecord, mimetype: str, *, as_attachment: bool = False) -> Response:
    stat = file.stat()
    response = send_file(
        file.absolute(),  # Flask takes a relative path for one in its own folder
        mimetype=mimetype,
        as_attachment=as_attachment,
        download_name=_safe_name(record),  # send_file's own choice may hold a line break
        conditional=True,
        etag=f"{stat.st_mtime_ns:x}-{stat.st_size:x}",  # send_file's own wants a path that is UTF-8
    )
    # Under this address another picture may stand tomorrow: browsers keep it, and ask whether it is still the same.
    response.headers["Cache-Control"] = ASK_AGAIN
    return response


def _placeholder(error: Exception) -> Response:
    """A quiet drawing in place of a thumbnail; browsers show it although the status is 404."""
    response = Response(render_template("missing.svg"), status=HTTPStatus.NOT_FOUND, mimetype="image/svg+xml")
    # A header takes Latin-1 only, and no control characters; a file's name may hold any.
    reason = "".join(character if character.isprintable() else " " for character in str(error))
    response.headers["X-Reason"] = reason.encode("ascii", "replace").decode()
    return response


def _safe_name(record: ImageRecord) -> str:
    """The file's own name, without anything that could be a path or a control character."""
    name = record.path.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join("_" if not character.isprintable() or character in '<>:"|?*' else character for character in name)
    return name.strip(". ") or f"image-{record.id}"
