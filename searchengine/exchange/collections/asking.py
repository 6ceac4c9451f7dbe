"""One request to a web server: what it answers, which part of a file that is, and what is told of the whole file."""

from __future__ import annotations

import base64
import binascii
import http.client
import re
import urllib.error
import urllib.request
from email.message import Message
from http import HTTPStatus
from typing import Any

from searchengine import __version__
from searchengine.errors import SearchEngineError

_TIMEOUT = 60.0  # s without a byte
_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}  # and every 5xx
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", re.ASCII)
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"', re.ASCII)


class DownloadError(SearchEngineError):
    """A published collection cannot be had."""


class NotThereError(DownloadError):
    """The server says that it has no such file, or not for us."""


class Broken(Exception):  # noqa: N818  (never leaves this package)
    """The connection ended before the file did; it can be tried again. ``partial``: what came last."""

    partial = b""


def ask(url: str, start: int = 0, mark: str | None = None) -> Any:
    """The server's answer to a request for a file from byte ``start`` on, to be read and closed.

    ``mark`` is that of the version which the bytes before belong to: of another version all of it comes. Raises Broken
    for what may pass, NotThereError for a file that is not there.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"{url} is no web address.")
    headers = {"Accept-Encoding": "identity", "User-Agent": f"searchengine/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if mark is not None:
            headers["If-Range"] = mark
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return _Refused(error.headers)
            if error.code in _AGAIN or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise Broken(f"the server answered {error.code} {error.reason}") from error
            raise NotThereError(
                f"{url} is not to be had: the server answered {error.code} {error.reason}. It may have moved; fetch it "
                "by hand and index the unpacked folder."
            ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise Broken(f"the server cannot be reached ({reason})") from error
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        answer.close()
        raise DownloadError(f"{url} came in another form than it lies there. Is a proxy in between?")
    return answer


class _Refused:
    """A 416: there is nothing beyond what we have; stands for an answer without a body."""

    status = int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)

    def __init__(self, headers: Message) -> None:
        self.headers = headers

    def read(self, amount: int) -> bytes:
        return b""

    def __enter__(self) -> _Refused:
        return self

    def __exit__(self, *what: object) -> None:
        pass


def read_some(answer: Any, amount: int) -> bytes:
    """The next bytes of an answer, at most ``amount``; none at its end. Broken where it breaks off."""
    try:
        data: bytes = answer.read(amount)
    except http.client.IncompleteRead as error:
        broken = Broken("the connection ended in the middle")
        broken.partial = error.partial
        raise broken from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(f"the connection broke off ({error})") from error
    return data


def extent(status: int, headers: Message, asked: int) -> tuple[int, int | None]:
    """Where the bytes of an answer belong, and the size of the whole file if it is told."""
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
    if status == HTTPStatus.PARTIAL_CONTENT:
        if found is None or found[1] is None or int(found[1]) != asked:
            raise DownloadError(
                "The server answered with another part of the file than was asked for. Delete the .part file, and run "
                "the same command again."
            )
        return asked, None if found[3] == "*" else int(found[3])
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        size = int(found[3]) if found is not None and found[3] != "*" else None
        # All is there, or the file has become shorter: then sizes differ, and it starts again.
        return (asked, size) if size is not None else (asked, -1)
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isascii() and length.isdecimal() else None


def mark_of(headers: Message) -> str | None:
    """What If-Range takes: a strong ETag, or else the date."""
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def md5_of(headers: Message) -> str | None:
    """The hash of the whole file where the server tells it, lower-case hex.

    Google's storage does so by ``x-goog-hash``; Amazon's by the ETag of what was uploaded in one piece and is not
    encrypted with a key of its own.
    """
    if headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        for part in ",".join(headers.get_all("x-goog-hash", [])).split(","):
            kind, _, value = part.strip().partition("=")
            if kind == "md5":
                try:
                    return base64.b64decode(value, validate=True).hex()
                except binascii.Error:
                    return None
    found = _MD5_ETAG.fullmatch(headers.get("ETag", ""))
    amazon = headers.get("Server") == "AmazonS3"
    plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    return found[1] if found is not None and amazon and plain else None
