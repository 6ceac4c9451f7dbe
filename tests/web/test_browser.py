"""The pages in a real browser: Chromium, driven by Playwright, against a server on this machine."""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from werkzeug.serving import WSGIRequestHandler, make_server

from searchengine.index.types import RunProgress
from tests.web.conftest import encoded, make_app
from tests.web.fake import COLOURS, FakeEngine, draw

CHROMIUM = Path(os.environ.get("CHROMIUM") or "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: install Chromium or set CHROMIUM"),
]

RED = {"name": "red.png", "mimeType": "image/png", "buffer": encoded(draw(COLOURS["red"], (200, 150)))}
TEXT = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"dear diary"}
# A File made in the page from base64, as a drop or a paste would bring it.
TRANSFER = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


class QuietHandler(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def served(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FakeEngine]]:
    engine = FakeEngine(collection)
    app = make_app(engine, tmp_path_factory.mktemp("app"), SAMPLE=20, DEFAULT_K=10)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}", engine
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser, served: tuple[str, FakeEngine]) -> Iterator[Callable[..., Page]]:
    """Opens an address in a window of its own; in the end nothing may have been wrong in any of them."""
    base, engine = served
    wrong: list[str] = []
    contexts = []

    def listen(page: Page) -> None:
        def asked(address: str) -> None:
            if not address.startswith(("data:", "blob:")) and urlsplit(address).netloc != urlsplit(base).netloc:
                wrong.append(f"a request to another host: {address}")

        def said(kind: str, text: str) -> None:
            # The browser itself notes a refusal of the server, which is what some tests are about.
            if kind in {"error", "warning"} and not re.search(r"status of 4\d\d|net::ERR_FAILED", text):
                wrong.append(f"console {kind}: {text}")

        page.on("request", lambda request: asked(request.url))
        page.on("console", lambda message: said(message.type, message.text))
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))

    def open_(address: str = "/", *, width: int = 1200, height: int = 800, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, base_url=base, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        listen(page)
        page.goto(address)
        return page

    yield open_
    for context in contexts:
        context.close()
    engine.run = None
    assert wrong == []


def choose(page: Page, file: dict[str, Any] = RED) -> None:
    page.set_input_files("input[name=image]", file)


def ranks(page: Page) -> list[str]:
    return page.locator(".card .rank").all_inner_texts()


def boxes(page: Page) -> dict[str, dict[str, float]]:
    """Where each picture is on the page, by its id."""
    found: dict[str, dict[str, float]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.card')].map((card) => {
            const { x, y, width, height } = card.querySelector('.picture').getBoundingClientRect();
            return [card.id, { x, y: y + scrollY, width, height }];
        }))"""
    )
    return found


def rounded(boxes: dict[str, dict[str, float]]) -> dict[str, list[float]]:
    return {name: [round(number) for number in box.values()] for name, box in boxes.items()}


def test_upload(open_page: Callable[..., Page]) -> None:
    page = open_page("/search?id=3")
    choose(page)
    expect(page.locator(".results[data-query=upload]")).to_be_visible()
    assert ranks(page) == [str(rank) for rank in range(1, 11)]
    expect(page.locator(".card .details .facts").first).to_contain_text("red")
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    # One's own file is shown, not the copy that came back.
    expect(page.locator(".query-picture")).to_have_attribute("src", re.compile("^blob:"))
    assert "red.png" in page.title()
    page.go_back()
    expect(page.get_by_text("this picture")).to_be_visible()
    page.go_forward()
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    page.reload()  # the picture is not kept
    expect(page.get_by_text("From the collection")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("this picture")).to_be_visible()


def test_drop_anywhere(open_page: Callable[..., Page]) -> None:
    page = open_page("/search?id=3")
    transfer = page.evaluate_handle(TRANSFER, ["red.png", "image/png", base64.b64encode(RED["buffer"]).decode()])
    page.dispatch_event(".section-head", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop to search")).to_be_visible()
    page.dispatch_event(".section-head", "dragover", {"dataTransfer": transfer})
    page.dispatch_event(".section-head", "drop", {"dataTransfer": transfer})
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    expect(page.get_by_text("Drop to search")).to_be_hidden()


def test_paste(open_page: Callable[..., Page]) -> None:
    page = open_page()
    transfer = page.evaluate_handle(TRANSFER, ["image.png", "image/png", base64.b64encode(RED["buffer"]).decode()])
    page.evaluate(
        "(clipboardData) => document.body.dispatchEvent(new ClipboardEvent('paste', "
        "{ clipboardData, bubbles: true, cancelable: true }))",
        transfer,
    )
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("image.png")
    expect(page.locator(".card")).to_have_count(10)


def test_click_to_search_and_share(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.locator("#i4 .picture").click()
    page.wait_for_url("**/search?id=4")
    expect(page.get_by_text("this picture")).to_be_visible()
    assert ranks(page)[0] == "1"
    page.select_option("select[name=k]", "30")
    page.wait_for_url("**/search?id=4&k=30")
    expect(page.locator(".card")).to_have_count(30)
    # The number goes along to the next search.
    page.locator("#i4 .picture").click()
    page.wait_for_url("**/search?id=4&k=30")


@pytest.mark.parametrize("start", ["/", "/search?id=3", "upload"])
def test_load_more_appends_and_moves_nothing(open_page: Callable[..., Page], start: str) -> None:
    page = open_page("/" if start == "upload" else start, width=1100)
    if start == "upload":
        choose(page)
        expect(page.locator(".results[data-query=upload]")).to_be_visible()
    page.wait_for_load_state("networkidle")
    before = boxes(page)
    page.locator(".more .button").click()
    expect(page.locator(".card")).to_have_count(40)
    after = boxes(page)
    assert list(after)[: len(before)] == list(before)
    assert rounded({name: after[name] for name in before}) == rounded(before)
    # No row sticks out, and the rows above the last are full.
    right = page.evaluate("document.querySelector('.gallery').getBoundingClientRect().right")
    assert max(box["x"] + box["width"] for box in after.values()) <= right + 1
    if start != "/":
        assert ranks(page) == [str(rank) for rank in range(1, 41)]
        expect(page.locator("[data-count]")).to_have_text("40 of 45")
        expect(page.locator("select[name=k]")).to_have_value("40")
    page.locator(".more .button").click()
    expect(page.locator(".card")).to_have_count(45)
    expect(page.locator(".more")).to_have_count(0)
    if start != "upload":
        page.reload()
        expect(page.locator(".card")).to_have_count(45)


def test_places_are_kept_before_pictures_come(open_page: Callable[..., Page]) -> None:
    page = open_page("about:blank")
    held: list[Any] = []
    released = threading.Event()
    page.route("**/thumbnails/**", lambda route: route.continue_() if released.is_set() else held.append(route))
    page.goto("/search?id=1", wait_until="domcontentloaded")
    expect(page.locator(".card")).to_have_count(10)
    before = boxes(page)
    query = page.locator(".query-picture").bounding_box()
    assert all(box["height"] > 50 for box in before.values())
    tint = page.locator("#i1 .picture").evaluate("(place) => getComputedStyle(place).backgroundColor")
    assert tint != "rgb(138, 138, 138)"
    released.set()
    for route in held:
        route.continue_()
    page.wait_for_load_state("networkidle")
    page.wait_for_function(
        "[...document.images].filter((image) => image.loading !== 'lazy').every((image) => image.complete)"
    )
    assert rounded(boxes(page)) == rounded(before)
    assert page.locator(".query-picture").bounding_box() == query


def test_pictures_keep_their_proportions_and_rows_are_even(open_page: Callable[..., Page], served: Any) -> None:
    page = open_page("/")
    rows: dict[int, list[dict[str, float]]] = {}
    for name, box in boxes(page).items():
        record = served[1].record(int(name[1:]))
        ratio = min(max(record.width / record.height, 0.6), 2.6)
        assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.02)
        rows.setdefault(round(box["y"]), []).append(box)
    *full, _ = [row for _, row in sorted(rows.items())]
    assert len(full) >= 2
    for row in full:
        assert max(box["height"] for box in row) - min(box["height"] for box in row) < 1


@pytest.mark.parametrize("address", ["/", "/search?id=3", "/search?id=4711"])
def test_phone(open_page: Callable[..., Page], address: str) -> None:
    page = open_page(address, width=360, height=740, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    choose(page)
    expect(page.locator(".results[data-query=upload]")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    # The query stands above its results.
    query, first = page.locator(".query").bounding_box(), page.locator(".card").first.bounding_box()
    assert query is not None
    assert first is not None
    assert query["y"] + query["height"] <= first["y"]
    # Details need no hovering.
    card = page.locator(".card").first
    expect(card.locator(".details")).to_be_hidden()
    card.locator(".peek").tap()
    expect(card.locator(".details .name")).to_be_visible()
    expect(card.get_by_text("Download")).to_be_visible()
    page.touchscreen.tap(180, 20)
    expect(card.locator(".details")).to_be_hidden()


def test_errors_come_in_words(open_page: Callable[..., Page]) -> None:
    page = open_page("/search?id=3")
    choose(page, TEXT)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("not an image")
    expect(page.locator(".card")).to_have_count(10)  # what was there stays
    choose(page, {**RED, "buffer": bytes(1_500_000)})
    expect(alert).to_contain_text("larger than 1 MB")
    page.route("**/search", lambda route: route.abort())
    choose(page)
    expect(alert).to_contain_text("The server does not answer")
    page.unroute("**/search")
    choose(page)
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_waiting_shows_the_picture_and_can_be_stopped(open_page: Callable[..., Page]) -> None:
    page = open_page()
    held: list[Any] = []
    page.route("**/search", lambda route: held.append(route))
    choose(page)
    expect(page.get_by_text("Searching …")).to_be_visible()
    expect(page.locator(".query-picture")).to_have_attribute("src", re.compile("^blob:"))
    expect(page.locator("#busy")).to_be_visible()
    page.keyboard.press("Escape")
    page.unroute("**/search")
    expect(page.get_by_text("Searching …")).to_have_count(0)
    expect(page.get_by_text("From the collection")).to_be_visible()
    expect(page.locator("#busy")).to_be_hidden()


def test_keyboard(open_page: Callable[..., Page]) -> None:
    page = open_page("/search?id=3")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    focused = "document.activeElement.closest('.card')?.querySelector('.rank').textContent"
    for key, rank in (("j", "1"), ("j", "2"), ("ArrowRight", "3"), ("k", "2"), ("ArrowLeft", "1")):
        page.keyboard.press(key)
        assert page.evaluate(focused) == rank
    page.keyboard.press("ArrowDown")
    below = int(page.evaluate(focused))
    assert below > 2
    page.keyboard.press("ArrowUp")
    assert int(page.evaluate(focused)) < below
    page.locator(".card .picture").first.focus()
    page.keyboard.press("j")
    card = page.locator(".card").nth(1)
    expect(card.locator(".details .name")).to_be_visible()
    assert card.locator(".picture").evaluate("(link) => getComputedStyle(link).outlineStyle") == "solid"

    page.keyboard.press("c")
    path = card.locator("[data-action=copy]").get_attribute("data-copy")
    expect(page.get_by_role("status")).to_contain_text(f"Copied: {path}")
    assert page.evaluate("navigator.clipboard.readText()") == path
    page.keyboard.press("l")
    expect(page.get_by_role("status")).to_contain_text("Link copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    with page.expect_download() as download:
        page.keyboard.press("d")
    assert path is not None
    assert download.value.suggested_filename == path.rsplit("/", 1)[-1]
    with page.expect_popup() as popup:
        page.keyboard.press("o")
    assert popup.value.url.endswith(f"/images/{(card.get_attribute('id') or '')[1:]}")
    popup.value.close()

    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Keys")).to_be_hidden()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "image"
    page.keyboard.press("n")
    assert page.evaluate("document.activeElement.name") == "k"
    page.locator(".card .picture").nth(2).focus()
    page.keyboard.press("m")
    expect(page.locator(".card")).to_have_count(40)
    page.locator(".card .picture").nth(1).focus()
    second = (card.get_attribute("id") or "")[1:]
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/search?id={second}*")
    page.keyboard.press("g")
    expect(page.get_by_text("From the collection")).to_be_visible()


def test_without_scripts(open_page: Callable[..., Page]) -> None:
    page = open_page("/", width=360, java_script_enabled=False)
    assert page.locator("html").evaluate("(root) => root.scrollWidth") <= 360
    label = page.locator(".choose").bounding_box()
    assert label is not None
    assert label["x"] >= 0
    expect(page.get_by_role("button", name="Keys")).to_be_hidden()
    choose(page)
    page.select_option("select[name=k]", "30")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".card")).to_have_count(30)
    assert page.locator("html").evaluate("(root) => root.scrollWidth") <= 360
    expect(page.locator(".query-picture")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    assert page.locator(".query-picture").evaluate("(image) => image.naturalWidth") > 0
    page.locator(".card .picture").first.click()
    expect(page.get_by_text("this picture")).to_be_visible()
    page.get_by_role("link", name="Load more").click()
    expect(page.locator(".card")).to_have_count(45)
    choose(page, TEXT)
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("not an image")).to_be_visible()


def test_a_first_run_is_followed(open_page: Callable[..., Page], served: tuple[str, FakeEngine]) -> None:
    engine = served[1]
    engine.run = RunProgress(4000, 20000, active=True)
    page = open_page("/")
    expect(page.get_by_text("4 000 of 20 000 so far")).to_be_visible()
    engine.run = RunProgress(4500, 20000, active=True)
    expect(page.get_by_text("4 500 of 20 000 so far")).to_be_visible()


def test_dark_and_light_follow_the_system(open_page: Callable[..., Page]) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = open_page("/", color_scheme="light").evaluate(background)
    dark = open_page("/", color_scheme="dark").evaluate(background)
    assert light == "rgb(251, 251, 251)"
    assert dark == "rgb(19, 19, 19)"
