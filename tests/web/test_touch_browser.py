"""Touch screens and slow networks: targets are large enough, and nothing jumps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from searchengine.analyse.evaluation import keep_evaluation, leave_one_out
from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.web.browsing import OpenPage, fits, in_browser, serving
from tests.web.fake import FakeEngine, colour_classifier
from tests.web.mapped import fill_index, store_groups, store_map

pytestmark = in_browser

# The names and sizes of targets smaller than 44 px in either direction. The area of a link may be larger than it looks
# (by its ::after), and a field can be tapped by its label.
SMALL = """() => [...document.querySelectorAll('a, button, select, input, summary')].flatMap((one) => {
  const { width, height, bottom } = one.getBoundingClientRect();
  if (!width || !height || one.tabIndex < 0 || bottom < 0) return [];
  const after = getComputedStyle(one, '::after');
  const more = (from, to) =>
    after.content !== 'none' && after.position === 'absolute' ? -parseFloat(after[from]) - parseFloat(after[to]) : 0;
  const label = one.closest('label')?.getBoundingClientRect();
  const size = [
    Math.max(width + more('left', 'right'), label?.width ?? 0),
    Math.max(height + more('top', 'bottom'), label?.height ?? 0),
  ];
  return Math.min(...size) >= 43.9 ? [] : [`${one.tagName} ${one.className} ${one.textContent.trim()} ${size}`];
})"""


@pytest.fixture(scope="module")
def base(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("touched")
    index = fill_index(folder)
    store_map(index)
    store_groups(index)
    keep_evaluation(index, leave_one_out(index))
    drawn = FakeEngine(collection, name="drawn")
    drawn.classified_by = colour_classifier(stale=True)
    engines = drawn, ServedEngine(index, name="mapped")
    with serving(create_app({"CACHE_DIR": folder / "cache", "DEFAULT_K": 10}, *engines)) as address:
        yield address
    index.close()


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/search?id=3",
        "/search?id=3&like=5&dislike=9",
        "/compare?id=3&right=drawn&right_by=manhattan",
        "/i/mapped/map",
        "/i/mapped/groups",
        "/i/mapped/evaluation",
        "/map",
        "/nowhere",
    ],
)
def test_everything_is_large_enough_for_a_finger(open_page: OpenPage, address: str) -> None:
    page = open_page(address, width=360, height=740, has_touch=True, is_mobile=True)
    if page.locator("canvas").count():
        page.wait_for_selector("canvas[data-zoom]")
    assert fits(page)
    assert page.evaluate(SMALL) == []


def test_a_slow_network_moves_nothing(open_page: OpenPage) -> None:
    page = open_page("about:blank", width=360)
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.clearBrowserCache")
    slow = {"offline": False, "latency": 100, "downloadThroughput": 50_000, "uploadThroughput": 50_000}
    session.send("Network.emulateNetworkConditions", slow)
    page.add_init_script(
        """window.moved = 0;
        window.what = [];
        const box = ({ x, y, width, height }) => [x, y, width, height].map(Math.round).join(' ');
        new PerformanceObserver((list) => {
            for (const one of list.getEntries()) {
                window.moved += one.value;
                for (const { node, previousRect, currentRect } of one.sources) {
                    const name = node?.outerHTML?.slice(0, 80) ?? node?.textContent;
                    window.what.push(`${name}: ${box(previousRect)} -> ${box(currentRect)}`);
                }
            }
        }).observe({ type: 'layout-shift', buffered: true });"""
    )
    for address in ("/", "/search?id=3&like=5", "/i/mapped/evaluation"):
        page.goto(address, wait_until="networkidle")
        assert page.evaluate("window.moved") < 0.01, (address, page.evaluate("window.what"))


def test_reduced_motion_is_respected(open_page: OpenPage) -> None:
    page = open_page("/", reduced_motion="reduce")
    page.evaluate("document.getElementById('busy').hidden = false")
    assert page.evaluate("getComputedStyle(document.getElementById('busy'), '::before').animationName") == "none"
    assert page.evaluate("getComputedStyle(document.querySelector('.button')).transitionProperty") in {"none", "all"}
    assert page.evaluate("getComputedStyle(document.querySelector('.button')).transitionDuration") == "0s"
