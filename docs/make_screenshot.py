"""Makes docs/screenshot.jpg: the results page of the demo, as Chromium shows it.

searchengine demo --dir .demo --port 8000 &
python docs/make_screenshot.py http://127.0.0.1:8000
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

QUERY = "pagoda/china-whole.jpg"


def main(address: str) -> None:
    """Search by a sample photo that is uploaded, and keep what the page shows."""
    photo = Path(".demo/photos") / QUERY
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.set_input_files("input[type=file]", photo)
        page.get_by_text("Nearest pictures").wait_for()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(__file__).with_name("screenshot.jpg"), type="jpeg", quality=85)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
