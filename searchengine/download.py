"""The HTTP client: downloads a file from a web server, completely or not at all.

The bytes received so far are in ``NAME.part``, and what the server said about the file (size, version, MD5) is in
``NAME.part.json``, so a later run resumes the download. The file gets its name once its size and, if known, its hash
have been checked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Self

from searchengine.errors import SearchEngineError
from searchengine.files import flush, parse_json
from searchengine.progress import QUIET, Progress

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

_ATTEMPTS = 5  # in a row that bring no new bytes
_CHUNK = 1 << 20  # bytes
_TIMEOUTS = (10, 60)  # seconds to connect, and to wait for the next bytes
_CONNECTIONS = 8
_PARTIAL = (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
_RETRY_LATER = (408, 429, 500, 502, 503, 504)
_MD5_LETTERS = 32
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"', re.ASCII)


class DownloadError(SearchEngineError):
    """A file cannot be downloaded, or differs from what its publisher offers."""


class NotOnServerError(DownloadError):
    """The server does not have the file, or refuses to send it."""


class _InterruptedError(Exception):
    """The connection ended before the file did; the download can resume."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A file to download.

    ``digest`` is the publisher's MD5 or SHA-256 in lower-case hex, if known. ``saved_as`` is the name of the file on
    this machine; by default, the last part of the address.
    """

    url: str
    digest: str | None = None
    saved_as: str = ""

    @property
    def name(self) -> str:
        """The name of the file on this machine."""
        return self.saved_as or self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class _Version:
    """What the server said about the whole file. ``tag`` is the ETag or the date, in the form for If-Range."""

    url: str
    size: int | None
    tag: str | None
    md5: str | None = None


class Client:
    """Downloads files over one pool of connections, which threads may share.

    Requests that fail temporarily are retried. ``pause`` is the number of seconds before the first retry; each further
    pause is twice as long.
    """

    def __init__(self, pause: float = 1.0) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3 import Retry

        self._pause = pause
        self._session = requests.Session()
        self._session.headers.update({"Accept-Encoding": "identity", "User-Agent": "searchengine"})
        retry = Retry(
            total=_ATTEMPTS - 1,
            backoff_factor=pause,
            status_forcelist=_RETRY_LATER,
            raise_on_status=False,
            respect_retry_after_header=False,  # it may ask for hours of silent waiting
        )
        adapter = HTTPAdapter(max_retries=retry)
        # Trust the system's certificates besides those of requests: some networks have their own.
        adapter.init_poolmanager(_CONNECTIONS, _CONNECTIONS, ssl_context=ssl.create_default_context())
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def fetch(
        self,
        resource: Resource,
        folder: Path,
        *,
        check_space: Callable[[int], None] = lambda missing: None,
        progress: Progress = QUIET,
    ) -> Path:
        """Download a file into a folder, unless it exists, and return its path.

        Args:
            resource: what to download.
            folder: an existing folder.
            check_space: called with the number of missing bytes once it is known; raises if the disk has no room.
            progress: shows the progress of the download.

        Raises:
            DownloadError: the server cannot be reached, does not have the file, or sent something else. The bytes
                received so far are kept unless they are wrong.
        """
        target, part = folder / resource.name, folder / f"{resource.name}.part"
        if target.exists():
            return target
        failures, most = 0, _size(part)
        while True:
            try:
                self._attempt(resource, part, check_space, progress)
                flush(part)
                break
            except _InterruptedError as error:
                # Only bytes beyond those of all earlier attempts count as progress; otherwise a broken server could
                # keep us trying forever.
                failures = 1 if _size(part) > most else failures + 1
                most = max(most, _size(part))
                if failures >= _ATTEMPTS:
                    raise DownloadError(
                        f"{resource.url} cannot be downloaded: {error}. The {_size(part):,} bytes received so far are "
                        "kept: run the same command again later to resume."
                    ) from error
                progress.say(f"{resource.name}: {error}; trying again")
                time.sleep(self._pause * 2 ** (failures - 1))
            except OSError as error:
                raise DownloadError(
                    f"{part} cannot be written: {error.strerror or error}. Make room, and run the same command again; "
                    "everything received so far is kept."
                ) from error
        version = _read_version(part)
        digest = resource.digest or (version.md5 if version is not None else None)
        if digest is not None:
            try:
                check_digest(part, digest, resource.name, progress)
            except DownloadError as error:
                _forget(part)
                raise DownloadError(f"{error} It was deleted; run the same command again to download it.") from error
        part.replace(target)
        _notes(part).unlink(missing_ok=True)
        return target

    def _attempt(self, resource: Resource, part: Path, check_space: Callable[[int], None], progress: Progress) -> None:
        """Request the missing bytes once, and write those that arrive."""
        known, have = _read_version(part), _size(part)
        if known is None or known.url != resource.url or known.tag is None:
            known, have = None, 0
        if known is not None and known.size == have:
            return
        with self._get(resource.url, have, known.tag if known is not None else None) as response:
            start = have if response.status_code in _PARTIAL else 0
            version = _version(resource.url, response, start)
            if start and not _continues(response, start, version, known):
                _forget(part)
                raise _InterruptedError("the file has changed on the server, so the download starts over")
            if version.size is not None:
                check_space(version.size - start)
            _write_version(part, version)
            progress.start(version.size, start, what=resource.name, unit="B")
            with part.open("r+b" if part.exists() else "wb") as file:
                file.truncate(start)
                file.seek(start)
                while chunk := _read_chunk(response):
                    file.write(chunk)
                    progress.advance(len(chunk))
        if version.size is None:
            _write_version(part, replace(version, size=_size(part)))

    def _get(self, url: str, start: int, tag: str | None) -> requests.Response:
        """Request a file from byte ``start`` on, or all of it if its version is no longer ``tag``."""
        import requests

        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if tag is not None:
                headers["If-Range"] = tag
        try:
            response = self._session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS)
        except (requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
            raise DownloadError(f"{url} is not a web address.") from error
        except requests.RequestException as error:
            raise DownloadError(
                f"{url} cannot be downloaded: the server cannot be reached ({_reason(error)}). Run the same command "
                "again later."
            ) from error
        status = response.status_code
        if status < HTTPStatus.BAD_REQUEST or status in _PARTIAL:
            if response.headers.get("Content-Encoding", "identity") != "identity":
                response.close()
                raise DownloadError(f"{url} was altered on the way (it is compressed). Is there a proxy in between?")
            return response
        response.close()
        answer = f"{url} cannot be downloaded: the server answered {status} {response.reason}."
        if status in _RETRY_LATER:
            raise DownloadError(f"{answer} Run the same command again later.")
        raise NotOnServerError(f"{answer} It may have moved.")


def check_digest(file: Path, expected: str, name: str, progress: Progress = QUIET) -> None:
    """Compare a file with its publisher's MD5 or SHA-256; DownloadError if they differ."""
    kind = "MD5" if len(expected) == _MD5_LETTERS else "SHA-256"
    digest = hashlib.new(kind.replace("-", ""), usedforsecurity=False)
    progress.start(_size(file), what=f"checking {name}", unit="B")
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
    if digest.hexdigest() != expected:
        raise DownloadError(
            f"{name} is not the file that its publisher offers: its {kind} is {digest.hexdigest()}, not {expected}."
        )


# -- responses --------------------------------------------------------------------------------------------------------


def _read_chunk(response: requests.Response) -> bytes:
    import urllib3

    try:
        # iter_content() would drop the last bytes before a broken connection.
        data: bytes = response.raw.read(_CHUNK, decode_content=False)
    except (OSError, urllib3.exceptions.HTTPError) as error:
        raise _InterruptedError("the connection broke off") from error
    return data


def _version(url: str, response: requests.Response, start: int) -> _Version:
    headers = response.headers
    length = headers.get("Content-Length", "")
    etag = headers.get("ETag", "")
    return _Version(
        url,
        size=start + int(length) if length.isascii() and length.isdecimal() else None,
        tag=etag if etag.startswith('"') else headers.get("Last-Modified"),  # If-Range needs a strong ETag
        md5=_md5(headers),
    )


def _continues(response: requests.Response, start: int, version: _Version, known: _Version | None) -> bool:
    """Return whether a partial response continues the version of which we have the beginning."""
    return (
        known is not None
        and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        and version.tag in (None, known.tag)
        and (known.size is None or version.size == known.size)
    )


def _md5(headers: Mapping[str, str]) -> str | None:
    """Return the MD5 of the whole file in lower-case hex, if the server sends it.

    Google's storage sends it in ``x-goog-hash``; Amazon's in the ETag, for files that were uploaded in one piece and
    are not encrypted with a custom key.
    """
    if headers.get("x-goog-stored-content-encoding", "identity") == "identity":
        for part in headers.get("x-goog-hash", "").split(","):
            kind, _, value = part.strip().partition("=")
            if kind == "md5":
                try:
                    return base64.b64decode(value, validate=True).hex()
                except binascii.Error:
                    return None
    etag = _MD5_ETAG.fullmatch(headers.get("ETag", ""))
    amazon = headers.get("Server") == "AmazonS3"
    plain = headers.get("x-amz-server-side-encryption", "AES256") == "AES256"
    return etag[1] if etag is not None and amazon and plain else None


def _reason(error: BaseException) -> str:
    """Return the reason at the bottom of a chain of exceptions, such as "Connection refused"."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).rsplit(": ", 1)[-1] or type(error).__name__


# -- partial files and their notes ------------------------------------------------------------------------------------


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


def _read_version(part: Path) -> _Version | None:
    with suppress(OSError, ValueError, TypeError):
        return _Version(**parse_json(_notes(part).read_text()))
    return None


def _write_version(part: Path, version: _Version) -> None:
    _notes(part).write_text(json.dumps(asdict(version)))
