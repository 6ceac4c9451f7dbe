"""Queries in a real browser, on a phone and on a desktop: by a picture, words, likes and filters."""

from __future__ import annotations

import base64
import re
from typing import Any

from playwright.sync_api import Page, Route, expect

from tests.web.browsing import (
    PHONE,
    RED,
    TEXT,
    TRANSFER,
    OpenPage,
    both_sizes,
    choose,
    facts,
    fits,
    ids,
    in_browser,
    judge,
)

pytestmark = in_browser


def search_by_words(page: Page, words: str) -> None:
    page.locator("#bar [name=q]").fill(words)
    page.keyboard.press("Enter")


# -- a picture ------------------------------------------------------------------------------------------------------


@both_sizes
def test_an_upload_from_start_to_end(open_page: OpenPage, size: dict[str, Any]) -> None:
    page = open_page("/?label=red&label=blue", **size)
    page.evaluate("window.same = true")
    choose(page)
    chip = page.locator(".chip.query[data-query=upload]")
    expect(chip).to_have_attribute("title", "red.png")
    key = chip.get_attribute("data-key")
    expect(page).to_have_url(re.compile(rf"/search\?label=red&label=blue&upload={key}$"))  # the filter is kept
    assert "red.png" in page.title()
    shown = ids(page)
    judge(page, 0, "like")
    facts(page).to_contain_text("1 liked")
    expect(page).to_have_url(re.compile(rf"upload={key}.*&like={shown[0]}$"))
    page.go_back()
    facts(page).not_to_contain_text("liked")
    assert ids(page)[: len(shown)] == shown
    assert page.evaluate("window.same") is True
    page.reload()  # the browser has kept the file
    expect(chip).to_be_visible()
    expect(page.locator(".tile")).not_to_have_count(0)
    assert ids(page)[: len(shown)] == shown
    chip.get_by_role("link", name="Remove the picture").click()
    expect(page).to_have_url(re.compile(r"/\?label=red&label=blue$"))
    assert fits(page)


def test_drop_and_paste(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    data = base64.b64encode(RED["buffer"]).decode()
    transfer = page.evaluate_handle(TRANSFER, ["dropped.png", "image/png", data])
    page.dispatch_event(".head", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop to search")).to_be_visible()
    page.dispatch_event(".head", "dragover", {"dataTransfer": transfer})
    page.dispatch_event(".head", "drop", {"dataTransfer": transfer})
    expect(page.locator(".chip.query")).to_have_attribute("title", "dropped.png")
    expect(page.get_by_text("Drop to search")).to_be_hidden()
    transfer = page.evaluate_handle(TRANSFER, ["pasted.png", "image/png", data])
    page.evaluate(
        "(clipboardData) => document.body.dispatchEvent(new ClipboardEvent('paste', "
        "{ clipboardData, bubbles: true, cancelable: true }))",
        transfer,
    )
    expect(page.locator(".chip.query")).to_have_attribute("title", "pasted.png")


def test_an_upload_that_this_browser_does_not_keep(open_page: OpenPage) -> None:
    page = open_page("/search?upload=0123456789abcdef&label=red")
    expect(page.get_by_role("heading", name="Choose the picture again")).to_be_visible()
    choose(page)
    expect(page.locator(".chips .chip")).to_have_text(["red"])


# -- likes ----------------------------------------------------------------------------------------------------------


def test_likes_and_dislikes_change_the_ranking_at_once(open_page: OpenPage) -> None:
    page = open_page("/search?id=26&k=30", **PHONE)
    page.evaluate("window.same = true")  # the document stays
    before = ids(page)[:29]
    judge(page, 1, "dislike")
    facts(page).to_contain_text("1 disliked")
    expect(page.get_by_role("heading", name="Ranked by what you disliked")).to_be_visible()
    assert page.url.endswith(f"/search?id=26&k=30&dislike={before[1]}")
    assert before[1] not in ids(page)
    assert page.locator(".query-chips").evaluate("(chips) => chips.scrollWidth <= chips.clientWidth")
    first = ids(page)[0]
    judge(page, 0, "like")
    facts(page).to_contain_text("1 liked, 1 disliked")
    assert page.locator(".query-chips").evaluate("(chips) => chips.scrollWidth <= chips.clientWidth")  # none is cut off
    assert page.locator("#bar a.chip").evaluate_all("(chips) => chips.map((chip) => chip.id)") == [
        f"c{first}",
        f"c{before[1]}",
    ]
    shown = ids(page)[:28]
    assert page.evaluate("window.same") is True
    assert ids(open_page(page.url, **PHONE))[:28] == shown  # the address alone gives the same ranking, to anyone
    page.go_back()  # and steps through the likes
    facts(page).not_to_contain_text("1 liked")
    page.go_back()
    facts(page).not_to_contain_text("disliked")
    assert page.evaluate("document.activeElement !== document.body")
    assert ids(page)[:29] == before
    page.go_forward()
    page.go_forward()
    facts(page).to_contain_text("1 liked, 1 disliked")
    page.locator(f"#c{before[1]}").click()
    facts(page).not_to_contain_text("disliked")
    page.get_by_role("link", name="Clear", exact=True).click()
    facts(page).not_to_contain_text("liked")
    assert page.url.endswith("/search?id=26&k=30")


def test_two_quick_likes_both_count(open_page: OpenPage) -> None:
    page = open_page("/search?id=26&k=30")
    one, other = ids(page)[:2]
    held: list[Route] = []
    page.route(re.compile(f"like={one}$"), lambda route: held.append(route))
    judge(page, 0, "like")
    judge(page, 1, "like")
    facts(page).to_contain_text("2 liked")
    assert page.url.endswith(f"&like={one}&like={other}")
    expect(page.locator("#busy")).to_be_hidden()


def test_show_more_works_after_a_like_interrupted_it(open_page: OpenPage) -> None:
    page = open_page("about:blank")
    held: list[Route] = []
    page.route(re.compile("cursor="), lambda route: route.continue_() if held else held.append(route))
    page.goto("/search?id=26")
    expect(page.locator("#busy")).to_be_visible()
    judge(page, 1, "like")
    facts(page).to_contain_text("1 liked")
    page.go_back()
    facts(page).not_to_contain_text("liked")
    expect(page.locator(".tile")).not_to_have_count(10)


# -- words, filters -------------------------------------------------------------------------------------------------


def test_an_error_keeps_what_was_typed(open_page: OpenPage) -> None:
    page = open_page("/search?id=3&label=blue")
    search_by_words(page, "a red thing")
    expect(page.get_by_role("alert")).to_contain_text("is no colour")
    expect(page.locator("#bar [name=q]")).to_have_value("a red thing")
    expect(page.locator(".chip.query")).to_be_visible()
    assert ids(page)


def test_words_a_picture_likes_and_a_filter_combine(open_page: OpenPage) -> None:
    page = open_page("/?label=orange&label=red&label=yellow")
    search_by_words(page, "yellow")
    expect(page.get_by_role("heading", name="Best match first")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/search\?label=orange&label=red&label=yellow&q=yellow$"))
    colours = "(tiles) => tiles.map((tile) => tile.querySelector('img').alt.split(' ')[0])"
    assert set(page.locator(".tile").evaluate_all(colours)[:5]) == {"yellow"}
    expect(page.locator(".tile .rank").first).to_be_visible()
    choose(page)  # red and yellow: orange
    expect(page.locator(".chip.query")).to_be_visible()
    expect(page.locator("#bar [name=q]")).to_have_value("yellow")
    assert set(page.locator(".tile").evaluate_all(colours)[:5]) == {"orange"}
    judge(page, 0, "like")
    facts(page).to_contain_text("1 liked")
    expect(page.locator("#bar [name=q]")).to_have_value("yellow")
    expect(page.locator(".chips .chip")).to_have_count(3)
    page.locator("#bar [name=q]").fill("")
    page.keyboard.press("Enter")
    expect(page).not_to_have_url(re.compile("q="))
    expect(page.locator(".chip.query")).to_be_visible()
    facts(page).to_contain_text("1 liked")


@both_sizes
def test_filters(open_page: OpenPage, size: dict[str, Any]) -> None:
    page = open_page("/search?id=3", **size)
    phone = size is PHONE
    if phone:
        page.get_by_role("button", name="Filters").click()
    panel = page.locator("#filters")
    panel.get_by_role("checkbox", name="red").check()
    if phone:
        panel.get_by_role("checkbox", name="Hide near-duplicates").check()
        panel.get_by_role("button", name="Show pictures").click()
        expect(page).to_have_url(re.compile(r"/search\?id=3&distinct=1&label=red$"))
        expect(panel).to_be_hidden()
        facts(page).to_contain_text(re.compile(r"\d+ of \d+ pictures"))
    else:
        expect(page).to_have_url(re.compile(r"/search\?id=3&label=red$"))
        expect(panel.get_by_role("checkbox", name="red")).to_be_focused()
        panel.get_by_role("checkbox", name="blue").check()
        expect(page.locator(".chips .chip")).to_have_text(["red", "blue"])
    page.locator(".chips .chip").first.click()
    expect(page.locator(".chip.query")).to_be_visible()
    expect(page.locator(".chips .chip")).to_have_count(0 if phone else 1)
    assert fits(page)


# -- errors, and no scripts ------------------------------------------------------------------------------------------


def test_errors_are_shown_as_messages(open_page: OpenPage) -> None:
    page = open_page("/search?id=3&k=6")
    alert = page.get_by_role("alert")
    choose(page, TEXT)
    expect(alert).to_contain_text("not an image")
    expect(page.locator(".tile")).not_to_have_count(0)  # the results stay
    choose(page, {**RED, "buffer": bytes(1_500_000)})
    expect(alert).to_contain_text("larger than 1 MB")
    page.route("**/search", lambda route: route.abort())
    choose(page)
    expect(alert).to_contain_text("The server does not respond")
    page.unroute("**/search")
    page.route("**/search", lambda route: route.fulfill(status=413, body="<h1>413 Request Entity Too Large</h1>"))
    choose(page)  # as from a proxy
    expect(alert).to_contain_text("a proxy in front of it, does not accept such a large file")
    page.unroute("**/search")
    choose(page)
    expect(page.locator(".chip.query")).to_have_attribute("title", "red.png")
    expect(alert).to_be_hidden()


def test_a_search_can_be_stopped(open_page: OpenPage) -> None:
    page = open_page("/")
    held: list[Route] = []
    page.route("**/search", lambda route: held.append(route))
    choose(page)
    expect(page.locator("#busy")).to_be_visible()
    page.keyboard.press("Escape")
    page.unroute("**/search")
    expect(page.locator("#busy")).to_be_hidden()
    expect(page.get_by_role("heading", name="All pictures")).to_be_visible()


def test_without_scripts(open_page: OpenPage) -> None:
    page = open_page("/?label=red&label=orange", java_script_enabled=False, **PHONE)
    assert fits(page)
    choose(page)
    page.get_by_role("button", name="Search with this picture").click()
    expect(page.locator(".chip.query")).to_have_attribute("title", "red.png")
    expect(page.locator(".chips .chip")).to_have_text(["red", "orange"])
    assert fits(page)
    page.locator(".tile .photo").first.click()
    expect(page.locator(".chip.query[data-query=id]")).to_be_visible()
    page.locator(".tile [data-judge=like]").first.click()
    facts(page).to_contain_text("1 liked")
    page.locator("#bar a.chip").click()
    facts(page).not_to_contain_text("liked")
    page.get_by_role("button", name="Filters").click()
    page.locator("#filters").get_by_role("checkbox", name="red").uncheck()
    page.get_by_role("button", name="Show pictures").click()
    expect(page.locator(".chips .chip")).to_have_text(["orange"])
    assert page.url.endswith("label=orange")
    page.goto("/search?id=3")
    page.get_by_role("link", name="Show more").click()
    expect(page.locator(".tile")).to_have_count(11)
    page.get_by_role("link", name="Show the first").click()
    expect(page.locator(".tile")).to_have_count(10)
    choose(page, TEXT)
    page.get_by_role("button", name="Search with this picture").click()
    expect(page.get_by_text("not an image")).to_be_visible()
