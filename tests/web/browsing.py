"""Fixtures for tests in Chromium, driven by Playwright, that fail if any page reports an error."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect

from searchengine.web.http_server import Limits
from tests.web.conftest import encoded
from tests.web.fake import COLOURS, draw
from tests.web.server import Running

CHROMIUM = Path(os.environ.get("CHROMIUM") or "/usr/bin/chromium")
# Features to disable, instead of Playwright's own list. Without the first three, a window has extra pages for the
# suggestions of its address bar, which cost more than the page under test.
OFF = [
    "WebUIOmniboxAimPopup",
    "WebUIOmniboxFullPopup",
    "WebUIOmniboxPopup",
    "AimEnabled",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--disable-features=" + ",".join(OFF),
]
in_browser = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: install Chromium or set CHROMIUM"),
]

RED = {"name": "red.png", "mimeType": "image/png", "buffer": encoded(draw(COLOURS["red"], (200, 150)))}
TEXT = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"dear diary"}
# Makes a File in the page from base64, as a drop or a paste would contain it.
TRANSFER = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""

PHONE = {"width": 360, "height": 740, "has_touch": True, "is_mobile": True}
DESK = {"width": 1440, "height": 900}
both_sizes = pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])

PATIENCE = 30_000  # ms; a machine may be busy with other things
expect.set_options(timeout=PATIENCE)

OpenPage = Callable[..., Page]
_OPTIONS: WeakKeyDictionary[BrowserContext, dict[str, Any]] = WeakKeyDictionary()


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Run a server on this machine; yield its address."""
    server = Running(Limits(max_body=2_000_000), app, threads=16)
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.stop()


def context_of(browser: Browser, **options: Any) -> BrowserContext:
    """Return a browser context with these options: an existing one with its cache, or a new one."""
    for context in browser.contexts:
        if _OPTIONS[context] == options:
            return context
    for context in browser.contexts:
        if not context.pages:  # the server has stopped
            context.close()
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    _OPTIONS[context] = options
    return context


@contextmanager
def pages_at(browser: Browser, base: str) -> Iterator[OpenPage]:
    """Open an address in a new tab; the test fails if any tab reports an error."""
    wrong: list[str] = []
    contexts = []

    def listen(page: Page) -> None:
        def asked(address: str) -> None:
            if not address.startswith(("data:", "blob:")) and urlsplit(address).netloc != urlsplit(base).netloc:
                wrong.append(f"a request to another host: {address}")

        def said(kind: str, text: str) -> None:
            # The browser logs error responses of the server, which some tests provoke.
            if kind in {"error", "warning"} and not re.search(r"status of 4\d\d|net::ERR_FAILED", text):
                wrong.append(f"console {kind}: {text}")

        page.on("request", lambda request: asked(request.url))
        page.on("console", lambda message: said(message.type, message.text))
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))

    def open_(address: str = "/", *, width: int = 1200, height: int = 800, **options: Any) -> Page:
        context = context_of(browser, viewport={"width": width, "height": height}, base_url=base, **options)
        contexts.append(context)
        page = context.new_page()
        listen(page)
        page.goto(address)
        return page

    try:
        yield open_
    finally:
        for context in contexts:
            for page in context.pages:
                page.unroute_all(behavior="ignoreErrors")  # a request that a test holds back is never answered
                page.close()
    assert wrong == []


def choose(page: Page, file: dict[str, Any] = RED) -> None:
    page.set_input_files("input[name=image]", file)


def judge(page: Page, at: int, word: str) -> None:
    page.locator(".grid > .tile").nth(at).locator(f"[data-judge={word}]").click()


def facts(page: Page) -> Any:
    return expect(page.locator("#main .facts"))


def ids(page: Page) -> list[int]:
    found: list[int] = page.locator(".grid > .tile").evaluate_all("(tiles) => tiles.map((tile) => +tile.dataset.id)")
    return found


def fits(page: Page) -> bool:
    """Return whether nothing is wider than the window."""
    return bool(page.locator("html").evaluate("(root) => root.scrollWidth <= innerWidth"))


def until(page: Page, expression: str, seconds: float = 30) -> None:
    """Wait until a JavaScript expression is true.

    `page.wait_for_function` would have the page evaluate a string, which our content security policy forbids: it works
    only where the expression is true at once.
    """
    for _ in range(round(seconds / 0.05)):
        with suppress(Error):  # the page may be unloading, or not loaded yet
            if page.evaluate(expression):
                return
        page.wait_for_timeout(50)
    pytest.fail(f"still not true after {seconds} s: {expression}")
