"""Several indexes in a real browser: switching, side by side, and rows without a picture."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.web.browsing import RED, TRANSFER, OpenPage, choose, fits, in_browser, pages_at, serving
from tests.web.fake import FakeEngine

pytestmark = in_browser


@pytest.fixture(scope="module")
def base(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from searchengine.exchange.importing import import_features

    folder = tmp_path_factory.mktemp("several")
    (folder / "rows.csv").write_text("label,x,y\n" + "".join(f"row {i},{i},{i * i}\n" for i in range(30)))
    import_features(folder / "rows.csv", folder / "rows")
    rows = ServedEngine.open(folder / "rows")
    raw = FakeEngine(collection, normalized=False)
    raw.index.images[1] = replace(raw.index.images[1], content_hash="0" * 32)  # is in one of them only
    engines = {"unit": FakeEngine(collection), "raw": raw, "rows": rows}
    app = create_app({"CACHE_DIR": folder / "cache", "SAMPLE": 20, "DEFAULT_K": 10}, engines=engines)
    with serving(app) as address:
        yield address
    rows.close()


@pytest.fixture
def open_page(browser: Browser, base: str) -> Iterator[OpenPage]:
    with pages_at(browser, base) as open_:
        yield open_


def tab(page: Page, name: str) -> None:
    page.locator(".indexes").get_by_role("link", name=name, exact=True).click()


def test_an_upload_goes_along_to_another_index_and_metric(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    tab(page, "raw")
    expect(page.locator(".indexes [aria-current]")).to_have_text("raw")
    expect(page.locator(".results:not([aria-busy]) .query-name")).to_have_text("red.png")
    expect(page.locator(".card img").first).to_have_attribute("src", re.compile("^/i/raw/thumbnails/"))
    page.keyboard.press("r")
    expect(page.locator(".by [aria-current]")).to_have_text("cosine")
    # The number and another picture keep the metric.
    page.select_option("select[name=k]", "30")
    expect(page.locator(".card")).to_have_count(30)
    expect(page.locator(".by [aria-current]")).to_have_text("cosine")
    page.locator(".more .button").click()
    expect(page.locator(".card")).to_have_count(45)
    for _ in range(3):
        page.go_back()
    expect(page.locator(".indexes [aria-current]")).to_have_text("unit")
    expect(page.locator(".results:not([aria-busy]) .query-name")).to_have_text("red.png")


def test_what_was_loaded_of_an_upload_goes_along(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    page.locator(".more .button").click()
    expect(page.locator(".card")).to_have_count(40)
    tab(page, "raw")
    expect(page.locator(".indexes [aria-current]")).to_have_text("raw")
    expect(page.locator(".card")).to_have_count(40)


def test_side_by_side(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    page.keyboard.press("s")
    page.wait_for_url("**/compare?id=3&left=unit&right=raw")
    expect(page.locator(".side")).to_have_count(2)
    card = page.locator(".side").first.locator(".card.shared").nth(1)
    place = int(card.locator(".other").inner_text())
    card.hover()
    twin = page.locator(".side").nth(1).locator(".card").nth(place - 1)
    expect(twin).to_have_class(re.compile("twin"))
    assert twin.locator(".name").text_content() == card.locator(".name").text_content()
    page.select_option("select[name=right_by]", "cosine")
    expect(page.get_by_text("cosine distance does not see")).to_be_visible()
    page.locator(".more a").click()
    expect(page.locator(".side").first.locator(".card")).to_have_count(40)
    page.wait_for_load_state()  # another document: its keys are there once its scripts are
    page.keyboard.press("s")
    page.wait_for_url("**/search?id=3&k=40")


def test_side_by_side_of_an_upload(open_page: OpenPage) -> None:
    page = open_page("/i/raw/")
    choose(page)
    page.get_by_role("link", name="Side by side").click()
    expect(page.locator("select[name=left]")).to_have_value("raw")
    expect(page.locator("select[name=right]")).to_have_value("rows")
    expect(page.locator(".side .nothing-close")).to_contain_text("without the model")
    page.select_option("select[name=right]", "unit")
    expect(page.locator(".side").nth(1).locator(".card")).to_have_count(10)
    page.get_by_role("link", name="Load more").click()
    expect(page.locator(".side").nth(1).locator(".card")).to_have_count(40)
    choose(page, {**RED, "name": "another.png"})
    expect(page.locator(".results:not([aria-busy]) .query-name")).to_have_text("another.png")
    expect(page.locator("select[name=right]")).to_have_value("unit")
    page.get_by_role("link", name="One ranking").click()
    expect(page.locator(".indexes [aria-current]")).to_have_text("raw")


def test_rows_without_pictures(open_page: OpenPage) -> None:
    page = open_page("/i/rows/")
    transfer = page.evaluate_handle(TRANSFER, ["red.png", "image/png", base64.b64encode(RED["buffer"]).decode()])
    page.dispatch_event(".section-head", "drop", {"dataTransfer": transfer})
    expect(page.get_by_role("alert")).to_contain_text("without the model")
    page.locator(".picture.blank").nth(2).click()
    expect(page.get_by_text("a row without a picture")).to_be_visible()
    expect(page.locator(".card")).to_have_count(10)
    page.wait_for_load_state()
    page.keyboard.press("i")
    expect(page.locator(".indexes [aria-current]")).to_have_text("unit")


@pytest.mark.parametrize("address", ["/compare?id=3", "/search?id=3", "/i/rows/", "/i/rows/search?id=3"])
def test_phone(open_page: OpenPage, address: str) -> None:
    page = open_page(address, width=360, has_touch=True, is_mobile=True)
    assert fits(page)


def test_without_scripts(open_page: OpenPage) -> None:
    page = open_page("/search?id=3", java_script_enabled=False)
    page.get_by_role("link", name="Manhattan").click()
    page.wait_for_url("**/search?id=3&metric=manhattan")
    page.get_by_role("link", name="Side by side").click()
    page.select_option("select[name=left]", "raw")
    page.get_by_role("button", name="Show these two").click()
    expect(page.get_by_text("The same 10 pictures, in another order")).to_be_visible()
