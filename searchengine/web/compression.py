"""Pages, styles, scripts and numbers travel as gzip: a page of results shrinks to a tenth.

By the standard library: Brotli would save another twentieth, and cost dependencies that must be compiled. That
compressed pages can be guessed at from outside (BREACH) needs a secret that is the same in each of them; these hold
none: no session, no cookie, and the one-time word of the policy is another in every answer.
"""

from __future__ import annotations

import gzip
from http import HTTPStatus
from threading import Lock

from flask import Flask, Response, request

_TYPES = {
    "text/html",
    "text/css",
    "text/plain",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/octet-stream",  # the numbers of the map
    "image/svg+xml",
}
_LEAST = 1000  # bytes; below it, one packet is one packet
_LEVEL = 6
_KEPT = 64  # compressed answers that have an ETag: styles and scripts, and the map


class _Compressed:
    """What was compressed already, by the ETag of what it was made from; the one used last is last."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[str, bytes] = {}

    def of(self, data: bytes, etag: str | None) -> bytes:
        """As gzip, always the same for the same data."""
        if etag is None:
            return gzip.compress(data, _LEVEL, mtime=0)
        with self._lock:
            found = self._kept.pop(etag, None)
        if found is None:
            found = gzip.compress(data, _LEVEL, mtime=0)
        with self._lock:
            self._kept[etag] = found
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return found


def compress(app: Flask) -> None:
    """Compresses answers of ``app`` for those who take gzip; to be called before what else looks at answers."""
    compressed = _Compressed()

    @app.after_request
    def shrink(response: Response) -> Response:
        if response.mimetype not in _TYPES:
            return response
        response.vary.add("Accept-Encoding")
        whole = response.status_code == HTTPStatus.OK or response.status_code >= HTTPStatus.BAD_REQUEST
        if not whole or "Content-Encoding" in response.headers or not request.accept_encodings["gzip"]:
            return response
        response.direct_passthrough = False
        data = response.get_data()
        if len(data) < _LEAST:
            return response
        etag, weak = response.get_etag()
        response.set_data(compressed.of(data, etag))
        response.headers["Content-Encoding"] = "gzip"
        response.headers.pop("Accept-Ranges", None)
        if etag and not weak:
            # Other bytes need another strong ETag; a browser that asks with this one is answered here.
            response.set_etag(f"{etag}-gzip")
            response.make_conditional(request)
        return response
