"""Several indexes in a real browser: switching, comparisons, and rows without a picture."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from searchengine.engine import open_index
from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.web.browsing import RED, TRANSFER, OpenPage, choose, fits, in_browser, serving
from tests.web.fake import FakeEngine

pytestmark = in_browser


@pytest.fixture(scope="module")
def base(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from searchengine.exchange.importing import import_features

    folder = tmp_path_factory.mktemp("several")
    (folder / "rows.csv").write_text("label,x,y\n" + "".join(f"row {i},{i},{i * i}\n" for i in range(30)))
    import_features(folder / "rows.csv", folder / "rows")
    rows = ServedEngine(open_index(folder / "rows"), name="rows")
    raw = FakeEngine(collection, name="raw", normalized=False)
    raw.index.images[1] = replace(raw.index.images[1], content_hash="0" * 32)  # is in one index only
    engines = FakeEngine(collection, name="unit"), raw, rows
    app = create_app({"CACHE_DIR": folder / "cache", "SAMPLE": 20, "DEFAULT_K": 10}, *engines)
    with serving(app) as address:
        yield address
    rows.close()


def switch(page: Page, name: str) -> None:
    page.get_by_role("button", name="Index").click()
    page.locator("#indexes").get_by_role("link", name=name, exact=True).click()
    expect(page.locator("#indexes [aria-current]")).to_have_text(name)


def compare(page: Page) -> None:
    page.get_by_role("button", name="More").click()
    page.get_by_role("link", name="Compare", exact=True).click()
    expect(page.locator(".side")).to_have_count(2)


def test_an_upload_is_kept_in_another_index_and_metric(open_page: OpenPage) -> None:
    page = open_page("/?label=red&label=orange")
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    switch(page, "raw")
    expect(page.locator("[data-query=upload]")).to_have_attribute("title", "red.png")
    expect(page.locator(".tile img").first).to_have_attribute("src", re.compile("^/i/raw/thumbnails/"))
    page.get_by_role("button", name="Ranking").click()
    page.get_by_role("link", name="cosine").click()
    page.wait_for_url("**metric=cosine*")
    choose(page, {**RED, "name": "another.png"})  # keeps the metric and the filter
    expect(page.locator("[data-query=upload]")).to_have_attribute("title", "another.png")
    assert "metric=cosine" in page.url
    expect(page.locator(".chips .chip")).to_have_count(2)
    for _ in range(3):
        page.go_back()
    expect(page.get_by_role("button", name="Index: unit")).to_be_visible()
    expect(page.locator("[data-query=upload]")).to_have_attribute("title", "red.png")


def test_side_by_side(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    page.keyboard.press("s")
    page.wait_for_url("**/compare?id=3&left=unit&right=raw")
    expect(page.locator(".side")).to_have_count(2)
    tile = page.locator(".side").first.locator(".tile.shared").nth(1)
    place = int(tile.locator(".other").inner_text())
    twin = page.locator(".side").nth(1).locator(".tile").nth(place - 1)
    assert twin.locator("img").get_attribute("alt") == tile.locator("img").get_attribute("alt")
    page.select_option("select[name=right_by]", "cosine")
    expect(page.get_by_text("cosine distance ignores")).to_be_visible()
    page.locator(".more a").click()
    expect(page.locator(".side").first.locator(".tile")).to_have_count(40)
    page.keyboard.press("s")
    page.wait_for_url("**/search?id=3&k=40")
    expect(page.locator(".chip.query")).to_be_visible()


def test_side_by_side_of_an_upload(open_page: OpenPage) -> None:
    page = open_page("/i/raw/")
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    compare(page)
    expect(page.locator("select[name=left]")).to_have_value("raw")
    expect(page.locator("select[name=right]")).to_have_value("rows")
    expect(page.locator(".side .note")).to_contain_text("without the model")
    page.select_option("select[name=right]", "unit")
    expect(page.locator(".side").nth(1).locator(".tile")).to_have_count(10)
    page.get_by_role("link", name="Show more").click()
    expect(page.locator(".side").nth(1).locator(".tile")).to_have_count(40)
    page.reload()
    expect(page.locator(".side").nth(1).locator(".tile")).to_have_count(40)
    page.get_by_role("link", name="One ranking").click()
    expect(page.locator("#indexes [aria-current]")).to_have_text("raw")
    expect(page.locator("[data-query=upload]")).to_have_attribute("title", "red.png")


def test_two_quick_choices_both_count(open_page: OpenPage) -> None:
    page = open_page("/compare?id=3&right=raw")
    first = re.compile(r"/compare\?(?!.*right_by=cosine)")
    page.route(first, lambda _: None)  # never answered
    page.select_option("select[name=left_by]", "manhattan")
    page.select_option("select[name=right_by]", "cosine")
    expect(page.locator("option[value=manhattan][selected]")).to_have_count(1)
    expect(page.locator("option[value=cosine][selected]")).to_have_count(1)
    page.unroute(first)
    page.go_back()
    expect(page.locator("select[name=left_by]")).to_have_value("euclidean")


def test_rows_without_pictures(open_page: OpenPage) -> None:
    page = open_page("/i/rows/")
    transfer = page.evaluate_handle(TRANSFER, ["red.png", "image/png", base64.b64encode(RED["buffer"]).decode()])
    page.dispatch_event(".head", "drop", {"dataTransfer": transfer})
    expect(page.get_by_role("alert")).to_contain_text("without the model")
    page.locator(".tile .similar").nth(2).click()
    expect(page.locator(".chip.query .name")).to_be_visible()
    expect(page.locator(".photo.blank")).not_to_have_count(0)
    page.keyboard.press("i")
    expect(page.locator("#indexes [aria-current]")).to_have_text("unit")


@pytest.mark.parametrize("address", ["/i/rows/", "/i/rows/search?id=3"])
def test_phone(open_page: OpenPage, address: str) -> None:
    page = open_page(address, width=360, has_touch=True, is_mobile=True)
    assert fits(page)


def test_without_scripts(open_page: OpenPage) -> None:
    page = open_page("/search?id=3", java_script_enabled=False)
    page.get_by_role("button", name="Ranking").click()
    page.get_by_role("link", name="Manhattan").click()
    page.wait_for_url("**/search?id=3&metric=manhattan")
    compare(page)
    page.select_option("select[name=left]", "raw")
    page.get_by_role("button", name="Compare these two").click()
    expect(page.get_by_text("The same 10 pictures in a different order")).to_be_visible()
