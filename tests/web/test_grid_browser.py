"""The grid in a real browser, on a phone and on a desktop: endless loading, keys and Back."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect

from searchengine.index.types import RunProgress
from tests.web.browsing import DESK, PHONE, OpenPage, both_sizes, facts, fits, ids, in_browser, judge, until
from tests.web.fake import FakeEngine

pytestmark = in_browser


@pytest.mark.parametrize(
    ("address", "size"), [("/", PHONE), ("/search?id=3", DESK), ("/?all=1", DESK), ("/search?id=3&like=5", PHONE)]
)
def test_the_grid_loads_more_up_to_the_end(open_page: OpenPage, address: str, size: dict[str, Any]) -> None:
    page = open_page(address, **size)
    all_of_them = 45 - address.count("id=") - address.count("like=")
    tiles = page.locator(".tile")
    while (count := tiles.count()) < all_of_them:
        tiles.last.scroll_into_view_if_needed()
        expect(tiles).not_to_have_count(count)
    expect(tiles).to_have_count(all_of_them)
    expect(page.locator(".more")).to_have_count(0)
    assert len(set(ids(page))) == all_of_them
    assert fits(page)


def test_the_height_of_rows_is_remembered(open_page: OpenPage) -> None:
    page = open_page("/search?id=3", **DESK)
    heights = "[...document.querySelectorAll('.photo')].slice(0, 4).map((photo) => photo.offsetHeight)"
    before = page.evaluate(heights)
    page.locator(".head .size input").fill("96")
    assert max(page.evaluate(heights)) < min(before)
    assert len(set(page.evaluate(heights))) <= 2
    small = page.evaluate(heights)
    page.reload()
    assert page.evaluate(heights) == small


@both_sizes
def test_pictures_start_near_the_top_and_show_their_scores(open_page: OpenPage, size: dict[str, Any]) -> None:
    page = open_page("about:blank", **size)
    addresses = ["/", "/search?id=3", "/search?id=3&like=5&like=6&dislike=9"]
    if size is PHONE:
        addresses.append("/search?id=3&label=red&label=blue&min_width=10")  # filters in use take no extra line
    for address in addresses:
        page.goto(address)
        tile = page.locator(".tile").first
        box = tile.bounding_box()
        assert box is not None
        assert box["y"] <= 140
        if "id" in address:
            # With likes, scores only give an order and are not shares.
            expect(tile.locator(".rank" if "like" in address else ".score")).to_be_visible()
            expect(tile.locator(".rank, .score")).to_have_count(1)
        top = page.locator("header.top").bounding_box()
        assert top is not None
        assert top["height"] == (56 if size is PHONE else 64)


# -- keys -----------------------------------------------------------------------------------------------------------


def test_keyboard(open_page: OpenPage) -> None:
    page = open_page("/search?id=3&k=31")
    focused = "[...document.querySelectorAll('.tile')].indexOf(document.activeElement.closest('.tile'))"
    page.keyboard.press("j")
    assert page.evaluate(focused) == 0
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == 1
    page.keyboard.press("k")
    assert page.evaluate(focused) == 0
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) > 1
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == 0
    page.keyboard.press("+")
    facts(page).to_contain_text("1 liked")
    assert page.evaluate(focused) == 0  # on the picture that has moved up
    page.keyboard.press("-")
    facts(page).to_contain_text("1 liked, 1 disliked")
    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_hidden()
    page.keyboard.press("r")
    expect(page.get_by_role("link", name="Rocchio")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "q"
    page.locator(".tile .photo").first.focus()
    page.keyboard.press("u")
    assert page.evaluate("document.activeElement.name") == "image"
    page.locator(".tile .photo").nth(1).focus()
    second = ids(page)[1]
    page.keyboard.press("f")
    page.wait_for_url(f"**/search?id={second}*")
    page.keyboard.press("g")
    expect(page.get_by_role("heading", name="All pictures")).to_be_visible()


def test_tab_reaches_every_action_and_the_focus_is_never_lost(open_page: OpenPage) -> None:
    page = open_page("/search?id=3&like=5&k=6&label=red&label=blue")
    wanted = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, input:not([type=hidden]), summary')]
          .filter((one) => one.checkVisibility({ visibilityProperty: true })).length"""
    )
    reached = set()
    for _ in range(3 * wanted):
        page.keyboard.press("Tab")
        where = page.evaluate(
            """() => {
              const one = document.activeElement;
              if (one === document.body) return null;
              one.dataset.number ??= String(document.querySelectorAll('[data-number]').length);
              const { width, height } = one.getBoundingClientRect();
              return [one.dataset.number, Math.min(width, height)];
            }"""
        )
        if where is None or where[0] in reached:
            break
        reached.add(where[0])
        assert where[1] > 0
    assert len(reached) >= wanted


# -- Back -----------------------------------------------------------------------------------------------------------


def test_back_to_views_that_are_no_longer_in_memory(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    page.evaluate("window.same = true")
    for id_ in range(4, 30):
        page.evaluate(
            """async (address) => {
              const { go } = await import(document.querySelector("link[href$='/pages.js']").href);
              await go(address);
            }""",
            f"/search?id={id_}&k=2",
        )
    page.evaluate("history.go(-26)")
    until(page, "location.search === '?id=3' && document.querySelector('.chip.query').dataset.id === '3'")
    assert page.evaluate("window.same") is True


def test_back_after_skipping_to_the_pictures(open_page: OpenPage) -> None:
    page = open_page("/search?id=26")
    judge(page, 1, "like")
    facts(page).to_contain_text("1 liked")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**#title")
    for _ in ("Clear", "Size", "Ranking", "photo"):
        page.keyboard.press("Tab")
    expect(page.locator("a.photo").first).to_be_focused()  # and not to the filters, which come first
    judge(page, 1, "like")
    facts(page).to_contain_text("2 liked")
    page.go_back()
    page.wait_for_url("**#title")
    facts(page).to_contain_text("1 liked")
    page.go_back()  # the step of the skip link
    facts(page).to_contain_text("1 liked")
    page.go_back()
    facts(page).not_to_contain_text("liked")


def test_the_progress_of_a_run_is_shown(
    open_page: OpenPage, workspace: tuple[str, FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = workspace[1].index
    monkeypatch.setattr(index, "run", RunProgress(4000, 20000, active=True))
    page = open_page("/")
    expect(page.get_by_text("4 000 of 20 000 so far")).to_be_visible()
    monkeypatch.setattr(index, "run", RunProgress(4500, 20000, active=True))
    expect(page.get_by_text("4 500 of 20 000 so far")).to_be_visible()


def test_dark_and_light_follow_the_system(open_page: OpenPage) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = open_page("/", color_scheme="light").evaluate(background)
    dark = open_page("/", color_scheme="dark").evaluate(background)
    assert (light, dark) == ("rgb(252, 252, 251)", "rgb(18, 18, 18)")
