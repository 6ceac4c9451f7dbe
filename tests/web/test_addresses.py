"""Every address of the server, for one index and for several: methods, status and content type."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.web.conftest import picture
from tests.web.fake import FakeEngine
from tests.web.mapped import fill_index, store_groups, store_map

HTML, JSON, CSS, SCRIPT = "text/html", "application/json", "text/css", "text/javascript"
JPEG, PNG, SVG, BYTES = "image/jpeg", "image/png", "image/svg+xml", "application/octet-stream"

# The responses of every index: address, status, content type for a browser, content type for a JSON client.
EVERYWHERE = [
    ("/", 200, HTML, HTML),
    ("/?k=5&n=7", 200, HTML, HTML),
    ("/?k=0", 400, HTML, JSON),
    ("/search?id=1", 200, HTML, JSON),
    ("/search?id=1&k=5&metric=cosine", 200, HTML, JSON),
    ("/search?id=1&metric=hamming", 400, HTML, JSON),
    ("/search?like=1&dislike=2&rule=rocchio", 200, HTML, JSON),
    ("/search", 400, HTML, JSON),
    ("/search?id=x", 400, HTML, JSON),
    ("/search?id=4711", 404, HTML, JSON),
    ("/compare?id=1&left=KIND&right=KIND&right_by=manhattan", 200, HTML, JSON),
    ("/compare", 400, HTML, JSON),
    ("/compare?id=1&left=none", 400, HTML, JSON),
    ("/compare?id=4711", 404, HTML, JSON),
    ("/map", 200, HTML, HTML),
    ("/groups", 200, HTML, HTML),
    ("/groups?cluster=99", 404, HTML, JSON),
    ("/groups?duplicates=x", 404, HTML, JSON),
    ("/evaluation", 200, HTML, HTML),
    ("/healthz", 200, JSON, JSON),
    ("/images/1", 200, PNG, PNG),
    ("/images/1?download=1", 200, PNG, PNG),
    ("/images/4711", 404, HTML, JSON),
    ("/images/x", 404, HTML, JSON),
    ("/images/0", 404, HTML, JSON),
    ("/images/-1", 404, HTML, JSON),
    ("/images/..%2f..%2fetc%2fpasswd", 404, HTML, JSON),
    ("/images/%2e%2e/%2e%2e/etc", 404, HTML, JSON),
    ("/images/1%00", 404, HTML, JSON),
    ("/images/", 404, HTML, JSON),
    ("/thumbnails/1", 200, JPEG, JPEG),
    ("/thumbnails/1?v=12345678", 200, JPEG, JPEG),
    ("/thumbnails/4711", 404, SVG, SVG),
    ("/thumbnails/x", 404, SVG, SVG),
    ("/static/any/all.css", 200, CSS, CSS),
    ("/static/any/base.css", 200, CSS, CSS),
    ("/static/any/app.js", 200, SCRIPT, SCRIPT),
    ("/static/any/nothing.css", 404, HTML, JSON),
    ("/favicon.ico", 200, SVG, SVG),
    ("/nowhere", 404, HTML, JSON),
    ("/search/", 404, HTML, JSON),
]
MAPPED = [
    ("/map/points", 200, BYTES, BYTES),
    ("/groups?cluster=1", 200, HTML, HTML),
    ("/groups?duplicates=1&start=1", 200, HTML, HTML),
]
# Excessive input: long lists, large numbers, long texts. The status is 200 where it is limited to what exists.
HUGE = 2**63 - 1
BOUNDED = [
    ("/?n=501", 400),
    (f"/?n={HUGE}", 400),
    ("/?k=501", 400),
    (f"/?seen={HUGE}", 200),
    (f"/?cursor={HUGE}", 200),
    (f"/?all=1&min_width={HUGE}", 200),
    ("/?ids=" + "1," * 10_001, 400),
    ("/?" + "label=x&" * 101, 400),
    ("/?" + "folder=x&" * 101, 400),
    ("/search?id=1&k=501", 400),
    ("/search?id=1&k=" + "9" * 5000, 400),
    (f"/search?id={HUGE}", 404),
    ("/search?id=" + "9" * 5000, 400),
    ("/search?" + "like=1&" * 101, 400),
    ("/search?id=1&" + "dislike=1&" * 101, 400),
    ("/search?" + "like=1@0,0,.5,.5&" * 21, 400),
    ("/search?id=1&box=0,0,1e999,1", 400),
    ("/search?id=1&box=" + "0," * 5000, 400),
    (f"/search?id=1&cursor=1e308:{HUGE}:{HUGE}:{HUGE}", 200),
    ("/search?id=1&cursor=1:1:1:1:1", 400),
    ("/search?q=" + "x" * 5000, 400),
    (f"/compare?id=1&k={HUGE}", 400),
    (f"/compare?id={HUGE}", 404),
    (f"/groups?start={HUGE}", 200),
    (f"/groups?cluster={HUGE}", 404),
    (f"/images/{HUGE}", 404),
    ("/images/" + "9" * 5000, 404),
    (f"/previews/{HUGE}", 404),
    (f"/thumbnails/{HUGE}", 404),
    (f"/image/{HUGE}/details", 404),
]
TAKE_NOTHING = {
    *("analysis.map_", "analysis.points", "analysis.evaluation", "pages.static", "pages.favicon", "pages.healthz"),
    *("search.by_upload", "compare.by_upload"),  # an upload with the fields of an address
}
BOUNDED_BODIES = [
    ("/map/paths", "1," * 9_999 + "1", 200),
    ("/map/paths", "1," * 10_000 + "1", 400),
    ("/map/paths", "," * 1_000_000, 400),
    ("/map/paths", "1" * 1_000_000, 200),
]
DRAWN = [("/map/points", 404, HTML, JSON)]  # has no map
METHODS = {
    "/": "GET, HEAD, OPTIONS",
    "/search": "GET, HEAD, OPTIONS, POST",
    "/compare": "GET, HEAD, OPTIONS, POST",
    "/map": "GET, HEAD, OPTIONS",
    "/map/points": "GET, HEAD, OPTIONS",
    "/groups": "GET, HEAD, OPTIONS",
    "/evaluation": "GET, HEAD, OPTIONS",
    "/healthz": "GET, HEAD, OPTIONS",
    "/images/1": "GET, HEAD, OPTIONS",
    "/thumbnails/1": "GET, HEAD, OPTIONS",
    "/static/any/all.css": "GET, HEAD, OPTIONS",
    "/favicon.ico": "GET, HEAD, OPTIONS",
}
# Applications by name: the prefixes of their indexes, and the kind of each.
PREFIXES = {
    "one": {"": "mapped", "/i/mapped": "mapped"},
    "two": {"": "drawn", "/i/drawn": "drawn", "/i/mapped": "mapped"},
}
EACH = pytest.mark.parametrize(
    ("served", "prefix", "kind"),
    [(served, prefix, kind) for served, prefixes in PREFIXES.items() for prefix, kind in prefixes.items()],
)


@pytest.fixture(scope="module")
def clients(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FlaskClient]:
    folder = tmp_path_factory.mktemp("addresses")
    index = fill_index(folder, 30)
    store_map(index, 30)
    store_groups(index, 30)
    mapped, drawn = ServedEngine(index, name="mapped"), FakeEngine(collection, name="drawn")
    config = {"TESTING": True, "CACHE_DIR": folder / "cache"}
    return {
        "one": create_app(config, mapped).test_client(),
        "two": create_app(config, drawn, mapped).test_client(),
    }


def answered(client: FlaskClient, address: str, accept: str, method: str = "GET", **options: Any) -> tuple[int, str]:
    answer = client.open(address, method=method, headers={"Accept": accept}, buffered=True, **options)
    return answer.status_code, answer.mimetype


@EACH
def test_status_and_format(clients: dict[str, FlaskClient], served: str, prefix: str, kind: str) -> None:
    client = clients[served]
    for template, status, page, data in EVERYWHERE + (MAPPED if kind == "mapped" else DRAWN):
        address = template.replace("KIND", kind)
        for method in ("GET", "HEAD"):
            assert answered(client, prefix + address, "text/html,*/*;q=0.8", method) == (status, page), address
            assert answered(client, prefix + address, JSON, method) == (status, data), address


def test_requested_amounts_are_limited(clients: dict[str, FlaskClient]) -> None:
    client = clients["one"]
    for address, status in BOUNDED:
        assert client.get(address, headers={"Accept": JSON}).status_code == status, address[:80]
    for address, body, status in BOUNDED_BODIES:
        assert client.post(address, data=body, headers={"Accept": JSON}).status_code == status, body[:80]
    routes = client.application.url_map
    tried = {routes.bind("").match(address.partition("?")[0], "GET")[0] for address, _ in BOUNDED}
    tried |= {routes.bind("").match(address, "POST")[0] for address, _, _ in BOUNDED_BODIES}
    assert {rule.endpoint for rule in routes.iter_rules()} - tried == TAKE_NOTHING


@EACH
def test_methods(clients: dict[str, FlaskClient], served: str, prefix: str, kind: str) -> None:
    client = clients[served]
    for address, methods in METHODS.items():
        answer = client.options(prefix + address)
        assert (answer.status_code, ", ".join(sorted(answer.allow))) == (200, methods), address
        for method in {"POST", "PUT", "PATCH", "DELETE"} - set(methods.split(", ")):
            answer = client.open(prefix + address, method=method, headers={"Accept": JSON})
            assert (answer.status_code, answer.mimetype) == (405, JSON), address
            assert ", ".join(sorted(answer.allow)) == methods, address


@EACH
def test_uploads(clients: dict[str, FlaskClient], served: str, prefix: str, kind: str) -> None:
    for address in ("/search", "/compare"):
        for accept in (HTML, JSON):
            assert answered(clients[served], prefix + address, accept, "POST") == (400, accept), address
            if kind == "drawn":  # the other index has a fake model, which cannot embed
                fields = {"image": picture(), "left": kind, "right": kind}
                assert answered(clients[served], prefix + address, accept, "POST", data=fields) == (200, accept)


@pytest.mark.parametrize("served", PREFIXES)
def test_addresses_outside_the_indexes(clients: dict[str, FlaskClient], served: str) -> None:
    client = clients[served]
    assert client.get("/i/mapped").location.removeprefix("http://localhost") == "/i/mapped/"
    assert answered(client, "/i/mapped", HTML, follow_redirects=True) == (200, HTML)
    unknown = ("/i/none", "/i/none/", "/i/none/search?id=1", "/i/none/healthz")
    for address in ("/i", "/i/", *unknown, "/i/mapped/i/mapped/"):
        for accept in (HTML, JSON):
            assert answered(client, address, accept, follow_redirects=True) == (404, accept), address


@EACH
def test_pages_link_to_their_own_index(clients: dict[str, FlaskClient], served: str, prefix: str, kind: str) -> None:
    """Links on the pages and error pages of an index stay within that index."""
    client = clients[served]
    for address in ("/", "/search?id=1", "/map", "/groups", "/evaluation", "/nowhere", "/search?id=4711"):
        page = client.get(prefix + address).text
        for name in ("map", "groups", "evaluation"):
            assert f'href="{prefix}/{name}"' in page, address
        assert f'action="{prefix}/search"' in page
        assert re.search(rf'class="brand" href="{prefix}/"', page)
        assert 'href="/static/' in page
