"""Back and Forward in a real browser: what a page says is chosen is what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from searchengine.web import create_app
from tests.web.browsing import CHROMIUM, FLAGS, OpenPage, choose, in_browser, pages_at, serving, until
from tests.web.fake import FakeEngine

pytestmark = in_browser


@pytest.fixture(scope="module")
def base(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engines = {"unit": FakeEngine(collection), "raw": FakeEngine(collection, normalized=False)}
    config = {"CACHE_DIR": tmp_path_factory.mktemp("cache"), "SAMPLE": 20, "DEFAULT_K": 10}
    with serving(create_app(config, engines=engines)) as address:
        yield address


@pytest.fixture(scope="module", params=["loaded anew", "as it was left"])
def remembering(request: pytest.FixtureRequest, browser: Browser) -> Iterator[tuple[Browser, bool]]:
    """A browser that loads a page anew on Back, and one that brings the page as it was left."""
    if request.param == "loaded anew":
        yield browser, False
        return
    with_pages = browser.browser_type.launch(
        executable_path=str(CHROMIUM), args=FLAGS, ignore_default_args=["--disable-back-forward-cache"]
    )
    yield with_pages, True
    with_pages.close()


@pytest.fixture
def open_page(browser: Browser, base: str) -> Iterator[OpenPage]:
    with pages_at(browser, base) as open_:
        yield open_


@pytest.fixture
def open_either(remembering: tuple[Browser, bool], base: str) -> Iterator[OpenPage]:
    with pages_at(remembering[0], base) as open_:
        yield open_


def back(page: Page, address: str, remembering: tuple[Browser, bool]) -> None:
    page.wait_for_load_state()
    page.go_back(wait_until="commit")  # a page that comes as it was left does not load
    until(page, f"location.href.endsWith('{address}') && document.readyState === 'complete'")
    if page.evaluate("window.same === true") is not remembering[1]:
        pytest.skip("the browser keeps pages as it sees fit")


def test_back_to_another_number(open_either: OpenPage, remembering: tuple[Browser, bool]) -> None:
    page = open_either("/search?id=3")
    page.evaluate("window.same = true")
    for _ in range(2):  # it can be chosen again
        page.select_option("select[name=k]", "30")
        page.wait_for_url("**/search?id=3&k=30")
        expect(page.locator(".card")).to_have_count(30)
        back(page, "/search?id=3", remembering)
        expect(page.locator(".card")).to_have_count(10)
        expect(page.locator("select[name=k]")).to_have_value("10")


def test_back_to_another_comparison(open_either: OpenPage, remembering: tuple[Browser, bool]) -> None:
    page = open_either("/compare?id=3")
    page.evaluate("window.same = true")
    for _ in range(2):
        page.select_option("select[name=left_by]", "manhattan")
        page.wait_for_url("**left_by=manhattan**")
        expect(page.locator("select[name=left_by]")).to_have_value("manhattan")
        back(page, "/compare?id=3", remembering)
        expect(page.locator("select[name=left_by]")).to_have_value("euclidean")


def test_back_to_the_first_page(open_either: OpenPage, remembering: tuple[Browser, bool]) -> None:
    page = open_either("/")
    page.evaluate("window.same = true")
    page.select_option("select[name=k]", "30")
    page.locator("a.picture").first.click()
    page.wait_for_url("**/search?id=1&k=30")
    back(page, "/", remembering)
    number = page.locator("select[name=k]").input_value()
    link = page.locator("a.picture").first.get_attribute("href") or ""
    assert ("k=30" in link) is (number == "30")  # and not one without the other


def test_back_to_another_number_of_an_upload(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    for _ in range(2):
        page.select_option("select[name=k]", "30")
        expect(page.locator(".card")).to_have_count(30)
        page.go_back()
        expect(page.locator(".card")).to_have_count(10)
        expect(page.locator("select[name=k]")).to_have_value("10")


def test_back_to_another_comparison_of_an_upload(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    page.get_by_role("link", name="Side by side").click()
    expect(page.locator(".side")).to_have_count(2)
    for _ in range(2):
        page.select_option("select[name=right_by]", "cosine")
        expect(page.get_by_text("cosine distance does not see")).to_be_visible()
        page.go_back()
        expect(page.get_by_text("cosine distance does not see")).to_have_count(0)
        expect(page.locator("select[name=right_by]")).to_have_value("euclidean")


def test_a_choice_that_comes_to_nothing_is_taken_back(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    page.route("**/search", lambda route: route.abort())
    page.select_option("select[name=k]", "30")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(page.locator("select[name=k]")).to_have_value("10")
    page.unroute("**/search")
    page.select_option("select[name=k]", "30")
    expect(page.locator(".card")).to_have_count(30)


def test_two_choices_before_the_first_answer_both_count(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    page.get_by_role("link", name="Side by side").click()
    expect(page.locator(".side")).to_have_count(2)
    page.route("**/compare", lambda _: None, times=1)
    page.select_option("select[name=left_by]", "manhattan")
    page.select_option("select[name=right_by]", "cosine")
    expect(page.get_by_text("cosine")).not_to_have_count(0)
    expect(page.locator(".results:not([aria-busy], .behind) select[name=right_by]")).to_have_value("cosine")
    expect(page.locator("option[value=manhattan][selected]")).to_have_count(1)
    expect(page.locator("option[value=cosine][selected]")).to_have_count(1)


def test_back_after_skipping_to_the_pictures(open_page: OpenPage) -> None:
    page = open_page("/search?id=26")
    like = page.locator(".card:nth-child(2) .caption [data-action=like]")
    like.click()
    expect(page.locator(".rule")).to_contain_text("1 liked")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**#main")
    like.click()
    expect(page.locator(".rule")).to_contain_text("2 liked")
    page.go_back()
    page.wait_for_url("**#main")
    expect(page.locator(".rule")).to_contain_text("1 liked")
    page.go_back()  # the step that the link made
    expect(page.locator(".rule")).to_contain_text("1 liked")
    page.go_back()
    expect(page.locator(".rule")).to_have_count(0)
    for _ in range(3):
        page.go_forward()
    expect(page.locator(".rule")).to_contain_text("2 liked")
