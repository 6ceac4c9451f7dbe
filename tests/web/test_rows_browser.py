"""Justified rows in a real browser: places, proportions, and what stays put when more comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.browsing import OpenPage, choose, in_browser, pages_at, ranks, serving, until
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


def boxes(page: Page) -> dict[str, dict[str, float]]:
    """Where each picture is on the page, by its id."""
    found: dict[str, dict[str, float]] = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.card')].map((card) => {
            const { x, y, width, height } = card.querySelector('.picture').getBoundingClientRect();
            return [card.id, { x, y: y + scrollY, width, height }];
        }))"""
    )
    return found


def rounded(boxes: dict[str, dict[str, float]]) -> dict[str, list[float]]:
    return {name: [round(number) for number in box.values()] for name, box in boxes.items()}


@pytest.mark.parametrize("start", ["/", "/search?id=3", "upload"])
def test_load_more_appends_and_moves_nothing(open_page: OpenPage, start: str) -> None:
    page = open_page("/" if start == "upload" else start, width=1100)
    if start == "upload":
        choose(page)
        expect(page.locator(".results[data-query=upload]")).to_be_visible()
    page.wait_for_load_state("networkidle")
    before = boxes(page)
    page.locator(".more .button").click()
    expect(page.locator(".card")).to_have_count(40)
    after = boxes(page)
    assert list(after)[: len(before)] == list(before)
    assert rounded({name: after[name] for name in before}) == rounded(before)
    # No row sticks out, and the rows above the last are full.
    right = page.evaluate("document.querySelector('.gallery').getBoundingClientRect().right")
    assert max(box["x"] + box["width"] for box in after.values()) <= right + 1
    if start != "/":
        assert ranks(page) == [str(rank) for rank in range(1, 41)]
        expect(page.locator("[data-count]")).to_have_text("40 of 45")
        expect(page.locator("select[name=k]")).to_have_value("40")
    page.locator(".more .button").click()
    expect(page.locator(".card")).to_have_count(45)
    expect(page.locator(".more")).to_have_count(0)
    if start != "upload":
        page.reload()
        expect(page.locator(".card")).to_have_count(45)


def test_places_are_kept_before_pictures_come(open_page: OpenPage) -> None:
    page = open_page("about:blank")
    held: list[Any] = []
    released = threading.Event()
    page.route("**/thumbnails/**", lambda route: route.continue_() if released.is_set() else held.append(route))
    page.goto("/search?id=1", wait_until="domcontentloaded")
    expect(page.locator(".card")).to_have_count(10)
    before = boxes(page)
    query = page.locator(".query-picture").bounding_box()
    assert all(box["height"] > 50 for box in before.values())
    tint = page.locator("#i1 .picture").evaluate("(place) => getComputedStyle(place).backgroundColor")
    assert tint != "rgb(138, 138, 138)"
    released.set()
    for route in held:
        route.continue_()
    page.wait_for_load_state("networkidle")
    until(page, "[...document.images].filter((image) => image.loading !== 'lazy').every((image) => image.complete)")
    assert rounded(boxes(page)) == rounded(before)
    assert page.locator(".query-picture").bounding_box() == query


def test_pictures_keep_their_proportions_and_rows_are_even(open_page: OpenPage, served: Any) -> None:
    page = open_page("/")
    rows: dict[int, list[dict[str, float]]] = {}
    for name, box in boxes(page).items():
        record = served[1].index.record(int(name[1:]))
        ratio = min(max(record.width / record.height, 0.6), 2.6)
        assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.02)
        rows.setdefault(round(box["y"]), []).append(box)
    *full, _ = [row for _, row in sorted(rows.items())]
    assert len(full) >= 2
    for row in full:
        assert max(box["height"] for box in row) - min(box["height"] for box in row) < 1
