"""Behind a reverse proxy under a path prefix: a real nginx if installed, otherwise the prefix is removed here."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.waiting import wait_until
from tests.web.browsing import OpenPage, choose, in_browser, pages_at, serving, until
from tests.web.fake import FakeEngine
from tests.web.mapped import fill_index, store_groups, store_map
from tests.web.test_gunicorn import free_port

pytestmark = in_browser
PREFIX = "/deep/photos"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")

CONFIGURATION = """
daemon off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 30m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 404 "outside of the prefix"; }}
    location {prefix}/ {{
      proxy_pass {upstream}/;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Prefix {prefix};
    }}
  }}
}}
"""


def app_of(collection: Path, folder: Path, **config: Any) -> Any:
    index = fill_index(folder)
    store_map(index)
    store_groups(index)
    engines = FakeEngine(collection, name="drawn"), ServedEngine(index, name="mapped")
    return create_app({"CACHE_DIR": folder / "cache", "DEFAULT_K": 10, **config}, *engines)


@pytest.fixture(scope="module")
def base(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prefix")
    if NGINX is None:  # otherwise the prefix is removed here, as with SCRIPT_NAME
        app = app_of(collection, folder)
        with serving(DispatcherMiddleware(Response("outside of the prefix", 404), {PREFIX: app})) as address:
            yield address
        return
    with serving(app_of(collection, folder, PROXIES=1)) as upstream:
        port = free_port()
        settings = folder / "nginx.conf"
        settings.write_text(CONFIGURATION.format(folder=folder, port=port, prefix=PREFIX, upstream=upstream))
        command = [NGINX, "-p", str(folder), "-c", str(settings), "-e", str(folder / "error.log")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: (folder / "nginx.pid").exists() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGQUIT)
        process.communicate(timeout=60)


@pytest.fixture
def open_page(browser: Browser, base: str) -> Iterator[OpenPage]:
    """Open pages; at the end, check that every requested address was under the prefix."""
    asked: list[str] = []
    with pages_at(browser, base) as open_:

        def listening(address: str, **options: Any) -> Page:
            page = open_("about:blank", **options)
            page.on("request", lambda request: asked.append(request.url))
            page.goto(f"{PREFIX}{address}")
            return page

        yield listening
    outside = [url for url in asked if url.startswith("http") and not urlsplit(url).path.startswith(f"{PREFIX}/")]
    assert asked
    assert outside == []


def test_searching(open_page: OpenPage) -> None:
    page = open_page("/")
    facts = page.locator("#main .facts")
    page.locator(".tile .similar").first.click()
    page.wait_for_url(f"**{PREFIX}/search?id=1")
    expect(page.locator(".chip.query")).to_be_visible()
    until(page, "document.querySelector('.tile img').naturalWidth > 0")
    page.locator(".tile [data-judge=like]").first.click()
    expect(facts).to_contain_text("1 liked")
    assert urlsplit(page.url).path == f"{PREFIX}/search"
    until(page, "document.querySelectorAll('.tile').length > 10")
    choose(page)
    expect(page.locator("[data-query=upload]")).to_be_visible()
    assert urlsplit(page.url).path == f"{PREFIX}/search"
    page.locator(".tile [data-judge=dislike]").first.click()
    expect(facts).to_contain_text("1 disliked")
    page.go_back()
    page.go_back()
    expect(facts).to_contain_text("1 liked")
    page.get_by_role("link", name="Clear", exact=True).click()
    expect(page.locator("#more-views a", has_text="Compare")).to_have_attribute(
        "href", re.compile(f"^{PREFIX}/compare")
    )
    page.goto(f"{PREFIX}/compare?id=1&right=drawn&right_by=manhattan")
    page.select_option("select[name=left_by]", "inner-product")
    page.wait_for_url("**left_by=inner-product*")
    expect(page.locator(".side")).to_have_count(2)
    page.get_by_role("button", name="Index").click()
    page.locator("#indexes").get_by_role("link", name="mapped").click()
    expect(page.locator("#indexes [aria-current]")).to_have_text("mapped")
    until(page, "document.querySelector('.tile img').src.includes('/i/mapped/thumbnails/')")
    page.locator("a.brand").click()
    page.wait_for_url(f"**{PREFIX}/i/mapped/")


def test_map_groups_and_what_is_missing(open_page: OpenPage) -> None:
    page = open_page("/i/mapped/map")
    page.wait_for_selector("canvas[data-zoom]")
    page.get_by_role("button", name="List view").click()
    until(page, "document.querySelector('.map-selection img')?.naturalWidth > 0")
    page.locator(".map-selection a.photo").first.click()
    viewer = page.get_by_role("dialog")
    expect(viewer.locator("dl")).to_contain_text("pixels")
    viewer.get_by_role("link", name="Find similar").click()
    page.wait_for_url(f"**{PREFIX}/i/mapped/search?id=*")
    page.get_by_role("link", name="Groups").click()
    page.locator(".group a").first.click()
    page.wait_for_url(f"**{PREFIX}/i/mapped/groups?cluster=*")
    page.get_by_role("button", name="More").click()
    page.get_by_role("link", name="Evaluation").click()
    expect(page.get_by_text("No evaluation yet")).to_be_visible()
    page.goto(f"{PREFIX}/nowhere")
    page.get_by_role("link", name="All pictures").click()
    page.wait_for_url(f"**{PREFIX}/")
    # A path without its final slash redirects to the page.
    page.goto(f"{PREFIX}/i/mapped")
    assert urlsplit(page.url).path.startswith(f"{PREFIX}/i/mapped")
