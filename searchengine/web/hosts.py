"""Which names the server answers to.

A web page can let its own name point at this machine (DNS rebinding). The browser then takes the server here for that
page's own, and lets it read everything; only the Host header tells.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from flask import Flask, request
from werkzeug.exceptions import SecurityError
from werkzeug.sansio.utils import host_is_trusted

from searchengine.settings import Settings


def check_hosts(app: Flask, settings: Settings) -> None:
    """Refuse requests to other names than those of the settings; ``*`` among these is any.

    Where they name none, a server that only this machine can reach, without a proxy in front, answers to localhost and
    to addresses in numbers, which nobody can point elsewhere; any other answers to every name.
    """
    names = [name.strip().strip("[]") for name in settings.hosts.lower().split(",") if name.strip()]
    local = not names and not settings.proxies and _is_loopback(settings.bind)
    if "*" in names or not (names or local):
        return

    @app.before_request
    def check() -> None:
        host = request.host.lower()
        if not (is_local(host) if local else is_one_of(host, names)):
            raise SecurityError(f"{host!r} is none of the server's names.")


def is_one_of(host: str, names: Sequence[str]) -> bool:
    """Whether a Host header, whatever its port, is one of ``names``; ``.example.org`` is that and every name below."""
    return _name_in(host) in names or host_is_trusted(host, names)  # the latter knows no IPv6


def is_local(host: str) -> bool:
    """Whether a Host header, whatever its port, is localhost, a name below it, or an address in numbers."""
    return _is_address(_name_in(host)) or host_is_trusted(host, [".localhost"])


def _name_in(host: str) -> str:
    return re.sub(r":[0-9]*$", "", host).strip("[]")


def _is_loopback(bind: str) -> bool:
    return bind == "localhost" or (_is_address(bind) and ip_address(bind).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
