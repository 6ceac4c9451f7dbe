"""An uploaded image: taken from the request, decoded and embedded, never kept."""

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
from typing import IO, Any

import numpy as np
from flask import Request
from numpy.typing import NDArray

from searchengine.errors import ImageTooLargeError
from searchengine.extractors import Extractor, ExtractorSpec
from searchengine.images import Pixels
from searchengine.images.isolation import given_up_when, is_ordinary
from searchengine.query import Box, Example
from searchengine.settings import variable
from searchengine.web.engines import ServedEngine
from searchengine.web.queries import RequestError

# Room for the boundaries, headers and small fields of a form around the image.
FORM_OVERHEAD_BYTES = 64 * 1024
_PREVIEW_SIDE = 480  # px
# A decoded image can take hundreds of megabytes: only so many at a time. What may take seconds has turns of its own.
_AT_ONCE = 2
_QUEUE = 10  # uploads that wait for those
_PATIENCE = 4  # s that one of those is decoded while others wait


def why_no_uploads(spec: ExtractorSpec) -> str | None:
    """Why an index cannot be searched by an upload, and what to do instead; None where it can."""
    if spec.is_imported:
        return (
            "The features of this index were imported without the model that made them, so a picture of your own "
            "cannot be searched by. Search by one of its rows: choose it on the first page."
        )
    return spec.missing


class InMemoryRequest(Request):
    """A request whose uploads are taken into memory; their size is bounded by MAX_CONTENT_LENGTH.

    The server has them in an unnamed temporary file while they arrive: see ``http_server.Body``.
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
    """Whose upload is decoded next.

    An ordinary photo, which takes a second at most, never waits for a picture of a kind that may take longer. Of these
    some wait in a row, and one that takes long makes room for them.
    """

    def __init__(self) -> None:
        self._ordinary, self._others = BoundedSemaphore(_AT_ONCE), BoundedSemaphore(_AT_ONCE)
        self._lock = Lock()
        self._waiting = 0  # for the others

    @contextmanager
    def turn(self, data: bytes) -> Iterator[None]:
        """Wait until it is the turn of this upload; RequestError where too many wait.

        What is decoded meanwhile raises DecodingKilledError where it takes long and others wait.
        """
        if is_ordinary(data):
            with self._ordinary:
                yield
            return
        if not self._others.acquire(blocking=False):
            self._wait()
        try:
            with given_up_when(lambda seconds: self._waiting > 0 and seconds > _PATIENCE):
                yield
        finally:
            self._others.release()

    def _wait(self) -> None:
        with self._lock:
            if self._waiting >= _QUEUE:
                raise RequestError(
                    "Too many pictures that take long to read are waiting here. Try again in a minute, or save the "
                    "picture as JPEG.",
                    HTTPStatus.SERVICE_UNAVAILABLE,
                )
            self._waiting += 1
        try:
            self._others.acquire()
        finally:
            with self._lock:
                self._waiting -= 1


_TURNS = DecodingTurns()


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an uploaded file, and its name for showing; the name is never used as a path."""

    data: bytes
    name: str

    @property
    def key(self) -> str:
        """What names it in an address: browsers keep the file by it, the server does not."""
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class DecodedUpload:
    """``pixels``: (h, w, 3) RGB as the extractor takes it; ``preview``: a small uint8 copy for a page.

    ``width`` and ``height`` are the original's. Of a part, the pixels are its own, and the rest is the whole picture's.
    """

    name: str
    pixels: Pixels
    width: int
    height: int
    preview: NDArray[np.uint8] | None

    @property
    def picture(self) -> str:
        """The preview as a data: URL, so that the page can show the query although nothing is kept."""
        from PIL import Image

        assert self.preview is not None
        out = io.BytesIO()
        Image.fromarray(self.preview).save(out, "JPEG", quality=82)
        return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


class UploadReader:
    """Decodes and embeds an upload, or the part in a box, as each index wants it.

    Indexes of one extractor share the work. With ``shown``, a small copy for the page is made.
    """

    def __init__(self, upload: Upload, max_pixels: int, box: Box | None = None, *, shown: bool = False) -> None:
        self._upload = upload
        self._max_pixels = max_pixels
        self._part = None if box is None else box.part
        self._preview = _PREVIEW_SIDE if shown else None
        self._decoded: dict[str, DecodedUpload] = {}
        self._embedded: dict[str, NDArray[np.float32]] = {}

    def decode(self, engine: ServedEngine) -> DecodedUpload:
        """The upload as the extractor of ``engine`` reads it; RequestError where it has none, ImageError."""
        spec = engine.spec
        if (reason := why_no_uploads(spec)) is not None:
            raise RequestError(reason)
        if spec.fingerprint not in self._decoded:
            self._decoded[spec.fingerprint] = self._decode(engine.extractor())
        return self._decoded[spec.fingerprint]

    def embed(self, engine: ServedEngine) -> NDArray[np.float32]:
        """The feature of the upload, (1, d) float32; RequestError, ImageError, ExtractorError."""
        decoded, fingerprint = self.decode(engine), engine.spec.fingerprint
        if fingerprint not in self._embedded:
            self._embedded[fingerprint] = engine.extractor().embed([decoded.pixels])
        return self._embedded[fingerprint]

    def _decode(self, reader: Extractor) -> DecodedUpload:
        """Decode as the images of the index were; NotAnImageError, DamagedImageError, ImageTooLargeError."""
        try:
            with _TURNS.turn(self._upload.data):
                decoded = reader.preprocess(self._upload.data, self._max_pixels, self._preview, self._part)
        except ImageTooLargeError as error:
            bound = f"{self._max_pixels // 1_000_000} megapixels: {variable('max_upload_megapixels')}"
            raise ImageTooLargeError(f"{error} This server takes {bound}.") from error
        return DecodedUpload(self._upload.name, decoded.pixels, decoded.width, decoded.height, decoded.preview)


def read_upload(request: Request, max_bytes: int) -> Upload:
    """The one file in the form field ``image``; RequestError says what to do where there is none."""
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            "No picture came with the request. Send it as a form (multipart/form-data) in the field “image”."
        )
    # The form is read here. Werkzeug raises RequestEntityTooLarge at the first byte too many, whatever Content-Length
    # said.
    files = [file for _, file in request.files.items(multi=True)]
    images = request.files.getlist("image")
    if not files:
        if request.form.get("image"):
            Example(request.form["image"])  # type: ignore[arg-type]  # says of an address that it is not fetched
        raise RequestError("No picture came with the request. Choose a picture first, then search.")
    if not images:
        raise RequestError("The picture came in another form field. Send it in the field “image”.")
    if len(files) > 1:
        raise RequestError("More than one picture came with the request. Search by one picture at a time.")
    data = images[0].stream.read(max_bytes + 1)
    if not data and not images[0].filename:
        raise RequestError("No picture was chosen. Choose a picture first, then search.")
    if not data:
        raise RequestError("The file is empty. Choose another picture.")
    if len(data) > max_bytes:
        raise too_many_bytes(max_bytes)
    return Upload(data, _display_name(images[0].filename))


def too_many_bytes(max_bytes: int) -> RequestError:
    """The error for an upload of more than ``max_bytes``."""
    return RequestError(
        f"The picture is larger than {max_bytes // 1_000_000} MB. Save it smaller and try again.",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def drain(environ: dict[str, Any], max_bytes: int) -> None:
    """Read and drop what is left of a request's body, at most ``max_bytes``.

    A server that closes a connection with unread bytes resets it, and the browser then shows its own error in place of
    our answer.
    """
    stream = environ.get("wsgi.input")
    if stream is None:
        return
    if environ.get("wsgi.input_terminated"):
        left = max_bytes
    else:
        length = str(environ.get("CONTENT_LENGTH") or "0")
        left = min(max_bytes, int(length) if length.isdecimal() else 0)
    try:
        while left > 0:
            chunk = stream.read(min(65536, left))
            if not chunk:
                return
            left -= len(chunk)
    except (OSError, ValueError):
        return


def _display_name(filename: str | None) -> str:
    name = re.split(r"[/\\]", filename or "")[-1]
    name = "".join(character for character in name if character.isprintable())
    return name[:120] or "your picture"
