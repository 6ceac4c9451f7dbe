"""Answers as gzip: what is compressed, for whom, and that caches are not led astray."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from searchengine.index.local import LocalIndex
from tests.web.mapped import app_of, fill_index, store_map

GZIP = {"Accept-Encoding": "gzip, deflate, br"}


@pytest.mark.parametrize("accept", ["gzip", "gzip;q=0.5, identity;q=0", "br, gzip", "*"])
def test_pages_shrink_for_those_who_take_it(client: FlaskClient, accept: str) -> None:
    plain = client.get("/search?id=1")
    assert "Content-Encoding" not in plain.headers
    small = client.get("/search?id=1", headers={"Accept-Encoding": accept})
    assert small.headers["Content-Encoding"] == "gzip"
    assert int(small.headers["Content-Length"]) == len(small.data) < len(plain.data) / 5
    without_words = [re.sub(rb'nonce="[^"]*"', b"", data) for data in (plain.data, gzip.decompress(small.data))]
    assert without_words[0] == without_words[1]
    for answer in (plain, small):
        assert {"accept-encoding", "accept"} <= {name.lower() for name in answer.vary}


@pytest.mark.parametrize("accept", ["", "identity", "br", "gzip;q=0", "deflate"])
def test_others_get_them_plain(client: FlaskClient, accept: str) -> None:
    answer = client.get("/", headers={"Accept-Encoding": accept})
    assert "Content-Encoding" not in answer.headers
    assert "<!doctype html>" in answer.text


def test_what_does_not_shrink_is_left_alone(client: FlaskClient) -> None:
    for address in ("/thumbnails/1", "/images/1"):
        answer = client.get(address, headers=GZIP, buffered=True)
        assert "Content-Encoding" not in answer.headers, address
        assert "Accept-Encoding" not in answer.vary, address
    assert "Content-Encoding" not in client.get("/healthz", headers=GZIP).headers  # a few bytes
    assert "Content-Encoding" in client.get("/search?id=4711", headers=GZIP).headers  # an error is a page too


def test_head_tells_what_get_sends(client: FlaskClient) -> None:
    address = re.search(r'href="(/static/[^"]+/all.css)"', client.get("/").text)
    assert address is not None
    got, told = (client.open(address[1], method=method, headers=GZIP, buffered=True) for method in ("GET", "HEAD"))
    assert told.data == b""
    for name in ("Content-Encoding", "Content-Length", "ETag", "Vary", "Cache-Control"):
        assert told.headers[name] == got.headers[name], name


def test_compressed_and_plain_have_tags_of_their_own(client: FlaskClient) -> None:
    found = re.search(r'href="(/static/[^"]+/search.js)"', client.get("/").text)
    assert found is not None
    address = found[1]
    plain = client.get(address, buffered=True)
    small = client.get(address, headers=GZIP, buffered=True)
    assert gzip.decompress(small.data) == plain.data
    assert small.headers["ETag"] != plain.headers["ETag"]
    assert "Accept-Ranges" not in small.headers
    for answer, extra in ((plain, {}), (small, GZIP)):
        again = client.get(address, headers={"If-None-Match": answer.headers["ETag"], **extra}, buffered=True)
        assert (again.status_code, again.data) == (304, b"")
        assert "Accept-Encoding" in again.vary
    # The tag of the one does not vouch for the other.
    other = client.get(address, headers={"If-None-Match": small.headers["ETag"]}, buffered=True)
    assert (other.status_code, other.data) == (200, plain.data)
    # A part is a part of the plain file.
    part = client.get(address, headers={"Range": "bytes=0-9", **GZIP}, buffered=True)
    assert (part.status_code, part.data) == (206, plain.data[:10])
    assert "Content-Encoding" not in part.headers
    wrong = client.get(address, headers={"Range": "bytes=0-9", "If-Range": small.headers["ETag"]}, buffered=True)
    assert (wrong.status_code, wrong.data) == (200, plain.data)


def test_the_map_is_compressed_and_asked_for_again(tmp_path: Path) -> None:
    index: LocalIndex = fill_index(tmp_path, 60)
    store_map(index, 60)
    client = app_of(index, tmp_path / "cache").test_client()
    plain, small = client.get("/map/points"), client.get("/map/points", headers=GZIP)
    assert gzip.decompress(small.data) == plain.data
    again = client.get("/map/points", headers={"If-None-Match": small.headers["ETag"], **GZIP})
    assert (again.status_code, again.data) == (304, b"")
