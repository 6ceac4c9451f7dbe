"""The images of an index: originals, previews, thumbnails and details, addressed by id and never by path.

Thumbnails, previews and copies of originals that browsers cannot show are JPEGs. Each is made once and kept on disk
under the hash of the original's content.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import BinaryIO, Literal

from flask import Response, jsonify, render_template, request, send_file, url_for
from werkzeug.wsgi import wrap_file

from searchengine import images as decoding
from searchengine.errors import FileGoneError, ImageError, ImageTooLargeError, NotAnImageError, UnknownImageError
from searchengine.files import open_regular, replace_bytes
from searchengine.images.formats import FORMATS, HEAD_BYTES
from searchengine.images.metadata import Patch, PatchedFile, Shot, location_patches, read_shot
from searchengine.index.types import ImageRecord, content_hash
from searchengine.spelling import parse_id
from searchengine.web.requests import IndexBlueprint, this_engine, this_site
from searchengine.web.security import FOREVER_PRIVATE, REVALIDATE, is_local_request

# The longest side in px. Tiles are about 220 px high, at up to two pixels per px; a preview fills a window.
SIDES = {"thumbnail": 480, "preview": 2048}
_EDITION = 2  # raise it when renditions of the same file change, so that older ones are not used
_DECODING = BoundedSemaphore(2)  # a decoded image can take hundreds of megabytes, so few are decoded at a time

Kind = Literal["thumbnail", "preview", "full"]

images = IndexBlueprint("images", __name__)


@images.get("/images/<image_id>")
def original(image_id: str) -> Response:
    """Return the file, or a JPEG of it if browsers do not show its format or its metadata cannot be checked."""
    record = _record(image_id)
    file = record.existing_file()
    with open_regular(file) as opened:
        format_ = decoding.sniff(opened.read(HEAD_BYTES))
    if format_ is None:
        # The file was an image when it was indexed. Whatever it is now must not be sent.
        raise NotAnImageError(f"“{record.path}” is no longer an image. Index the folder again to leave it out.")
    media_type, as_attachment = FORMATS[format_].media_type, "download" in request.args
    if media_type is not None or as_attachment:
        with contextlib.suppress(ImageTooLargeError):
            return _send_file(file, record, media_type or f"image/{format_.lower()}", as_attachment=as_attachment)
    return _send_rendition(record, "full")


@images.get("/thumbnails/<image_id>")
def thumbnail(image_id: str) -> Response:
    """Return a small JPEG, or a placeholder if the image cannot be read."""
    try:
        return _send_rendition(_record(image_id), "thumbnail")
    except (UnknownImageError, ImageError):  # browsers show the drawing despite the status
        return Response(render_template("missing.svg"), HTTPStatus.NOT_FOUND, mimetype="image/svg+xml")


@images.get("/previews/<image_id>")
def preview(image_id: str) -> Response:
    """Return a JPEG that is large enough to fill a window; a small image keeps its size."""
    return _send_rendition(_record(image_id), "preview")


@images.get("/image/<image_id>/details")
def details(image_id: str) -> Response:
    """Return what is known about an image as JSON, except where it was taken."""
    record = _record(image_id)
    shot, modified = _shot(record)
    tags = [tag.name for tag in this_engine().tags(record.id)]
    return jsonify(
        id=record.id,
        path=record.path,
        absolute=_absolute_path(record),
        width=record.width,
        height=record.height,
        bytes=record.size,
        format=record.format,
        taken=shot.taken,
        modified=modified,
        camera=shot.camera or None,
        labels=[{"name": label, "address": url_for("pages.home", label=label)} for label in record.labels],
        tags=[{"name": tag, "address": url_for("search.by_id", q=tag)} for tag in tags],
        thumbnail=url_for("images.thumbnail", image_id=record.id),
        original=url_for("images.original", image_id=record.id),
        download=url_for("images.original", image_id=record.id, download=1),
        search=url_for("search.by_id", id=record.id),
    )


def _shot(record: ImageRecord) -> tuple[Shot, str | None]:
    """Return a photo's date and camera, and when its file was last changed in local time; nothing if it is gone."""
    try:
        with open_regular(record.existing_file()) as file:
            changed = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime)
            return read_shot(file), changed.isoformat(timespec="seconds")
    except (FileGoneError, OSError, OverflowError, ValueError):
        return Shot(), None


def _absolute_path(record: ImageRecord) -> str | None:
    """Return the path of the file for a browser on this machine; None for others, or if it is not valid Unicode."""
    if record.file is None or not is_local_request(request, this_site().settings):
        return None
    path = os.fspath(record.file.absolute())
    return None if any("\ud800" <= letter <= "\udfff" for letter in path) else path  # undecodable bytes


def _record(text: str) -> ImageRecord:
    image_id = parse_id(text)
    if image_id is None:
        raise UnknownImageError("This image does not exist: an id is a whole number from 0 up.")
    return this_engine().index.records([image_id])[0]


def _send_rendition(record: ImageRecord, kind: Kind) -> Response:
    """Return a JPEG in one of the ``SIDES``, or in full size; raise FileGoneError or ImageError."""
    data, is_current = _rendition(record, kind)
    response = Response(data, mimetype="image/jpeg")
    response.headers["Cache-Control"] = REVALIDATE
    if is_current and record.content_hash:
        response.set_etag(record.content_hash)
        if request.args.get("v") == record.content_hash[:8]:
            response.headers["Cache-Control"] = FOREVER_PRIVATE
    response.make_conditional(request)
    return response


def _rendition(record: ImageRecord, kind: Kind) -> tuple[bytes, bool]:
    """Return a JPEG, kept on disk if possible, and whether it was made from the content that was indexed."""
    indexed, path = record.content_hash, None
    if indexed:
        folder = this_site().settings.cache_root / "renditions" / f"{kind}-{_EDITION}-{decoding.DECODING}"
        path = folder / indexed[:2] / f"{indexed}.jpg"
        with contextlib.suppress(OSError):
            return path.read_bytes(), True
    data = record.read()
    is_current = content_hash(data).hex() == indexed
    with _DECODING:
        side = SIDES.get(kind)
        rendered = decoding.full_jpeg(data) if side is None else decoding.thumbnail(data, max_side=side)
    if path is not None and is_current:
        with contextlib.suppress(OSError):  # the disk is full or read-only, so it is made again next time
            replace_bytes(path, rendered, durable=False)
    return rendered, is_current


def _send_file(path: Path, record: ImageRecord, mimetype: str, *, as_attachment: bool = False) -> Response:
    """Return the bytes of the file, with the location blanked unless the settings keep it.

    Raises:
        ImageTooLargeError: its metadata is in too many pieces to search for the location.
    """
    keep_location = this_site().settings.keep_location
    opened = open_regular(path)
    status = os.fstat(opened.fileno())
    try:
        file = PatchedFile(opened, () if keep_location else _patches_of(opened, status))
    except ImageTooLargeError:
        opened.close()
        raise
    response = send_file(
        file,  # type: ignore[arg-type]
        mimetype=mimetype,
        as_attachment=as_attachment,
        download_name=_download_name(record),
        conditional=False,  # Werkzeug does not know the size of an open file
        etag=f"{status.st_mtime_ns:x}-{status.st_size:x}{'' if keep_location else '-blanked'}",
        last_modified=status.st_mtime,
    )
    response.content_length = status.st_size
    response.make_conditional(request, accept_ranges=True, complete_length=status.st_size)
    file.seek(0)
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        # The server can send part of a file directly, without a thread that feeds it.
        file.seek(response.content_range.start or 0)
        file.end = response.content_range.stop
        response.response = wrap_file(request.environ, file)  # type: ignore[arg-type]
    # Another image may have this address tomorrow, so browsers must check that their copy is current.
    response.headers["Cache-Control"] = REVALIDATE
    # Otherwise nginx takes the whole file at once and writes it to disk for every slow client.
    response.headers["X-Accel-Buffering"] = "no"
    return response


_PATCHES: dict[tuple[int, ...], Sequence[Patch]] = {}  # by the version of the file
_PATCHES_LOCK = Lock()  # so that concurrent requests scan a file only once


def _patches_of(file: BinaryIO, status: os.stat_result) -> Sequence[Patch]:
    version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    with _PATCHES_LOCK:
        if len(_PATCHES) > 10_000:
            _PATCHES.clear()
        if version not in _PATCHES:
            _PATCHES[version] = location_patches(file)
        return _PATCHES[version]


def _download_name(record: ImageRecord) -> str:
    """Return the file's name without control characters or anything that could be a path."""
    name = record.path.replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join("_" if not character.isprintable() or character in '<>:"|?*' else character for character in name)
    return name.strip(". ") or f"image-{record.id}"
