"""Compression: which responses are compressed, for which clients, and what caches are told."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import brotli
import pytest
from flask.testing import FlaskClient
from flask_compress.compat import compression

from tests.web.mapped import app_of, fill_index, store_map

DECOMPRESS = {"gzip": gzip.decompress, "br": brotli.decompress, "zstd": compression.zstd.decompress}
GZIP = {"Accept-Encoding": "gzip, deflate"}


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.5, identity;q=0", "gzip"),
        ("gzip, deflate, br", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("br;q=0.5, gzip", "gzip"),
        ("*", "zstd"),
    ],
)
def test_pages_are_compressed_if_accepted(client: FlaskClient, accept: str, coding: str) -> None:
    plain = client.get("/search?id=1")
    assert "Content-Encoding" not in plain.headers
    small = client.get("/search?id=1", headers={"Accept-Encoding": accept})
    assert small.headers["Content-Encoding"] == coding
    assert int(small.headers["Content-Length"]) == len(small.data) < len(plain.data) / 5
    without_nonce = [re.sub(rb'nonce="[^"]*"', b"", data) for data in (plain.data, DECOMPRESS[coding](small.data))]
    assert without_nonce[0] == without_nonce[1]
    for answer in (plain, small):
        assert {"accept-encoding", "accept"} <= {name.lower() for name in answer.vary}


@pytest.mark.parametrize(
    "accept", ["", "identity", "compress", "gzip;q=0", "gzip;q=0, br;q=0", "deflate", "gzip;q=0, *", "br;q=0, x-y"]
)
def test_pages_are_sent_uncompressed_otherwise(client: FlaskClient, accept: str) -> None:
    answer = client.get("/", headers={"Accept-Encoding": accept})
    assert "Content-Encoding" not in answer.headers
    assert "<!doctype html>" in answer.text
    assert "Accept-Encoding" in answer.vary


def test_images_and_small_responses_are_not_compressed(client: FlaskClient) -> None:
    for address in ("/thumbnails/1", "/images/1", "/images/1?download=1"):
        answer = client.get(address, headers=GZIP, buffered=True)
        assert "Content-Encoding" not in answer.headers, address
        assert "Accept-Encoding" not in answer.vary, address
    assert "Content-Encoding" not in client.get("/healthz", headers=GZIP).headers


def test_head_has_the_headers_of_get(client: FlaskClient) -> None:
    address = re.search(r'href="(/static/[^"]+/all.css)"', client.get("/").text)
    assert address is not None
    get, head = (client.open(address[1], method=method, headers=GZIP, buffered=True) for method in ("GET", "HEAD"))
    assert head.data == b""
    for name in ("Content-Encoding", "Content-Length", "ETag", "Vary", "Cache-Control"):
        assert head.headers[name] == get.headers[name], name


def test_etags_do_not_depend_on_compression(client: FlaskClient) -> None:
    """A weak ETag from either version is answered without the file."""
    match = re.search(r'href="(/static/[^"]+/pages.js)"', client.get("/").text)
    assert match is not None
    plain = client.get(match[1])
    small = client.get(match[1], headers=GZIP)
    assert gzip.decompress(small.data) == plain.data
    assert small.headers["ETag"] == plain.headers["ETag"]
    assert small.headers["ETag"].startswith("W/")
    assert "Accept-Ranges" not in small.headers
    for headers in ({}, GZIP):
        again = client.get(match[1], headers={"If-None-Match": small.headers["ETag"], **headers})
        assert (again.status_code, again.data) == (304, b"")
        assert "Accept-Encoding" in again.vary
        assert client.get(match[1], headers={"If-None-Match": 'W/"other"', **headers}).status_code == 200


def test_the_map_is_compressed_and_revalidated(tmp_path: Path) -> None:
    index = fill_index(tmp_path, 60)
    store_map(index, 60)
    client = app_of(index, tmp_path / "cache").test_client()
    plain, small = client.get("/map/points"), client.get("/map/points", headers=GZIP)
    assert gzip.decompress(small.data) == plain.data
    again = client.get("/map/points", headers={"If-None-Match": small.headers["ETag"], **GZIP})
    assert (again.status_code, again.data) == (304, b"")
