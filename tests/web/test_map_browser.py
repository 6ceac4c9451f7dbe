"""The map and the groups in a real browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.browsing import OpenPage, fits, in_browser, pages_at, serving, until
from tests.web.mapped import app_of, fill_index, store_groups, store_map

pytestmark = in_browser


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("map")
    index = fill_index(folder)
    store_map(index)
    store_groups(index)
    with serving(app_of(index, folder / "cache")) as base:
        yield base
    index.close()


@pytest.fixture
def open_map(browser: Browser, served: str) -> Iterator[OpenPage]:
    with pages_at(browser, served) as open_:

        def open_and_wait(address: str = "/map", **options: Any) -> Page:
            page = open_(address, **options)
            if address == "/map":
                page.wait_for_selector("canvas[data-ready=true]")
            return page

        yield open_and_wait


def zoom(page: Page) -> float:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    page.wait_for_selector("canvas[data-ready=true]")
    return float(page.locator("canvas").get_attribute("data-zoom") or 0)


def shown(page: Page) -> int:
    zoom(page)
    return int(page.locator("canvas").get_attribute("data-shown") or 0)


def names(page: Page) -> int:
    zoom(page)
    return int(page.locator("canvas").get_attribute("data-names") or 0)


def spots(page: Page) -> dict[str, tuple[float, float]]:
    """Return the centres of the red, green and blue pixels on the canvas, in px of the window."""
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
    """Move the pointer in a widening spiral until it is over a picture."""
    for step in range(60):
        at = (x + 3 * step * math.cos(step), y + 3 * step * math.sin(step))
        page.mouse.move(*at)
        if page.locator("canvas[style*=pointer]").count():
            return at
    raise AssertionError("there is no picture")


def circle(page: Page, x: float, y: float, radius: float) -> None:
    page.mouse.move(x + radius, y)
    page.mouse.down()
    for step in range(1, 13):
        angle = 2 * math.pi * step / 12
        page.mouse.move(x + radius * math.cos(angle), y + radius * math.sin(angle))
    page.mouse.up()


def pinch(page: Page) -> None:
    """Move two fingers apart."""
    box = page.locator("canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 70), ("touchEnd", None)):
        touches = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


def test_pictures_and_names_at_each_level_of_zoom(open_map: OpenPage) -> None:
    page = open_map(width=1440)
    assert fits(page)
    assert zoom(page) == 1
    seen = []
    for key in ["+"] * 5 + ["-"] * 5:
        page.keyboard.press(key)  # without focusing anything first
        seen.append((shown(page), names(page)))
    assert all(pictures and named for pictures, named in seen)
    assert seen[:4] == seen[8:4:-1]  # the pictures shown do not depend on the path
    for key in ["+"] * 12 + ["ArrowLeft", "ArrowUp"] * 12:
        page.keyboard.press(key)
        assert shown(page) > 0  # no key leads to an empty part
    page.get_by_role("button", name="Show all").click()
    assert zoom(page) == 1
    for name, larger in (("Zoom in", True), ("Zoom out", False)):
        now = zoom(page)
        page.get_by_role("button", name=name).click()
        assert (zoom(page) > now) is larger


def test_only_pictures_in_view_are_loaded(open_map: OpenPage) -> None:
    page = open_map()
    x, y = spots(page)["left"]
    page.mouse.move(x, y)
    page.mouse.wheel(0, -1200)
    page.wait_for_url("**/map#at=*")
    loaded: list[str] = []
    page.on("request", lambda request: loaded.append(request.url) if "/thumbnails/" in request.url else None)
    page.reload()
    assert shown(page) > 0
    page.wait_for_load_state("networkidle")
    ids = {int(re.search(r"/thumbnails/(\d+)", address)[1]) for address in loaded}  # type: ignore[index]
    assert {id_ % 3 for id_ in ids} == {1}  # red images


def test_back_from_a_result_returns_to_the_view(open_map: OpenPage) -> None:
    page = open_map()
    x, y = spots(page)["left"]
    page.mouse.move(x, y)
    page.mouse.wheel(0, -1200)
    now = zoom(page)
    page.mouse.click(*over_something(page, x, y))
    page.wait_for_url(re.compile(r"/search\?id=\d+"))
    assert int(page.url.split("=")[1]) % 3 == 1
    page.keyboard.press("0")  # keys of the map do not work here
    page.go_back()
    expect(page.locator("canvas[data-ready=true]")).to_be_visible()
    assert "#at=" in page.url
    assert zoom(page) == pytest.approx(now, rel=1e-3)
    page.reload()
    expect(page.locator("canvas[data-ready=true]")).to_be_visible()
    assert zoom(page) == pytest.approx(now, rel=1e-3)
    page.keyboard.press("0")
    page.wait_for_url("**/map")


def test_lasso_feeds_the_grid(browser: Browser, served: str) -> None:
    with pages_at(browser, served) as open_:
        page = open_("/map", width=360, permissions=["clipboard-read", "clipboard-write"])
        page.wait_for_selector("canvas[data-ready=true]")
        page.get_by_role("button", name="Select").click()
        circle(page, *spots(page)["middle"], 55)
        expect(page.get_by_role("heading", name="80 pictures selected")).to_be_visible()
        tiles = page.locator(".map-selection .grid > li")
        expect(tiles).to_have_count(60)
        page.get_by_role("button", name="20 more").click()
        expect(tiles).to_have_count(80)
        assert {int(id_) % 3 for id_ in tiles.evaluate_all("(all) => all.map((tile) => tile.dataset.id)")} == {2}
        assert fits(page)
        page.get_by_role("button", name="Copy paths").click()
        until(page, "navigator.clipboard.readText().then((text) => text.split('\\n').length === 80)")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download list").click()
        assert len(download.value.path().read_text().splitlines()) == 80
        liked = page.get_by_role("link", name="Find more like these").get_attribute("href") or ""
        assert {int(id_) % 3 for id_ in re.findall(r"like=(\d+)", liked)} == {2}
        page.get_by_role("link", name="Open as a page").click()
        page.wait_for_url("**/?ids=*")
        expect(page.locator("#main")).to_contain_text("80")


def test_by_keys(open_map: OpenPage) -> None:
    page = open_map()
    page.keyboard.press("+")
    expect(page.locator("canvas")).to_be_focused()
    page.keyboard.press("v")
    expect(page.locator(".map-selection h2")).to_contain_text("in view")
    page.keyboard.press("Escape")
    expect(page.locator(".map-selection")).to_be_hidden()
    page.keyboard.press("s")
    expect(page.get_by_role("button", name="Select")).to_have_attribute("aria-pressed", "true")
    page.locator("[data-part=colour]").press("0")  # in a field, keys type text
    assert zoom(page) > 1
    page.locator("canvas").focus()
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/search\?id=\d+"))


def test_legend_entries_select_their_images(open_map: OpenPage) -> None:
    page = open_map(color_scheme="light")
    swatch = page.locator(".map-key i").first
    light = swatch.evaluate("(swatch) => getComputedStyle(swatch).backgroundColor")
    page.evaluate("() => setInterval(() => document.querySelector('.map-key button').click())")
    page.emulate_media(color_scheme="dark")  # noticed, although colours are read all the time
    expect(swatch).not_to_have_css("background-color", light)
    page.reload()
    page.wait_for_selector("canvas[data-ready=true]")
    page.get_by_role("button", name="green 80").press("Enter")
    expect(page.get_by_role("heading", name="green, 80 pictures")).to_be_visible()
    assert shown(page) > 0
    page.select_option("[data-part=colour]", "Group")
    expect(page.locator("[data-part=legend] button")).to_have_count(3)
    page.select_option("[data-part=colour]", "Picture colour")
    expect(page.locator("[data-part=legend] button")).to_have_count(0)
    assert names(page) > 0


def test_phone(open_map: OpenPage) -> None:
    page = open_map(width=360, height=740, has_touch=True, is_mobile=True)
    assert fits(page)
    page.get_by_role("button", name="List view").tap()
    expect(page.get_by_role("heading", name="240 pictures in view")).to_be_visible()
    assert fits(page)
    canvas, side = page.locator("canvas").bounding_box(), page.locator(".map-side").bounding_box()
    assert canvas is not None
    assert side is not None
    assert canvas["y"] + canvas["height"] <= side["y"] + 1
    page.get_by_role("button", name="Clear").tap()
    now = zoom(page)
    pinch(page)
    assert zoom(page) > 1.5 * now


@pytest.mark.parametrize("address", ["/groups", "/groups?cluster=1", "/groups?duplicates=1"])
def test_groups_on_a_phone(open_map: OpenPage, address: str) -> None:
    page = open_map(address, width=360, height=740)
    assert fits(page)
    page.wait_for_load_state("networkidle")
    assert page.locator("main img").first.evaluate("(image) => image.naturalWidth") > 0
    page.locator("main .group a, main a.similar").first.click()
    page.wait_for_url("**/search?id=*" if "=" in address else "**/groups?cluster=1")


@pytest.mark.parametrize("address", ["/map", "/groups"])
def test_a_phone_without_scripts(browser: Browser, served: str, address: str) -> None:
    with pages_at(browser, served) as open_:
        page = open_(address, width=360, java_script_enabled=False)
        assert fits(page)
        # The whole file input can be seen and tapped.
        field, frame = (
            page.locator("input[name=image]").bounding_box(),
            page.locator(".choose:not(.scripted)").bounding_box(),
        )
        assert field is not None
        assert frame is not None
        assert frame["width"] >= field["width"] > 100


def test_more_groups_of_near_duplicates(browser: Browser, tmp_path: Path) -> None:
    index = fill_index(tmp_path)
    store_groups(index, pairs=70)
    with serving(app_of(index, tmp_path / "cache")) as base, pages_at(browser, base) as open_:
        page = open_("/groups")
        expect(page.locator(".near .group")).to_have_count(60)
        page.keyboard.press("m")
        page.wait_for_url("**/groups?start=60")
        expect(page.locator(".near .group")).to_have_count(10)
        expect(page.locator(".more")).to_have_count(0)
    index.close()
