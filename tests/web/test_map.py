"""The map and the groups: what the server says, and the pages in a real browser."""

from __future__ import annotations

import json
import math
import re
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect, sync_playwright
from werkzeug.serving import make_server

from searchengine.engine import SearchEngine
from searchengine.index.local import LocalIndex
from searchengine.mapping import stored
from searchengine.web import create_app
from tests.mapping.filled import fill
from tests.web.fake import COLOURS, draw
from tests.web.test_browser import CHROMIUM, FLAGS, QuietHandler

COUNT = 240
KINDS = ("red", "green", "blue")
in_browser = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no browser at {CHROMIUM}: install Chromium or set CHROMIUM"),
]


def fill_index(folder: Path, count: int = COUNT) -> LocalIndex:
    """Pictures of three colours; every third is red, and so on."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    names = [f"{KINDS[at % 3]} {at:03}.png" for at in range(count)]
    for at, name in enumerate(names):
        draw(COLOURS[KINDS[at % 3]], (48, 36), at).save(images / name)
    features = (10 * np.eye(3, 6)[np.arange(count) % 3] + np.arange(count)[:, None] * 1e-3).astype(np.float32)
    labels = [KINDS[at % 3] for at in range(count)]
    return fill(folder / "index", features, images=images, names=names, labels=labels)


def store_map(index: LocalIndex, count: int = COUNT) -> None:
    """Three discs: red at the left, green in the middle, blue at the right; image 1 is in the middle of its own."""
    turn = np.arange(count) // 3
    angle, radius = turn * 2.4, 0.35 * np.sqrt(turn)
    middle = (np.arange(count) % 3 - 1) * 10
    places = np.stack([middle + radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    rows = stored.Rows.of(index.state())
    arrays = {
        "ids": rows.ids[:count],
        "stamps": stored.stamps_of(index, rows)[:count],
        "places": places,
        "fitted": np.ones(count, dtype=np.bool_),
    }
    stored.save(index.folder, stored.MAP, {"fingerprint": index.fingerprint}, arrays)


def store_groups(index: LocalIndex, count: int = COUNT) -> None:
    """A group a colour; images 1 and 4, and 2 and 5, are near-duplicates."""
    rows = stored.Rows.of(index.state())
    duplicate = np.full(count, -1, dtype=np.int32)
    duplicate[[0, 3]], duplicate[[1, 4]] = 0, 1
    arrays = {
        "ids": rows.ids[:count],
        "stamps": stored.stamps_of(index, rows)[:count],
        "cluster": (np.arange(count) % 3).astype(np.int32),
        "distance": np.arange(count, dtype=np.float32),
        "duplicate": duplicate,
    }
    about = {"fingerprint": index.fingerprint, "clusters": 3, "silhouette": 0.9, "limit": 0.2}
    stored.save(index.folder, stored.GROUPS, about, arrays)


def app_of(index: LocalIndex, cache: Path) -> Any:
    return create_app({"TESTING": True, "CACHE_DIR": cache, "DEFAULT_K": 10}, engine=SearchEngine(index))


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    return fill_index(tmp_path, 30)


@pytest.fixture
def client(index: LocalIndex, tmp_path: Path) -> FlaskClient:
    client: FlaskClient = app_of(index, tmp_path / "cache").test_client()
    return client


def unpacked(data: bytes) -> dict[str, Any]:
    size = struct.unpack("<I", data[:4])[0]
    head = json.loads(data[4 : 4 + size])
    assert (4 + size) % 8 == 0
    for name, (kind, at, length) in head["columns"].items():
        assert at % 8 == 0
        head[name] = np.frombuffer(data, kind, length, 4 + size + at).tolist()
    return dict(head)


def test_without_a_map_the_page_names_the_command(client: FlaskClient) -> None:
    page = client.get("/map").text
    assert "No map yet" in page
    assert "searchengine map --index-dir" in page
    assert "<canvas" not in page
    answer = client.get("/map/points", headers={"Accept": "application/json"})
    assert answer.status_code == 404
    assert "searchengine cluster --index-dir" in client.get("/groups").text
    assert 'href="/map"' in client.get("/").text


def test_points_are_what_the_map_says(client: FlaskClient, index: LocalIndex) -> None:
    store_map(index, 30)
    answer = client.get("/map/points")
    points = unpacked(answer.data)
    assert points["count"] == 30
    assert points["id"] == list(range(1, 31))
    assert points["x"][:3] == [-10, 0, 10]
    assert points["labels"] == ["blue", "green", "red"]
    assert points["label"][:3] == [2, 1, 0]
    assert set(points["cluster"]) == {0xFFFF}
    assert points["ratio"][0] == 1333
    assert points["colour"][3:6] == [1, 0x80, 0x40]
    record = index.records([5])[0]
    assert record.content_hash is not None
    assert f"{points['version'][4]:08x}" == record.content_hash[:8]
    assert "Content-Security-Policy" in answer.headers

    same = client.get("/map/points", headers={"If-None-Match": answer.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    store_groups(index, 30)
    other = client.get("/map/points", headers={"If-None-Match": answer.headers["ETag"]})
    assert other.status_code == 200
    assert unpacked(other.data)["cluster"][:4] == [0, 1, 2, 0]


def test_what_changed_since_is_said(client: FlaskClient, index: LocalIndex, tmp_path: Path) -> None:
    store_map(index, 27)
    store_groups(index, 27)
    assert "3 came" in client.get("/map").text
    assert "Take that in: searchengine cluster" in client.get("/groups").text
    fill(tmp_path / "index", np.empty((0, 6), np.float32), gone=[1, 2])
    assert "2 went" in client.get("/map").text
    assert unpacked(client.get("/map/points").data)["id"] == list(range(3, 28))
    assert client.get("/groups?cluster=1").status_code == 200
    (index.folder / stored.MAP).write_bytes(b"nothing")
    page = client.get("/map")
    assert page.status_code == 200
    assert "cannot be read" in page.text


def test_groups_open(client: FlaskClient, index: LocalIndex) -> None:
    store_groups(index, 30)
    page = client.get("/groups").text
    assert "3 groups" in page
    assert "silhouette 0.900" in page
    assert page.count('class="group"') == 5
    one = client.get("/groups?cluster=2").text
    # The most typical first, and only those of the group.
    assert re.findall(r'<li class="card" id="i(\d+)"', one) == [str(number) for number in range(2, 31, 3)]
    assert "mostly green" in one
    assert re.findall(r'<li class="card" id="i(\d+)"', client.get("/groups?duplicates=2").text) == ["2", "5"]
    for address in ("/groups?cluster=9", "/groups?cluster=x", "/groups?duplicates=0"):
        assert client.get(address).status_code == 404


# -- in the browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("map")
    index = fill_index(folder)
    store_map(index)
    store_groups(index)
    server = make_server("127.0.0.1", 0, app_of(index, folder / "cache"), threaded=True, request_handler=QuietHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()
    index.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_map(browser: Browser, served: str) -> Iterator[Callable[..., Page]]:
    """Opens a page; in the end nothing may have been wrong in it, and nothing asked of another host."""
    wrong: list[str] = []
    contexts = []

    def asked(address: str) -> None:
        if not address.startswith(("data:", "blob:")) and urlsplit(address).netloc != urlsplit(served).netloc:
            wrong.append(f"a request to another host: {address}")

    def open_(address: str = "/map", *, width: int = 1200, height: int = 800, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, base_url=served, **options)
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked(request.url))
        page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
        page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
        page.goto(address)
        if address == "/map":
            page.wait_for_selector("canvas[data-zoom]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


def zoom(page: Page) -> float:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return float(page.locator("canvas").get_attribute("data-zoom") or 0)


def shown(page: Page) -> int:
    zoom(page)
    return int(page.locator("canvas").get_attribute("data-shown") or 0)


def spots(page: Page) -> dict[str, tuple[float, float]]:
    """The middle of what is coloured red, green and blue on the canvas, in px of the window; by the pixels drawn."""
    zoom(page)
    found: dict[str, tuple[float, float]] = page.evaluate(
        """() => {
            const canvas = document.querySelector('canvas');
            const { width, height } = canvas;
            const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
            copy.drawImage(canvas, 0, 0);
            const { data } = copy.getImageData(0, 0, width, height);
            const box = canvas.getBoundingClientRect();
            const sums = { left: [0, 0, 0], middle: [0, 0, 0], right: [0, 0, 0] };
            const xs = [];
            for (let i = 3; i < data.length; i += 4) if (data[i] > 200) xs.push((i >> 2) % width);
            const [low, high] = [Math.min(...xs), Math.max(...xs)];
            for (let i = 3; i < data.length; i += 4) {
                if (data[i] <= 200) continue;
                const x = (i >> 2) % width, y = Math.floor((i >> 2) / width);
                const part = ['left', 'middle', 'right'][Math.min(2, Math.floor(3 * (x - low) / (high - low + 1)))];
                sums[part][0] += x; sums[part][1] += y; sums[part][2] += 1;
            }
            const scale = box.width / width;
            return Object.fromEntries(Object.entries(sums).map(([part, [x, y, n]]) =>
                [part, [box.left + x / n * scale, box.top + y / n * scale]]));
        }"""
    )
    return found


def over_something(page: Page, x: float, y: float) -> tuple[float, float]:
    """Moves the pointer in a widening spiral until it is over a picture."""
    for step in range(60):
        at = (x + 3 * step * math.cos(step), y + 3 * step * math.sin(step))
        page.mouse.move(*at)
        if page.locator("canvas.is-over").count():
            return at
    raise AssertionError("there is no picture")


def circle(page: Page, x: float, y: float, radius: float) -> None:
    page.mouse.move(x + radius, y)
    page.mouse.down()
    for step in range(1, 13):
        angle = 2 * math.pi * step / 12
        page.mouse.move(x + radius * math.cos(angle), y + radius * math.sin(angle))
    page.mouse.up()


class TestBrowser:
    pytestmark = in_browser

    def test_far_points_near_pictures(self, open_map: Callable[..., Page]) -> None:
        page = open_map()
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url) if "/thumbnails/" in request.url else None)
        assert zoom(page) == 1
        assert shown(page) == 0
        x, y = spots(page)["left"]
        page.mouse.move(x, y)
        page.mouse.wheel(0, -1200)
        assert zoom(page) > 5
        assert 0 < shown(page) < COUNT / 3
        page.wait_for_load_state("networkidle")
        ids = {int(re.search(r"/thumbnails/(\d+)", address)[1]) for address in loaded}  # type: ignore[index]
        assert {id_ % 3 for id_ in ids} == {1}  # only what is in view: red ones
        before = shown(page)
        page.mouse.down()
        page.mouse.move(x - 3000, y, steps=4)
        page.mouse.up()
        assert page.url.endswith("/map")  # dragging is no click
        assert shown(page) != before or len(loaded) > len(ids)
        page.get_by_role("button", name="Show all").click()
        assert zoom(page) == 1
        for name, larger in (("Zoom in", True), ("Zoom out", False)):
            now = zoom(page)
            page.get_by_role("button", name=name).click()
            assert (zoom(page) > now) is larger

    def test_click_searches_by_the_picture(self, open_map: Callable[..., Page]) -> None:
        page = open_map()
        x, y = spots(page)["left"]
        page.mouse.move(x, y)
        page.mouse.wheel(0, -1200)
        assert shown(page) >= 1
        page.mouse.click(*over_something(page, x, y))
        page.wait_for_url(re.compile(r"/search\?id=\d+"))
        assert int(page.url.split("=")[1]) % 3 == 1
        expect(page.get_by_text("this picture")).to_be_visible()
        page.go_back()
        expect(page.locator("canvas[data-zoom]")).to_be_visible()
        # Of a point, a pointer shows the picture.
        page.mouse.move(*spots(page)["right"])
        expect(page.locator(".map-card")).to_be_visible()

    def test_lasso_shows_a_selection(self, open_map: Callable[..., Page]) -> None:
        page = open_map()
        x, y = spots(page)["middle"]
        page.get_by_role("button", name="Select").click()
        circle(page, x, y, 150)
        expect(page.get_by_role("heading", name="80 pictures selected")).to_be_visible()
        expect(page.locator(".picked .card")).to_have_count(60)
        page.get_by_role("button", name="20 more").click()
        expect(page.locator(".picked .card")).to_have_count(80)
        links = page.locator(".picked .card a").evaluate_all("(links) => links.map((link) => link.href)")
        assert {int(link.split("=")[1]) % 3 for link in links} == {2}
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".picked")).to_be_hidden()
        page.get_by_role("button", name="Move").click()
        page.keyboard.down("Shift")
        circle(page, *spots(page)["right"], 150)
        page.keyboard.up("Shift")
        expect(page.get_by_role("heading", name="80 pictures selected")).to_be_visible()
        page.locator(".picked .card a").first.click()
        page.wait_for_url(re.compile(r"/search\?id=\d+"))

    def test_by_keys(self, open_map: Callable[..., Page]) -> None:
        page = open_map()
        page.locator("canvas").focus()
        for _ in range(3):
            page.keyboard.press("+")
        assert zoom(page) > 3
        assert shown(page) > 0
        page.keyboard.press("v")
        expect(page.locator(".picked h2")).to_contain_text("in view")
        page.keyboard.press("Escape")
        expect(page.locator(".picked")).to_be_hidden()
        page.keyboard.press("s")
        expect(page.get_by_role("button", name="Select")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("0")
        assert zoom(page) == 1
        for _ in range(4):
            page.keyboard.press("ArrowLeft")
        page.keyboard.press("0")
        # What a colour stands for can be chosen.
        page.get_by_role("button", name="green 80").press("Enter")
        expect(page.get_by_role("heading", name="green, 80 pictures")).to_be_visible()
        page.select_option("[data-part=colour]", "Group")
        expect(page.locator("[data-part=legend] button")).to_have_count(3)
        page.select_option("[data-part=colour]", "Own colour")
        expect(page.locator("[data-part=key]")).to_be_hidden()

    def test_phone(self, open_map: Callable[..., Page]) -> None:
        page = open_map(width=360, height=740, has_touch=True, is_mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        x, y = spots(page)["left"]
        page.touchscreen.tap(x, y)  # a finger sees first what it means
        expect(page.locator(".map-card")).to_be_visible()
        assert page.url.endswith("/map")
        page.get_by_role("button", name="List view").tap()
        expect(page.get_by_role("heading", name="240 pictures in view")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        canvas, picked = page.locator("canvas").bounding_box(), page.locator(".picked").bounding_box()
        assert canvas is not None
        assert picked is not None
        assert canvas["y"] + canvas["height"] <= picked["y"] + 1
        page.get_by_role("button", name="Clear").tap()
        now = zoom(page)
        pinch(page)
        assert zoom(page) > 1.5 * now

    @pytest.mark.parametrize("address", ["/groups", "/groups?cluster=1", "/groups?duplicates=1"])
    def test_groups_on_a_phone(self, open_map: Callable[..., Page], address: str) -> None:
        page = open_map(address, width=360, height=740)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.wait_for_load_state("networkidle")
        assert page.locator("main img").first.evaluate("(image) => image.naturalWidth") > 0
        page.locator("main li a").first.click()
        page.wait_for_url(re.compile(r"cluster=1|search\?id="))

    def test_light_and_dark(self, open_map: Callable[..., Page]) -> None:
        page = open_map(color_scheme="light")
        light = page.locator(".map-key i").first.evaluate("(swatch) => getComputedStyle(swatch).backgroundColor")
        page.emulate_media(color_scheme="dark")
        expect(page.locator(".map-key i").first).not_to_have_css("background-color", light)


def pinch(page: Page) -> None:
    """Two fingers move apart."""
    box = page.locator("canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 70), ("touchEnd", None)):
        touches = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
