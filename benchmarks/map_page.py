"""Processor time of a frame of the map while it is moved, in Chromium without a graphics card.

    searchengine serve --index-dir INDEX --port 8000 &
    python benchmarks/map_page.py http://127.0.0.1:8000/map

60 frames per second leave 16.7 ms for each. Times are those of the page's main thread, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from playwright.sync_api import CDPSession, Page, sync_playwright

COUNT_FRAMES = """() => {
  const ask = window.requestAnimationFrame.bind(window);
  window.frames_painted = 0;
  window.requestAnimationFrame = (paint) => ask((now) => { window.frames_painted += 1; paint(now); });
}"""


def main() -> None:
    """Print a row for each kind of movement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="address of the map")
    address = parser.parse_args().address
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(f"({COUNT_FRAMES})()")
        page.goto(address)
        page.wait_for_selector("canvas[data-ready=true]")
        page.wait_for_load_state("networkidle")
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        print("| moved | frames | thread time of a frame |\n| --- | --- | --- |")
        for name, move in (("zoomed in, from the whole map", zoom_in), ("dragged", drag), ("zoomed out", zoom_out)):
            before = (painted(page), thread_ms(session))
            move(page)
            frames = painted(page) - before[0]
            print(f"| {name} | {frames} | {(thread_ms(session) - before[1]) / frames:.1f} ms |")
        browser.close()


def painted(page: Page) -> int:
    """Return the number of frames so far."""
    return int(page.evaluate("window.frames_painted"))


def thread_ms(session: CDPSession) -> float:
    """Return the time that the page's thread has used so far."""
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return 1000 * float(metrics["TaskDuration"])


def _wheel(step: int) -> Callable[[Page], None]:
    def turn(page: Page) -> None:
        page.mouse.move(600, 500)
        for _ in range(40):
            page.mouse.wheel(0, step)
            page.wait_for_timeout(50)

    return turn


def drag(page: Page) -> None:
    """Drag the map."""
    page.mouse.move(600, 500)
    page.mouse.down()
    for step in range(120):
        page.mouse.move(600 + 4 * (step % 60 - 30), 500 + 3 * (step % 40 - 20))
        page.wait_for_timeout(16)
    page.mouse.up()


zoom_in, zoom_out = _wheel(-60), _wheel(60)

if __name__ == "__main__":
    main()
