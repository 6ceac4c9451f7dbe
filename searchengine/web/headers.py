"""The headers that every answer carries: what a page may load, and how long an answer keeps."""

from __future__ import annotations

import secrets
from http import HTTPStatus

from flask import Flask, Response, g, request

# One year, the longest that means anything. A cache between here and the browser may hand out what is public to others.
FOREVER = "public, max-age=31536000, immutable"
FOREVER_PRIVATE = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"


def nonce() -> str:
    """The one-time word that lets the page's own style element through its policy."""
    if "nonce" not in g:
        g.nonce = secrets.token_urlsafe(16)
    return str(g.nonce)


def secure(app: Flask) -> None:
    """Puts the security headers, and a cache rule where a view set none, on every answer of ``app``."""

    @app.after_request
    def add(response: Response) -> Response:
        headers = response.headers
        if response.mimetype == "text/html":
            policy = (
                "default-src 'none'; script-src 'self'; "
                f"style-src 'self' 'nonce-{nonce()}'; img-src 'self' data: blob:; connect-src 'self'; "
                "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            )
        else:
            # A picture opened by itself is a document too; it may do nothing.
            policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
        headers.setdefault("Content-Security-Policy", policy)
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Referrer-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            headers["Cache-Control"] = "no-store"
        elif "Cache-Control" not in headers:
            headers["Cache-Control"] = ASK_AGAIN
        if request.endpoint in {"pages.search", "pages.search_upload", "compare.by_id", "compare.by_upload"}:
            response.vary.add("Accept")
        return response
