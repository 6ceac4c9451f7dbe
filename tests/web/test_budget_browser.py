"""The budget of the pages: bytes, layout shifts, and accessibility by axe-core."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.web.browsing import OpenPage, in_browser

pytestmark = in_browser

MOST = 120_000  # compressed bytes of scripts and styles on a first visit
TILES = 4_000
MOVED = """() => new Promise((resolve) => new PerformanceObserver((list) => resolve(
  list.getEntries().reduce((sum, shift) => sum + shift.value, 0))).observe({ type: 'layout-shift', buffered: true }) ||
  setTimeout(() => resolve(0), 300))"""
MANY = """async (many) => {
  const grid = document.getElementById('grid');
  const tiles = [...grid.querySelectorAll('.tile')];
  while (grid.children.length < many) grid.append(...tiles.map((tile) => tile.cloneNode(true)));
  const frame = () => new Promise(requestAnimationFrame);
  await frame();
  await frame();
  const isDrawn = (photo) => photo.checkVisibility({ contentVisibilityAuto: true });
  const drawn = [...grid.querySelectorAll('.photo')].filter(isDrawn);
  return { drawn: drawn.length, height: grid.offsetHeight };
}"""
PAGES = {
    "the collection": "/",
    "results": "/search?id=3&label=blue&label=red",
    "likes": "/search?id=3&like=5&dislike=9",
    "words": "/search?q=red",
    "nothing": "/?label=unicorn",
    "an error": "/search?id=x&q=red",
    "side by side": "/compare?id=3",
    "a lost upload": "/search?upload=0123456789abcdef",
}


def test_a_first_visit_is_small_and_stable(open_page: OpenPage) -> None:
    page = open_page("about:blank", width=360, height=740)
    taken: dict[str, int] = {}

    def weigh(response: Any) -> None:
        if "/static/" in response.url and response.url.endswith((".js", ".css")):
            taken[response.url] = len(gzip.compress(response.body(), 6))

    page.on("response", weigh)
    for address in ("/", "/search?id=3&like=5"):
        page.goto(address, wait_until="networkidle")
        assert page.evaluate(MOVED) <= 0.01, address
    assert 10_000 < sum(taken.values()) <= MOST, taken


def test_only_pictures_in_view_are_drawn(open_page: OpenPage) -> None:
    page = open_page("/search?id=3", width=1440, height=900)
    seen = page.evaluate(MANY, TILES)
    assert 0 < seen["drawn"] < 200
    assert seen["height"] > 40_000


def axe(page: Page) -> list[str]:
    """Return the violations that axe-core finds on a page."""
    if not page.evaluate("Boolean(window.axe)"):
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    violations = page.evaluate("axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)")
    return [
        f"{violation['id']}: {violation['help']}: {[node['html'][:160] for node in violation['nodes'][:3]]}"
        for violation in violations
    ]


@pytest.mark.parametrize("width", [360, 1440])
def test_axe_finds_no_violation(open_page: OpenPage, width: int) -> None:
    """All pages on a phone in dark mode, and on a desktop those with a different layout."""
    phone = width == 360
    objections = {}
    page = open_page("about:blank", width=width, color_scheme="dark" if phone else "light")
    for name in PAGES if phone else ("the collection", "side by side"):
        page.goto(PAGES[name])
        objections[name] = axe(page)
    page.goto(PAGES["results"])
    for button in ("Filters", "Ranking") if phone else ("Ranking",):
        page.get_by_role("button", name=button).click()
        objections[button] = axe(page)
        page.keyboard.press("Escape")
    assert {name: found for name, found in objections.items() if found} == {}
