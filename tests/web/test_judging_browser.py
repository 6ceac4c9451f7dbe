"""+ and - on each picture, and the predicted label, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.web.browsing import OpenPage, choose, fits, ids, in_browser, pages_at, serving
from tests.web.conftest import make_app
from tests.web.fake import FakeEngine, colour_classifier

pytestmark = in_browser


@pytest.fixture(scope="module")
def engine(collection: Path) -> FakeEngine:
    engine = FakeEngine(collection)
    engine.classified_by = colour_classifier()
    return engine


@pytest.fixture(scope="module")
def base(engine: FakeEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(make_app(engine, tmp_path_factory.mktemp("app"), SAMPLE=20, DEFAULT_K=10)) as address:
        yield address


@pytest.fixture
def open_page(browser: Browser, base: str) -> Iterator[OpenPage]:
    with pages_at(browser, base) as open_:
        yield open_


def card(page: Page, at: int) -> Any:
    return page.locator(".gallery > .card").nth(at)


def judge(page: Page, at: int, action: str) -> None:
    card(page, at).locator(f".caption [data-action={action}]").click()


def test_likes_and_dislikes_change_the_ranking_at_once(open_page: OpenPage) -> None:
    page = open_page("/search?id=26&k=30")
    page.evaluate("window.same = true")  # the document stays
    before = ids(page)
    disliked, liked = before[1], before[-1]
    judge(page, 1, "dislike")
    expect(page.locator(".rule")).to_contain_text("Ranked by exemplar SVM: this picture, 1 disliked.")
    assert page.url.endswith(f"/search?id=26&k=30&dislike={disliked}")
    assert disliked not in ids(page)
    card(page, ids(page).index(liked) if liked in ids(page) else 0).scroll_into_view_if_needed()
    first = ids(page)[0]
    judge(page, 0, "like")
    expect(page.locator(".rule")).to_contain_text("this picture, 1 liked, 1 disliked.")
    expect(page.get_by_role("status")).to_contain_text("1 liked, 1 disliked")
    assert page.locator(".chosen li").evaluate_all("(all) => all.map((one) => one.id)") == [f"c{first}", f"c{disliked}"]
    shown = ids(page)
    assert page.evaluate("window.same") is True

    # The address alone gives the same ranking, to anyone.
    other = open_page(page.url)
    assert ids(other) == shown
    # Back and forward step through what was said.
    page.go_back()
    expect(page.locator(".rule")).to_contain_text("this picture, 1 disliked.")
    page.go_back()
    expect(page.locator(".rule")).to_have_count(0)
    assert ids(page) == before
    page.go_forward()
    page.go_forward()
    assert ids(page) == shown

    page.get_by_role("link", name="Rocchio").click()
    page.wait_for_url("**rule=rocchio")
    expect(page.locator(".rule")).to_contain_text("Ranked by Rocchio")
    page.locator(f"#c{disliked} a").click()
    expect(page.locator(".rule")).to_contain_text("this picture, 1 liked.")
    page.get_by_role("link", name="Take it back").click()
    expect(page.locator(".rule")).to_have_count(0)
    assert page.url.endswith("/search?id=26&k=30")
    assert ids(page) == before


def test_two_words_before_the_first_answer_both_count(open_page: OpenPage) -> None:
    page = open_page("/search?id=26&k=30")
    one, other = ids(page)[1], ids(page)[2]
    page.route("**/search?**", lambda route: None if route.request.url.endswith(f"like={one}") else route.continue_())
    judge(page, 1, "like")
    judge(page, 2, "like")
    expect(page.locator(".rule")).to_contain_text("2 liked")
    assert page.url.endswith(f"&like={one}&like={other}")
    expect(page.locator("#busy")).to_be_hidden()


def test_more_that_a_word_has_overtaken_can_be_asked_for_again(open_page: OpenPage) -> None:
    page = open_page("/search?id=26")
    held: list[Route] = []
    page.route(re.compile("k=40$"), lambda route: route.continue_() if held else held.append(route))
    page.get_by_role("link", name="Load more").click()
    expect(page.locator("#busy")).to_be_visible()
    judge(page, 1, "like")
    expect(page.locator(".rule")).to_contain_text("1 liked")
    expect(page.locator("#busy")).to_be_hidden()
    page.go_back()
    expect(page.locator(".rule")).to_have_count(0)
    page.get_by_role("link", name="Load more").click()
    expect(page.locator(".gallery > .card")).to_have_count(40)


def test_more_that_comes_first_leaves_the_word_under_way(open_page: OpenPage) -> None:
    page = open_page("/search?id=26")
    held: list[Route] = []
    page.route(re.compile("like="), lambda route: held.append(route))
    judge(page, 1, "like")
    page.get_by_role("link", name="Load more").click()
    expect(page.locator(".gallery > .card")).to_have_count(40)
    expect(page.locator("#busy")).to_be_visible()
    held[0].continue_()
    expect(page.locator(".rule")).to_contain_text("1 liked")
    expect(page.locator("#busy")).to_be_hidden()


def test_a_word_that_a_newer_search_has_overtaken_is_forgotten(open_page: OpenPage) -> None:
    page = open_page("/search?id=26")
    held: list[Route] = []
    page.route(re.compile("like="), lambda route: held.append(route))
    judge(page, 1, "like")
    expect(page.locator("#busy")).to_be_visible()
    choose(page)
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    expect(page.locator("#busy")).to_be_hidden()
    held[0].continue_()
    page.wait_for_timeout(500)  # long enough for an answer that nobody waits for
    expect(page.locator("[data-query=upload] .query-name")).to_have_text("red.png")
    expect(page.locator(".rule")).to_have_count(0)
    judge(page, 1, "like")
    expect(page.locator(".rule")).to_contain_text("this picture, 1 liked")


def test_by_keys(open_page: OpenPage) -> None:
    page = open_page("/search?id=26&k=30")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("+")
    expect(page.locator(".rule")).to_contain_text("1 liked")
    # The focus stays at the place, on the picture that has moved up.
    assert page.evaluate("document.activeElement.closest('.card').querySelector('.rank').textContent") == "2"
    page.keyboard.press("-")
    expect(page.locator(".rule")).to_contain_text("1 liked, 1 disliked")
    page.locator(".chosen a").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".rule")).to_contain_text("this picture, 1 disliked")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("More like it, less like it")


def test_an_upload_is_judged_without_leaving(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    before = ids(page)
    judge(page, 0, "dislike")
    expect(page.locator(".rule")).to_contain_text("this picture, 1 disliked")
    expect(page.locator(".query-picture")).to_have_attribute("src", re.compile("^blob:"))
    judge(page, 0, "like")
    expect(page.locator(".rule")).to_contain_text("1 liked, 1 disliked")
    page.locator(".more button").click()
    expect(page.locator(".gallery > .card")).to_have_count(40)
    page.select_option("select[name=k]", "30")
    expect(page.locator(".gallery > .card")).to_have_count(30)
    expect(page.locator(".rule")).to_contain_text("1 liked, 1 disliked")
    page.get_by_role("link", name="Rocchio").click()
    expect(page.locator(".rule")).to_contain_text("Ranked by Rocchio")
    page.get_by_role("link", name="Take all back").click()
    expect(page.locator(".rule")).to_have_count(0)
    assert ids(page)[:10] == before
    page.go_back()
    expect(page.locator(".rule")).to_contain_text("Ranked by Rocchio")


def test_what_was_loaded_of_an_upload_stays(open_page: OpenPage) -> None:
    page = open_page()
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    metric = page.get_by_role("link", name="Manhattan")
    metric.focus()
    page.keyboard.press("m")
    expect(page.locator(".gallery > .card")).to_have_count(40)
    # All that leads on from here takes the number along, and what has the focus keeps it.
    again = page.locator(".choices [data-again]").evaluate_all("(links) => links.map((link) => link.dataset.again)")
    assert len(again) > 3
    pictures = page.locator("a.picture").evaluate_all("(links) => links.map((link) => link.search)")
    assert len(pictures) == 40
    assert all("k=40" in address for address in again + pictures)
    expect(metric).to_be_focused()
    judge(page, 34, "like")
    expect(page.locator(".rule")).to_contain_text("1 liked")
    expect(page.locator(".gallery > .card")).to_have_count(40)


def test_more_that_comes_while_a_number_is_chosen(open_page: OpenPage) -> None:
    page = open_page("/search?id=26")
    held: list[Route] = []
    page.route(re.compile("k=40$"), lambda route: held.append(route))
    page.get_by_role("link", name="Load more").click()
    expect(page.locator("#busy")).to_be_visible()
    page.keyboard.press("n")
    held[0].continue_()
    expect(page.locator(".gallery > .card")).to_have_count(40)
    expect(page.locator("select[name=k]")).to_have_value("40")
    expect(page.locator("select[name=k]")).to_be_focused()


def test_on_a_phone(open_page: OpenPage) -> None:
    page = open_page("/search?id=26", width=360, height=740, has_touch=True, is_mobile=True)
    wide = next(at for at in range(1, 10) if card(page, at).locator(".caption [data-action=like]").is_visible())
    button = card(page, wide).locator(".caption [data-action=like]")
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    assert box is not None
    assert box["width"] >= 44
    # A finger a little beside it means it all the same.
    page.touchscreen.tap(box["x"] + 4, box["y"] + box["height"] + 8)
    expect(page.locator(".rule")).to_contain_text("1 liked")
    assert fits(page)
    # Of every picture, however narrow, in the sheet.
    card(page, 0).locator(".peek").tap()
    card(page, 0).get_by_text("Less like this").tap()
    expect(page.locator(".rule")).to_contain_text("1 liked, 1 disliked")
    for one in page.locator(".chosen a").all():
        size = one.bounding_box()
        assert size is not None
        assert min(size["width"], size["height"]) >= 44
    assert fits(page)


def test_without_scripts(open_page: OpenPage) -> None:
    page = open_page("/search?id=26", java_script_enabled=False)
    first = page.locator(".gallery > .card").nth(1)
    first.locator(".caption [data-action=like]").click()
    expect(page.locator(".rule")).to_contain_text("Ranked by exemplar SVM: this picture, 1 liked.")
    page.locator(".chosen a").click()
    expect(page.locator(".rule")).to_have_count(0)


def test_the_predicted_label_is_shown(open_page: OpenPage, engine: FakeEngine) -> None:
    page = open_page()
    choose(page)
    predicted = page.get_by_role("region", name="Predicted label")
    expect(predicted.locator("li").first).to_contain_text("red")
    expect(predicted.locator("li").first).to_contain_text("91")
    widths = predicted.locator(".part").evaluate_all("(bars) => bars.map((bar) => bar.getBoundingClientRect().width)")
    assert widths[0] > 5 * widths[1] > 0
    engine.classified_by = colour_classifier(stale=True)
    page.reload()
    choose(page)
    expect(page.locator(".stale")).to_contain_text("have changed since")
    engine.classified_by = colour_classifier()
