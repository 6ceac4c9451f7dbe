"""Security: the headers of every response, and the hosts and origins whose requests are answered."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import ip_address

from flask import Flask, Request, Response, g, request
from werkzeug.exceptions import Forbidden, SecurityError
from werkzeug.sansio.utils import host_is_trusted

from searchengine.settings import Settings

# One year, the longest useful time. Shared caches may serve "public" responses to other users.
FOREVER = "public, max-age=31536000, immutable"
FOREVER_PRIVATE = "private, max-age=31536000, immutable"
REVALIDATE = "private, no-cache"

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")  # added by proxies
_PAGE_OR_JSON = {"search.by_id", "search.by_upload", "compare.by_id", "compare.by_upload"}


def nonce() -> str:
    """Return the nonce of this response, by which its policy allows the page's own style elements."""
    if "nonce" not in g:
        g.nonce = secrets.token_urlsafe(16)
    return str(g.nonce)


def secure(app: Flask, settings: Settings) -> None:
    """Check the host and origin of every request to ``app``, and set the security headers of every response."""
    _check_hosts(app, settings)
    _check_origin(app)

    @app.after_request
    def set_headers(response: Response) -> Response:
        headers = response.headers
        if response.mimetype == "text/html":
            policy = (
                "default-src 'none'; script-src 'self'; "
                f"style-src 'self' 'nonce-{nonce()}'; img-src 'self' data: blob:; connect-src 'self'; "
                "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            )
        else:
            # An image opened by itself is a document too, and must not be able to do anything.
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
            headers["Cache-Control"] = REVALIDATE
        if request.endpoint in _PAGE_OR_JSON:
            response.vary.add("Accept")
        return response


def _check_hosts(app: Flask, settings: Settings) -> None:
    """Refuse requests to host names that are not in the settings; ``*`` allows any.

    A web page can make its own host name point to this machine (DNS rebinding). The browser then lets it read
    everything here, and only the Host header gives it away. If the settings name no host, a server that only this
    machine can reach, without a proxy in front, answers to localhost and to numeric addresses, which cannot be
    rebound. Any other server answers to every name.
    """
    names = [name.strip().strip("[]") for name in settings.hosts.lower().split(",") if name.strip()]
    local = not names and not settings.proxies and is_loopback(settings.bind)
    any_name = "*" in names or not (names or local)

    @app.before_request
    def check_host() -> None:
        host = request.host.lower()
        if not (any_name or (_is_local(host) if local else _is_among(host, names))):
            raise SecurityError(f"{host!r} is not one of the server's names.")


def _check_origin(app: Flask) -> None:
    """Refuse queries posted by pages of other sites, which would use this machine without its user's knowledge.

    Browsers send the origin of a request, and pages cannot change it. Other programs send none, and are answered.
    """

    @app.before_request
    def check_origin() -> None:
        if request.method != "POST":
            return
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site is not None:
            is_ours = site in {"same-origin", "none"}
        else:  # without TLS, browsers send only Origin to servers on other machines
            # Pages cannot set X-Forwarded-Host either; a proxy that is not configured here does.
            names = {request.host, request.headers.get("X-Forwarded-Host")}
            is_ours = origin is None or origin.partition("://")[2] in names
        if not is_ours:
            raise Forbidden(
                "A page of another site sent this query, so it was not answered. Search from this server's own pages. "
                "If you did, the proxy in front of the server must pass on the Host header."
            )


def _is_among(host: str, names: Sequence[str]) -> bool:
    """Return whether a Host header names one of ``names`` on any port; ``.example.org`` includes all subdomains."""
    return _without_port(host) in names or host_is_trusted(host, names)  # host_is_trusted does not know IPv6


def _is_local(host: str) -> bool:
    """Return whether a Host header names localhost, a subdomain of it or a numeric address, on any port."""
    return _is_address(_without_port(host)) or host_is_trusted(host, [".localhost"])


def _without_port(host: str) -> str:
    return re.sub(r":[0-9]*$", "", host).strip("[]")


def is_loopback(bind: str) -> bool:
    """Return whether a server that listens on this address is reachable only from this machine."""
    return bind == "localhost" or (_is_address(bind) and ip_address(bind).is_loopback)


def is_local_request(request: Request, settings: Settings) -> bool:
    """Return whether a request comes from this machine: from and to loopback addresses, without a proxy."""
    peer, host = request.remote_addr or "", _without_port(request.host.lower())
    forwarded = settings.proxies or any(name in request.headers for name in _FORWARDED)
    return not forwarded and _is_address(peer) and is_loopback(peer) and is_loopback(host)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
