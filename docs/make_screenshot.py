"""Makes the pictures of the page in docs/, from the demo, as Chromium shows it.

searchengine demo --dir .demo --port 8000 &
for verb in map cluster evaluate; do searchengine $verb --index-dir .demo/index; done
python docs/make_screenshot.py http://127.0.0.1:8000 .demo
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

QUERY = "photos/pagoda/china-whole.jpg"


def keep(page: Page, name: str, quality: int = 82) -> None:
    """What the page shows, as docs/NAME.jpg."""
    page.wait_for_load_state("networkidle")
    page.screenshot(path=Path(__file__).with_name(f"{name}.jpg"), type="jpeg", quality=quality)


def main(address: str, demo: Path) -> None:
    """Search by a sample photo that is uploaded, on a desk; by words, on a phone in the dark; all else, small."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.set_input_files("input[type=file]", demo / QUERY)
        page.locator(".chip.query").wait_for()
        keep(page, "screenshot")
        phone = browser.new_page(
            viewport={"width": 390, "height": 780}, color_scheme="dark", has_touch=True, is_mobile=True
        )
        phone.goto(f"{address}/search?q=flower")
        keep(phone, "screenshot-phone")
        # As a reader on another machine, who is shown no path of this one.
        page = browser.new_page(viewport={"width": 960, "height": 600}, extra_http_headers={"Via": "1.1 docs"})
        page.goto(f"{address}/search?q=pagoda")
        page.locator("a.photo").nth(1).click()
        page.locator("[aria-hidden=false] > .pswp__zoom-wrap > .is-loaded").wait_for()
        page.locator(".about-panel dd").first.wait_for()
        keep(page, "screenshot-viewer", quality=70)
        page.goto(f"{address}/map")
        page.locator("canvas[data-ready=true]").wait_for()
        keep(page, "screenshot-map", quality=70)
        page.goto(f"{address}/evaluation")
        keep(page, "screenshot-evaluation", quality=70)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
