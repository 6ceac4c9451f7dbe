"""Time until a page shows its largest part (LCP), and from dropping a picture to the first result, in Chromium.

searchengine serve --index-dir INDEX --port 8000 &
python benchmarks/page_speed.py http://127.0.0.1:8000 photo.jpg
"""

from __future__ import annotations

import argparse
import base64
import os
import statistics
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

RUNS = 5
SIZES = ((360, 740), (1440, 900))
PAGES = ("/", "/search?id=1", "/map", "/groups")
WATCH_LCP = """new PerformanceObserver((list) => {
  window.lcp = list.getEntries().at(-1).startTime;
}).observe({ type: "largest-contentful-paint", buffered: true })"""
# Resolves to the ms from the drop to the frame in which the first result stands with its thumbnail.
DROP = """async ([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
  const start = performance.now();
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  const frame = () => new Promise(requestAnimationFrame);
  const first = () => document.querySelector(".chip.query[data-key]") && document.querySelector(".tile img");
  while (!(first()?.complete && first().naturalWidth)) await frame();
  return performance.now() - start;
}"""


def main() -> None:
    """Print a row for each page and width: the median and the worst of some runs, each in a browser without a cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="address of the server")
    parser.add_argument("photo", type=Path, help="photo to drop on the page")
    options = parser.parse_args()
    address = options.address.rstrip("/")
    picture = [options.photo.name, base64.b64encode(options.photo.read_bytes()).decode()]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        print("| | width | median | worst |\n| --- | --- | --- | --- |")
        for size in SIZES:
            for path in PAGES:
                row(f"LCP of {path}", size[0], [lcp(open_page(browser, size), address + path) for _ in range(RUNS)])
            row(
                "drop to first result", size[0], [drop(open_page(browser, size), address, picture) for _ in range(RUNS)]
            )
        browser.close()


def open_page(browser: Browser, size: tuple[int, int]) -> Page:
    """Open a page without a cache."""
    return browser.new_context(viewport={"width": size[0], "height": size[1]}).new_page()


def lcp(page: Page, address: str) -> float:
    """Return the time of the largest paint of a page, in ms."""
    page.add_init_script(WATCH_LCP)
    page.goto(address, wait_until="networkidle")
    time = float(page.evaluate("window.lcp"))
    page.context.close()
    return time


def drop(page: Page, address: str, picture: list[str]) -> float:
    """Return the time from a drop on the first page to its first result, in ms."""
    page.goto(address, wait_until="networkidle")
    time = float(page.evaluate(DROP, picture))
    page.context.close()
    return time


def row(title: str, width: int, times: list[float]) -> None:
    """Print a row of the table."""
    print(f"| {title} | {width} px | {statistics.median(times):.0f} ms | {max(times):.0f} ms |", flush=True)


if __name__ == "__main__":
    main()
