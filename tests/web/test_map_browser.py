"""The map and the groups in a real browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.browsing import OpenPage, fits, in_browser, pages_at, serving
from tests.web.mapped import COUNT, app_of, fill_index, store_groups, store_map

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
                page.wait_for_selector("canvas[data-zoom]")
            return page

        yield open_and_wait


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


def pinch(page: Page) -> None:
    """Two fingers move apart."""
    box = page.locator("canvas").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 70), ("touchEnd", None)):
        touches = [] if apart is None else [{"x": x - apart, "y": y, "id": 0}, {"x": x + apart, "y": y, "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


def test_far_points_near_pictures(open_map: OpenPage) -> None:
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


def test_coming_and_going_shows_what_coming_did(open_map: OpenPage) -> None:
    page = open_map()
    page.locator("canvas").focus()
    seen = []
    for key in ["+"] * 9 + ["-"] * 9:
        page.keyboard.press(key)
        page.wait_for_timeout(100)  # levels are worked out a few milliseconds a frame
        seen.append(shown(page))
    assert seen[:8] == seen[16:8:-1]
    assert max(seen) > 1


def test_click_searches_by_the_picture(open_map: OpenPage) -> None:
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
    # Of a point, a pointer shows the picture. While the page before still fades, the pointer meets nothing.
    over_something(page, *spots(page)["right"])
    expect(page.locator(".map-card")).to_be_visible()


def test_lasso_shows_a_selection(open_map: OpenPage) -> None:
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


def test_by_keys(open_map: OpenPage) -> None:
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


def test_phone(open_map: OpenPage) -> None:
    page = open_map(width=360, height=740, has_touch=True, is_mobile=True)
    assert fits(page)
    x, y = spots(page)["left"]
    page.touchscreen.tap(x, y)  # a finger sees first what it means
    expect(page.locator(".map-card")).to_be_visible()
    assert page.url.endswith("/map")
    page.get_by_role("button", name="List view").tap()
    expect(page.get_by_role("heading", name="240 pictures in view")).to_be_visible()
    assert fits(page)
    canvas, picked = page.locator("canvas").bounding_box(), page.locator(".picked").bounding_box()
    assert canvas is not None
    assert picked is not None
    assert canvas["y"] + canvas["height"] <= picked["y"] + 1
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
    page.locator("main li a").first.click()
    page.wait_for_url(re.compile(r"cluster=1|search\?id="))


@pytest.mark.parametrize("address", ["/map", "/groups"])
def test_a_phone_without_scripts(browser: Browser, served: str, address: str) -> None:
    with pages_at(browser, served) as open_:
        page = open_(address, width=360, java_script_enabled=False)
        assert fits(page)
        # All of the chooser can be seen and tapped.
        field, frame = page.locator("input[name=image]").bounding_box(), page.locator(".choose").bounding_box()
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
        page.wait_for_url("**/groups?n=120#near")
        expect(page.locator(".near .group")).to_have_count(70)
        expect(page.locator(".more")).to_have_count(0)
    index.close()


def test_light_and_dark(open_map: OpenPage) -> None:
    page = open_map(color_scheme="light")
    light = page.locator(".map-key i").first.evaluate("(swatch) => getComputedStyle(swatch).backgroundColor")
    page.emulate_media(color_scheme="dark")
    expect(page.locator(".map-key i").first).not_to_have_css("background-color", light)
