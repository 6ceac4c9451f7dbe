"""The viewer and the choice of a part in a real browser: by pointer, by keys, and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.web.browsing import OpenPage, in_browser, serving, until
from tests.web.conftest import encoded, make_app
from tests.web.fake import COLOURS, FakeEngine, draw, draw_collection

pytestmark = in_browser

LARGE, SCAN = 1, 2  # ids
SHOWN = "document.querySelector('.pswp__item[aria-hidden=false] .pswp__img:not(.pswp__img--placeholder)')"
GROUND = f"getComputedStyle({SHOWN}).backgroundImage"
SHOWN_WIDTH = f"{SHOWN}.getBoundingClientRect().width"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("viewed")
    photos = draw_collection(folder / "photos", 30)
    draw(COLOURS["red"], (6000, 3000)).save(photos / "a large one.jpg")
    draw(COLOURS["red"], (3000, 400)).save(photos / "a scan.tif")
    with serving(make_app(FakeEngine(photos), folder, SAMPLE=20, DEFAULT_K=10)) as address:
        yield address


def viewer_of(page: Page) -> Locator:
    """Return the viewer, once it is ready."""
    viewer = page.get_by_role("dialog").and_(page.locator(".pswp"))
    expect(viewer).to_be_visible()
    until(page, "document.activeElement.closest('.pswp') !== null")
    return viewer


def ids(page: Page) -> list[str]:
    return page.locator(".grid > .tile").evaluate_all("(tiles) => tiles.map((tile) => tile.dataset.id)")


def drag(page: Page, frame: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag from one place in a frame to another, given as fractions of it."""
    box = frame.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=3)
    page.mouse.up()


def box_of(page: Page) -> list[float]:
    return [float(side) for side in page.url.split("box=")[1].split("&")[0].replace("%2C", ",").split(",")]


@pytest.mark.parametrize(("width", "height"), [(360, 740), (1440, 900)])
def test_a_photo_is_opened_viewed_and_closed(open_page: OpenPage, width: int, height: int) -> None:
    page = open_page("/search?id=3", width=width, height=height)
    tile, other = page.locator(".tile").nth(1), page.locator(".tile").nth(2)
    address, name = page.url, tile.locator("img").get_attribute("alt")
    tile.locator(".photo").click()
    viewer = viewer_of(page)
    expect(viewer).to_have_attribute("aria-modal", "true")
    expect(viewer).to_have_accessible_name(name or "")
    expect(page.locator("main")).to_have_attribute("inert", "")
    assert page.url == f"{address}#view={tile.get_attribute('data-id')}"
    if width < 900:
        viewer.get_by_role("button", name="Details").click()
    facts = viewer.locator("dl")
    expect(facts).to_contain_text(re.compile(r"/photos/\w+/\w+ \d+\.png"))
    expect(facts).to_contain_text(re.compile(r"\d+ . \d+ pixels, [\d.]+ .?B, PNG"))
    expect(facts).to_contain_text(re.compile(r"Score[\d.]+, distance"))
    expect(viewer.get_by_role("button", name="Copy path")).to_have_attribute("data-copy", re.compile("^/.*png$"))
    expect(viewer.get_by_role("link", name="Download")).to_have_attribute("href", re.compile(r"/images/\d+\?download"))

    page.keyboard.press("c")
    expect(page.locator("#toast")).to_have_text(re.compile("^Copied: /.*png$"))

    before = page.evaluate(SHOWN_WIDTH)
    page.keyboard.press("z")
    until(page, f"{SHOWN_WIDTH} > 1.5 * {before}")
    page.keyboard.press("z")
    until(page, f"{SHOWN_WIDTH} < 1.1 * {before}")
    page.keyboard.press("ArrowRight")
    expect(viewer).to_have_accessible_name(other.locator("img").get_attribute("alt") or "")
    for _ in range(16):  # nothing else takes the focus
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('.pswp')")
    page.go_back()
    expect(viewer).to_have_count(0)
    expect(other.locator(".photo")).to_be_focused()
    assert page.url == address

    page.keyboard.press("Enter")
    viewer_of(page)
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    expect(other.locator(".photo")).to_be_focused()
    until(page, f"location.href === {address!r}")

    liked = f"{address}&like={other.get_attribute('data-id')}"
    page.keyboard.press("Enter")
    viewer_of(page).get_by_role("button", name="More like this").click()
    expect(page).to_have_url(liked)
    expect(viewer).to_have_count(0)
    expect(page.locator("main")).not_to_have_attribute("inert", "")


def test_find_similar_and_back_to_the_photo(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    page.locator(".tile .photo").nth(2).click()
    viewer = viewer_of(page)
    shown = page.url
    page.keyboard.press("f")
    page.wait_for_url(re.compile(r"/search\?id=\d+$"))
    expect(viewer).to_have_count(0)
    expect(page.locator("main")).not_to_have_attribute("inert", "")
    page.go_back()
    viewer_of(page)
    assert page.url == shown
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)


def test_the_viewer_loads_more_photos(open_page: OpenPage) -> None:
    page = open_page("/search?id=3", height=300)
    page.locator(".tile .photo").nth(1).click()
    viewer = viewer_of(page)
    for number in range(3, 15):
        page.keyboard.press("ArrowRight")
        expect(viewer.locator(".pswp__counter")).to_have_text(re.compile(f"^{number} / "))
    assert page.url.endswith(f"#view={ids(page)[13]}")
    page.reload()  # the page has fewer photos again
    expect(viewer.locator(".pswp__counter")).to_have_text("1 / 1")
    viewer_of(page)
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)
    until(page, "!location.hash")


def test_an_address_with_a_photo_opens_it(open_page: OpenPage) -> None:
    page = open_page("/#view=4")
    viewer = viewer_of(page)
    expect(viewer).to_have_accessible_name(re.compile("png"))
    page.goto("/#view=12345")
    expect(page.locator(".tile").first).to_be_visible()
    expect(viewer).to_have_count(0)


@pytest.mark.parametrize("image_id", [LARGE, SCAN])
def test_a_phone_loads_a_large_original_only_for_zooming(open_page: OpenPage, image_id: int) -> None:
    page = open_page("/", width=360, height=740, device_scale_factor=2, has_touch=True, is_mobile=True)
    held: list[Route] = []
    released: list[bool] = []
    page.route("**/previews/*", lambda route: route.continue_() if released else held.append(route))
    page.locator(f"#i{image_id} .photo").tap()
    viewer = viewer_of(page)
    until(page, f"{SHOWN} !== null")
    assert page.evaluate(GROUND) == "none"  # meanwhile the thumbnail is shown
    released.append(True)
    for route in held:
        route.continue_()
    until(page, f"{SHOWN}?.complete && {SHOWN}.currentSrc.includes('/previews/{image_id}')")
    until(page, f"{GROUND} !== 'none'")
    viewer.get_by_role("button", name="Zoom").click()
    until(page, f"{SHOWN}.complete && {SHOWN}.currentSrc.includes('/images/{image_id}')")
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)


def test_a_part_of_the_query(open_page: OpenPage) -> None:
    page = open_page("/search?id=3&like=5", width=1440, height=900)
    crop = page.get_by_role("dialog", name="Search with a part")
    page.locator(".chip.query [data-crop]").click()
    expect(crop.get_by_role("button", name="Search with this part")).to_be_disabled()
    drag(page, crop.locator(".frame"), (0.25, 0.2), (0.75, 0.6))  # releasing the mouse searches at once
    page.wait_for_url("**/search?*box=*")
    assert box_of(page) == pytest.approx([0.25, 0.2, 0.5, 0.4], abs=0.02)
    assert "like=5" in page.url
    expect(crop).to_have_count(0)

    # With keys: the top left corner is focused first.
    page.locator(".chip.query [data-crop]").press("Enter")
    expect(crop.get_by_role("button", name="top left")).to_be_focused()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    crop.get_by_role("button", name="bottom right").press("Shift+ArrowUp")
    expect(crop.locator("output")).to_have_text("40 % of its width, 29 % of its height")
    crop.get_by_role("button", name="The part").press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda address: "box=0.36" in address)
    assert box_of(page) == pytest.approx([0.36, 0.21, 0.4, 0.29], abs=0.02)

    page.locator(".chip.query [data-crop]").click()
    expect(crop.locator(".frame")).to_be_visible()
    page.keyboard.press("Escape")
    expect(crop).to_have_count(0)
    expect(page.locator(".chip.query [data-crop]")).to_be_focused()
    page.locator(".chip.query [data-crop]").click()
    crop.get_by_role("button", name="Whole picture").click()
    page.wait_for_url(lambda address: "box=" not in address)


def test_a_part_of_a_photo_in_the_viewer(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    page.locator(".tile .photo").nth(1).click()
    viewer = viewer_of(page)
    page.keyboard.press("x")
    crop = page.get_by_role("dialog", name="Search with a part")
    expect(crop.get_by_role("button", name="top left")).to_be_focused()
    page.keyboard.press("Escape")  # closes only the dialog
    expect(crop).to_have_count(0)
    expect(viewer).to_be_visible()
    page.keyboard.press("x")
    expect(crop.get_by_role("button", name="top left")).to_be_focused()
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search?id=*box=*")
    assert box_of(page) == [0, 0.1, 1, 0.9]
    expect(viewer).to_have_count(0)


def test_a_finger_moves_the_corners(open_page: OpenPage) -> None:
    page = open_page("/search?id=3", width=360, height=740, has_touch=True, is_mobile=True)
    page.locator(".chip.query [data-crop]").tap()
    crop = page.get_by_role("dialog", name="Search with a part")
    frame = crop.locator(".frame")
    expect(frame).to_be_visible()
    corner = crop.get_by_role("button", name="bottom right")
    size = corner.bounding_box()
    assert size is not None
    assert min(size["width"], size["height"]) >= 44
    box = frame.bounding_box()
    assert box is not None
    right, bottom = box["x"] + box["width"], box["y"] + box["height"]
    session = page.context.new_cdp_session(page)
    for kind, x, y in (("Start", right, bottom), ("Move", right - box["width"] / 2, bottom), ("End", None, None)):
        points = [] if x is None else [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    expect(crop.locator("output")).to_have_text("50 % of its width, 100 % of its height")
    crop.get_by_role("button", name="Search with this part").click()  # a tap this soon would only stop the fling
    page.wait_for_url("**/search?*box=*")
    assert box_of(page) == pytest.approx([0, 0, 0.5, 1], abs=0.02)


def test_a_part_of_an_upload(open_page: OpenPage) -> None:
    page = open_page("/")
    picture = encoded(draw(COLOURS["blue"], (200, 150)))
    page.set_input_files("input[name=image]", {"name": "mine.png", "mimeType": "image/png", "buffer": picture})
    page.wait_for_url("**/search?upload=*")
    page.locator(".chip.query [data-crop]").click()
    crop = page.get_by_role("dialog", name="Search with a part")
    expect(crop.locator(".frame")).to_be_visible()
    drag(page, crop.locator(".frame"), (0.5, 0.5), (0.9, 0.9))
    page.wait_for_url("**/search?*box=*")
    assert box_of(page) == pytest.approx([0.5, 0.5, 0.4, 0.4], abs=0.02)
    expect(page.locator(".chip.query [data-crop]")).to_have_attribute("aria-pressed", "true")
