"""Uploaded images: read from the request, decoded and embedded, never stored."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from threading import BoundedSemaphore, Lock
from typing import IO

import numpy as np
from flask import Request
from numpy.typing import NDArray

from searchengine.errors import ImageTooLargeError
from searchengine.extractors import Extractor, ExtractorSpec
from searchengine.images import DecodedImage
from searchengine.images.isolation import given_up_when, is_ordinary
from searchengine.query import Box, Example
from searchengine.settings import variable
from searchengine.web.engines import ServedEngine
from searchengine.web.requests import RequestError

# Room for the boundaries, headers and small fields of the form around the image.
FORM_OVERHEAD_BYTES = 64 * 1024
_PREVIEW_SIDE = 480  # px
# A decoded image can take hundreds of megabytes, so few are decoded at a time. Slow formats are queued separately.
_PARALLEL = 2
_MAX_WAITING = 10  # uploads in a slow format
_MAX_SECONDS = 4  # for decoding one in a slow format while others wait


def why_no_uploads(spec: ExtractorSpec) -> str | None:
    """Return why an index cannot be searched by an upload and what to do instead; None if it can."""
    if spec.is_imported:
        return (
            "This index was imported without the model that made it, so you cannot search with a picture of your own. "
            "Choose one of the pictures on the first page instead."
        )
    return spec.missing


class InMemoryRequest(Request):
    """A request that reads its uploads into memory; MAX_CONTENT_LENGTH limits their size.

    While they arrive, the server holds them in an unnamed temporary file: see ``http_server.Body``.
    """

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


class DecodingTurns:
    """Limits how many uploads are decoded at a time.

    An ordinary photo, which takes a second at most, never waits for a picture in a slow format. A limited number of
    those wait in a queue, and one that takes too long is stopped if others wait.
    """

    def __init__(self) -> None:
        self._ordinary, self._slow = BoundedSemaphore(_PARALLEL), BoundedSemaphore(_PARALLEL)
        self._lock = Lock()
        self._waiting = 0  # slow uploads

    @contextmanager
    def turn(self, data: bytes) -> Iterator[None]:
        """Wait until this upload may be decoded; raise RequestError if too many are waiting.

        Decoding within the context raises DecodingKilledError if it takes too long and others wait.
        """
        if is_ordinary(data):
            with self._ordinary:
                yield
            return
        if not self._slow.acquire(blocking=False):
            self._wait()
        try:
            with given_up_when(lambda seconds: self._waiting > 0 and seconds > _MAX_SECONDS):
                yield
        finally:
            self._slow.release()

    def _wait(self) -> None:
        with self._lock:
            if self._waiting >= _MAX_WAITING:
                raise RequestError(
                    "Too many pictures in slow formats are waiting. Try again in a minute, or save yours as a JPEG.",
                    HTTPStatus.SERVICE_UNAVAILABLE,
                )
            self._waiting += 1
        try:
            self._slow.acquire()
        finally:
            with self._lock:
                self._waiting -= 1


_TURNS = DecodingTurns()


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an uploaded file, and a name to show; the name is never used as a path."""

    data: bytes
    name: str

    @property
    def key(self) -> str:
        """Its name in addresses, under which the browser keeps the file; the server keeps nothing."""
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class DecodedUpload:
    """A decoded upload: the pixels of the whole picture or of the chosen part, as the extractor takes them."""

    name: str
    image: DecodedImage

    @property
    def picture(self) -> str:
        """The small copy as a data: URL, so that the page can show the upload without storing it."""
        from PIL import Image

        assert self.image.preview is not None
        out = io.BytesIO()
        Image.fromarray(self.image.preview).save(out, "JPEG", quality=82)
        return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


class UploadReader:
    """Decodes and embeds an upload, or the part of it in a box, for each index.

    Indexes of the same extractor share the result. With ``shown``, a small copy for the page is made.
    """

    def __init__(self, upload: Upload, max_pixels: int, box: Box | None = None, *, shown: bool = False) -> None:
        self._upload = upload
        self._max_pixels = max_pixels
        self._part = None if box is None else box.part
        self._preview = _PREVIEW_SIDE if shown else None
        self._decoded: dict[str, DecodedUpload] = {}
        self._embedded: dict[str, NDArray[np.float32]] = {}

    def decode(self, engine: ServedEngine) -> DecodedUpload:
        """Decode the upload for the extractor of ``engine``; raise RequestError if it has none, or ImageError."""
        spec = engine.spec
        if (reason := why_no_uploads(spec)) is not None:
            raise RequestError(reason)
        if spec.fingerprint not in self._decoded:
            self._decoded[spec.fingerprint] = self._decode(engine.extractor())
        return self._decoded[spec.fingerprint]

    def embed(self, engine: ServedEngine) -> NDArray[np.float32]:
        """Return the (1, d) float32 feature; raise RequestError, ImageError or ExtractorError."""
        decoded, fingerprint = self.decode(engine), engine.spec.fingerprint
        if fingerprint not in self._embedded:
            self._embedded[fingerprint] = engine.extractor().embed([decoded.image.pixels])
        return self._embedded[fingerprint]

    def _decode(self, extractor: Extractor) -> DecodedUpload:
        """Decode exactly as the images of the index were decoded."""
        try:
            with _TURNS.turn(self._upload.data):
                image = extractor.preprocess(self._upload.data, self._max_pixels, self._preview, self._part)
        except ImageTooLargeError as error:
            limit = f"{self._max_pixels // 1_000_000} megapixels ({variable('max_upload_megapixels')})"
            raise ImageTooLargeError(f"{error} The limit of this server is {limit}.") from error
        return DecodedUpload(self._upload.name, image)


def read_upload(request: Request, max_bytes: int) -> Upload:
    """Return the one file in the form field ``image``; raise RequestError if there is not exactly one."""
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            "The request contains no picture. Send it as a form (multipart/form-data) in the field “image”."
        )
    # This reads the form. Werkzeug raises RequestEntityTooLarge at the first byte beyond the limit, whatever
    # Content-Length said.
    files = [file for _, file in request.files.items(multi=True)]
    images = request.files.getlist("image")
    if not files:
        if request.form.get("image"):
            Example(request.form["image"])  # type: ignore[arg-type]  # raises if it is an address: those are not fetched
        raise RequestError("The request contains no picture. Choose a picture first, then search.")
    if not images:
        raise RequestError("The picture is in the wrong form field. Send it in the field “image”.")
    if len(files) > 1:
        raise RequestError("The request contains more than one picture. Search with one picture at a time.")
    data = images[0].stream.read(max_bytes + 1)
    if not data and not images[0].filename:
        raise RequestError("No picture was chosen. Choose a picture first, then search.")
    if not data:
        raise RequestError("The file is empty. Choose another picture.")
    if len(data) > max_bytes:
        raise too_many_bytes(max_bytes)
    return Upload(data, _display_name(images[0].filename))


def too_many_bytes(max_bytes: int) -> RequestError:
    """Return the error for an upload of more than ``max_bytes``."""
    return RequestError(
        f"The picture is larger than {max_bytes // 1_000_000} MB. Save a smaller copy and try again.",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def _display_name(filename: str | None) -> str:
    name = re.split(r"[/\\]", filename or "")[-1]
    name = "".join(character for character in name if character.isprintable())
    return name[:120] or "your picture"
