"""What comes from outside, checked at the door: ids, k, and the one picture of an upload."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, Any

from flask import Request

from searchengine.errors import SearchEngineError, UnknownNameError
from searchengine.index.metrics import check_metric
from searchengine.settings import MAX_K

_WHOLE_NUMBER = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_MAX_ID = 2**63 - 1
# Room for the boundaries, headers and the small fields of a form around the picture.
FORM_OVERHEAD_BYTES = 64 * 1024


class RequestError(SearchEngineError):
    """A request that is turned away at the door, with the HTTP status to answer."""

    def __init__(self, message: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.status = int(status)


class InMemoryRequest(Request):
    """A request whose uploads stay in memory, never in a file; their size is bounded by MAX_CONTENT_LENGTH."""

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        return io.BytesIO()


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of an uploaded picture, and its name for showing; the name is never used as a path."""

    data: bytes
    name: str


def parse_id(text: str | None) -> int | None:
    """A decimal integer, 1 <= id < 2^63, or None where the text is none."""
    if text is None or _WHOLE_NUMBER.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= _MAX_ID else None


def parse_k(text: str | None, default: int) -> int:
    """How many pictures are asked for, 1..500; RequestError."""
    if text is None or text == "":
        return default
    number = parse_id(text)
    if number is None or number > MAX_K:
        raise RequestError(f"The number of pictures must be a whole number from 1 to {MAX_K}.")
    return number


def parse_metric(text: str | None) -> str | None:
    """The name of a metric, None where none is named; RequestError."""
    if not text:
        return None
    try:
        return check_metric(text)
    except UnknownNameError as error:
        raise RequestError(str(error)) from error


def read_upload(request: Request, max_bytes: int) -> Upload:
    """The one picture in the form field ``image``; RequestError says what to do otherwise."""
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            "No picture came with the request. Send it as a form (multipart/form-data) in the field “image”."
        )
    # The form is read here, and werkzeug raises RequestEntityTooLarge at the byte that is one too many,
    # whatever Content-Length said.
    files = [file for _, file in request.files.items(multi=True)]
    named = request.files.getlist("image")
    if not files:
        raise RequestError("No picture came with the request. Choose a picture first, then search.")
    if not named:
        raise RequestError("The picture came in another form field. Send it in the field “image”.")
    if len(files) > 1:
        raise RequestError("More than one picture came with the request. Search by one picture at a time.")
    data = named[0].stream.read(max_bytes + 1)
    if not data and not named[0].filename:
        raise RequestError("No picture was chosen. Choose a picture first, then search.")
    if not data:
        raise RequestError("The file is empty. Choose another picture.")
    if len(data) > max_bytes:
        raise too_many_bytes(max_bytes)
    return Upload(data, _shown_name(named[0].filename))


def too_many_bytes(max_bytes: int) -> RequestError:
    """The error for an upload of more than ``max_bytes``."""
    return RequestError(
        f"The picture is larger than {max_bytes // 1_000_000} MB. Save it smaller and try again.",
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    )


def drain(environ: dict[str, Any], most: int) -> None:
    """Reads and forgets what is left of a body, at most ``most`` bytes.

    A server that closes a connection with unread bytes resets it, and the browser then shows its own error in place
    of our answer.
    """
    stream = environ.get("wsgi.input")
    if stream is None:
        return
    if environ.get("wsgi.input_terminated"):
        left = most
    else:
        length = str(environ.get("CONTENT_LENGTH") or "0")
        left = min(most, int(length) if length.isdecimal() else 0)
    try:
        while left > 0:
            chunk = stream.read(min(65536, left))
            if not chunk:
                return
            left -= len(chunk)
    except (OSError, ValueError):
        return


def _shown_name(filename: str | None) -> str:
    name = re.split(r"[/\\]", filename or "")[-1]
    name = "".join(character for character in name if character.isprintable())
    return name[:120] or "your picture"
