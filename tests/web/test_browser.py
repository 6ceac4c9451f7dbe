"""Searching in a real browser: uploads, drops and pastes, keys, phones, errors."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from searchengine.index.types import RunProgress
from tests.web.browsing import RED, TEXT, TRANSFER, OpenPage, choose, fits, in_browser, pages_at, ranks, serving, until
from tests.web.conftest import make_app
from tests.web.fake import FakeEngine

pytestmark = in_browser


@pytest.fixture(scope="module")
def served(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FakeEngine]]:
    engine = FakeEngine(collection)
    with serving(make_app(engine, tmp_path_factory.mktemp("app"), SAMPLE=20, DEFAULT_K=10)) as base:
        yield base, engine


@pytest.fixture
def open_page(browser: Browser, served: tuple[str, FakeEngine]) -> Iterator[OpenPage]:
    with pages_at(browser, served[0]) as open_:
        yield open_
    served[1].index.run = None


def test_an_upload_takes_every_choice_of_the_filter_along(open_page: OpenPage) -> None:
    page = open_page("/?label=blue&label=red&label=green")
    page.locator("input[type=file]").set_input_files(RED)
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    expect(page.locator(".chips li")).to_have_count(3)


def test_upload(open_page: OpenPage) -> None:
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


def test_drop_anywhere(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    transfer = page.evaluate_handle(TRANSFER, ["red.png", "image/png", base64.b64encode(RED["buffer"]).decode()])
    page.dispatch_event(".section-head", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop to search")).to_be_visible()
    page.dispatch_event(".section-head", "dragover", {"dataTransfer": transfer})
    page.dispatch_event(".section-head", "drop", {"dataTransfer": transfer})
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    expect(page.get_by_text("Drop to search")).to_be_hidden()


def test_a_picture_of_another_page_that_comes_without_a_file(open_page: OpenPage) -> None:
    page = open_page()
    stopped = page.evaluate(
        """() => {
          const dataTransfer = new DataTransfer();
          dataTransfer.setData("text/uri-list", "https://example.org/a.jpg");
          dataTransfer.setData("text/html", '<img src="https://example.org/a.jpg">');
          return ["dragenter", "dragover", "drop"].map((kind) => {
            const event = new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer });
            document.body.dispatchEvent(event);
            return event.defaultPrevented;
          });
        }"""
    )
    assert stopped == [True, True, True]
    expect(page.get_by_text("copy the picture itself and paste it")).to_be_visible()


def test_paste(open_page: OpenPage) -> None:
    page = open_page()
    transfer = page.evaluate_handle(TRANSFER, ["image.png", "image/png", base64.b64encode(RED["buffer"]).decode()])
    page.evaluate(
        "(clipboardData) => document.body.dispatchEvent(new ClipboardEvent('paste', "
        "{ clipboardData, bubbles: true, cancelable: true }))",
        transfer,
    )
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("image.png")
    expect(page.locator(".card")).to_have_count(10)


def test_click_to_search_and_share(open_page: OpenPage) -> None:
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


def test_a_number_chosen_on_the_first_page_goes_along_to_more(open_page: OpenPage) -> None:
    page = open_page()
    page.select_option("select[name=k]", "30")
    page.get_by_role("link", name="More of the collection").click()
    expect(page.locator(".card")).to_have_count(40)
    assert page.url.endswith("/?n=40&k=30")
    links = page.locator("a.picture").evaluate_all("(links) => links.map((link) => link.search)")
    assert all(link.endswith("&k=30") for link in links)


@pytest.mark.parametrize("address", ["/", "/search?id=3", "/search?id=4711"])
def test_phone(open_page: OpenPage, address: str) -> None:
    page = open_page(address, width=360, height=740, has_touch=True, is_mobile=True)
    assert fits(page)
    choose(page)
    expect(page.locator(".results[data-query=upload]")).to_be_visible()
    assert fits(page)
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


def test_errors_come_in_words(open_page: OpenPage) -> None:
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
    page.route("**/search", lambda route: route.fulfill(status=413, body="<h1>413 Request Entity Too Large</h1>"))
    choose(page)  # a proxy in front says so, in its own way
    expect(alert).to_contain_text("a proxy in front of it, takes no file this large")
    page.unroute("**/search")
    choose(page)
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_waiting_shows_the_picture_and_can_be_stopped(open_page: OpenPage) -> None:
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


def test_pictures_that_were_searched_by_are_let_go_of(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(
        """() => {
          window.held = new Set();
          const { createObjectURL, revokeObjectURL } = URL;
          URL.createObjectURL = (file) => {
            const address = createObjectURL(file);
            held.add(address);
            return address;
          };
          URL.revokeObjectURL = (address) => {
            held.delete(address);
            revokeObjectURL(address);
          };
        }"""
    )
    shown = "document.querySelector('.query-picture').naturalWidth === 200"
    for name in ("one.png", "other.png"):
        choose(page, {**RED, "name": name})
        expect(page.locator("[data-query=upload] .query-name")).to_have_text(name)
        expect(page.locator(".query-picture")).to_have_attribute("src", re.compile("^blob:"))
        until(page, "held.size === 0")
        assert page.evaluate(shown)
    page.go_back()
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("one.png")
    assert page.evaluate(shown)


def test_only_the_latest_views_are_held(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate(
        """async () => {
          window.same = true; // the document stays
          const { showPage } = await import(document.querySelector("link[href$='/pages.js']").href);
          for (let step = 1; step <= 40; step += 1) showPage(document.cloneNode(true), `/?step=${step}`);
        }"""
    )
    page.evaluate("history.go(-24)")
    until(page, "location.search === '?step=16'")
    assert page.evaluate("window.same") is True
    page.evaluate("history.go(-1)")
    until(page, "location.search === '?step=15' && window.same === undefined")
    expect(page.get_by_text("From the collection")).to_be_visible()


def test_keyboard(open_page: OpenPage) -> None:
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


def test_without_scripts(open_page: OpenPage) -> None:
    page = open_page("/", width=360, java_script_enabled=False)
    assert fits(page)
    label = page.locator(".choose").bounding_box()
    assert label is not None
    assert label["x"] >= 0
    expect(page.get_by_role("button", name="Keys")).to_be_hidden()
    choose(page)
    page.select_option("select[name=k]", "30")
    page.locator("form.upload").get_by_role("button", name="Search").click()
    expect(page.locator(".card")).to_have_count(30)
    assert fits(page)
    expect(page.locator(".query-picture")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    assert page.locator(".query-picture").evaluate("(image) => image.naturalWidth") > 0
    page.locator(".card .picture").first.click()
    expect(page.get_by_text("this picture")).to_be_visible()
    page.get_by_role("link", name="Load more").click()
    expect(page.locator(".card")).to_have_count(15)  # those after the 30
    page.get_by_role("link", name="From the first").click()
    expect(page.locator(".card")).to_have_count(30)
    choose(page, TEXT)
    page.locator("form.upload").get_by_role("button", name="Search").click()
    expect(page.get_by_text("not an image")).to_be_visible()


def test_a_first_run_is_followed(open_page: OpenPage, served: tuple[str, FakeEngine]) -> None:
    engine = served[1]
    engine.index.run = RunProgress(4000, 20000, active=True)
    page = open_page("/")
    expect(page.get_by_text("4 000 of 20 000 so far")).to_be_visible()
    engine.index.run = RunProgress(4500, 20000, active=True)
    expect(page.get_by_text("4 500 of 20 000 so far")).to_be_visible()


def test_dark_and_light_follow_the_system(open_page: OpenPage) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = open_page("/", color_scheme="light").evaluate(background)
    dark = open_page("/", color_scheme="dark").evaluate(background)
    assert light == "rgb(251, 251, 251)"
    assert dark == "rgb(19, 19, 19)"
