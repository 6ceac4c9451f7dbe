"""Originals and thumbnails, each named by its id and never by a path."""

from __future__ import annotations

import os
from http import HTTPStatus
from pathlib import Path

from flask import Response, render_template, request, send_file

from searchengine import images as decoding
from searchengine.errors import ImageError, NotAnImageError, UnknownImageError
from searchengine.files import open_regular
from searchengine.images.formats import BROWSER_TYPES, HEAD_BYTES
from searchengine.images.location import PatchedFile, location_patches
from searchengine.index.types import ImageRecord
from searchengine.web.indexes import IndexBlueprint, this_index, this_site
from searchengine.web.queries import parse_id
from searchengine.web.renditions import Rendition, existing_file
from searchengine.web.security import ASK_AGAIN, FOREVER_PRIVATE

images = IndexBlueprint("images", __name__)


@images.get("/images/<image_id>")
def original(image_id: str) -> Response:
    """The file as it is, or as JPEG where browsers do not show its format."""
    record = _record(image_id)
    file = existing_file(record)
    with open_regular(file) as opened:
        format_ = decoding.sniff(opened.read(HEAD_BYTES))
    if format_ is None:
        # The file was an image when it was indexed. Whatever it is now, it is not handed out.
        raise NotAnImageError(f"“{record.path}” is no longer an image. Index the folder again to leave it out.")
    if "download" in request.args:
        return _send_file(file, record, BROWSER_TYPES.get(format_, f"image/{format_.lower()}"), as_attachment=True)
    if format_ in BROWSER_TYPES:
        return _send_file(file, record, BROWSER_TYPES[format_])
    return _send_rendition(this_site().renditions.full(record), record)


@images.get("/thumbnails/<image_id>")
def thumbnail(image_id: str) -> Response:
    """A small JPEG, or a drawing where there can be none."""
    try:
        record = _record(image_id)
        return _send_rendition(this_site().renditions.thumbnail(record), record)
    except (UnknownImageError, ImageError) as error:
        return _placeholder(error)


def _record(text: str) -> ImageRecord:
    image_id = parse_id(text)
    if image_id is None:
        raise UnknownImageError("There is no such image: its number must be a whole number from 0 up.")
    return this_index().engine.index.records([image_id])[0]


def _send_rendition(rendition: Rendition, record: ImageRecord) -> Response:
    response = Response(rendition.data, mimetype="image/jpeg")
    response.headers["Cache-Control"] = ASK_AGAIN
    if rendition.current and record.content_hash:
        response.set_etag(record.content_hash)
        if request.args.get("v") == record.content_hash[:8]:
            response.headers["Cache-Control"] = FOREVER_PRIVATE
    response.make_conditional(request)
    return response


def _send_file(path: Path, record: ImageRecord, mimetype: str, *, as_attachment: bool = False) -> Response:
    """The bytes of the file; where it was taken is blanked unless the settings keep it."""
    keep_location = this_site().settings.keep_location
    opened = open_regular(path)
    stat = os.fstat(opened.fileno())
    file = opened if keep_location else PatchedFile(opened)
    response = send_file(
        file,  # type: ignore[arg-type]
        mimetype=mimetype,
        as_attachment=as_attachment,
        download_name=_download_name(record),
        conditional=False,  # of an open file, Werkzeug does not know the size
        etag=f"{stat.st_mtime_ns:x}-{stat.st_size:x}{'' if keep_location else '-blanked'}",
        last_modified=stat.st_mtime,
    )
    response.content_length = stat.st_size
    response.make_conditional(request, accept_ranges=True, complete_length=stat.st_size)
    if isinstance(file, PatchedFile) and response.status_code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        file.patches = location_patches(opened)
    opened.seek(0)
    # Another image may have this address tomorrow: browsers keep it, and ask whether it is still the same.
    response.headers["Cache-Control"] = ASK_AGAIN
    return response


def _placeholder(error: Exception) -> Response:
    """A drawing in place of a thumbnail; browsers show it although the status is 404."""
    response = Response(render_template("missing.svg"), status=HTTPStatus.NOT_FOUND, mimetype="image/svg+xml")
    # A header takes Latin-1 only, and no control characters; a file name may hold any.
    reason = "".join(character if character.isprintable() else " " for character in str(error))
    response.headers["X-Reason"] = reason.encode("ascii", "replace").decode()
    return response


def _download_name(record: ImageRecord) -> str:
    """The file's own name, without anything that could be a path or a control character."""
    name = record.path.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join("_" if not character.isprintable() or character in '<>:"|?*' else character for character in name)
    return name.strip(". ") or f"image-{record.id}"
