"""The workspace at every size, in both schemes and in forced colours, with text twice as large, as axe-core sees it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.web.browsing import fits, in_browser, pages_at, serving
from tests.web.conftest import make_app
from tests.web.fake import FakeEngine, colour_classifier, draw_collection
from tests.web.test_budget_browser import PAGES, axe

pytestmark = [pytest.mark.torture, *in_browser]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("workspace")
    engine = FakeEngine(draw_collection(folder / "in", 45))
    engine.classified_by = colour_classifier()
    with serving(make_app(engine, folder, SAMPLE=20, DEFAULT_K=11)) as address:
        yield address


LOOKS = list(product([360, 800, 1440], ["light", "dark"], ["none", "active"]))
USUAL = [(360, "light", "none"), (800, "dark", "active"), (1440, "light", "none")]


@pytest.mark.parametrize(
    ("width", "scheme", "forced"),
    [look if look in USUAL else pytest.param(*look, marks=pytest.mark.longest) for look in LOOKS],
)
def test_every_page_at_every_size(browser: Browser, base: str, width: int, scheme: str, forced: str) -> None:
    with pages_at(browser, base) as open_:
        for name, address in PAGES.items():
            touch = width < 800
            page = open_(address, width=width, color_scheme=scheme, forced_colors=forced, has_touch=touch)
            assert fits(page), name
            assert axe(page) == [], name
            page.evaluate("document.documentElement.style.fontSize = '200%'")  # as a reader may choose
            assert fits(page), f"{name}, at 200 %"
            page.close()
