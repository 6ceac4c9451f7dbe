"""Published weights are located or downloaded, and a failure is explained."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import (
    cache,
    load_extractor,
    make_spec,
    published,
)
from searchengine.extractors.models import PublishedWeights, backbones
from searchengine.extractors.published import PublishedSource

pytestmark = pytest.mark.usefixtures("described_in_process")
TOP, NOTOP = backbones()["vgg16"].with_head, backbones()["vgg16"].without_head


def quiet(text: str) -> None:
    pass


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Cut off the network, and return the addresses that were tried."""
    tried: list[str] = []

    def refuse(session: requests.Session, url: str, **options: Any) -> None:
        tried.append(url)
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests.Session, "get", refuse)
    return tried


def test_without_a_network(offline: list[str], tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError) as raised:
        load_extractor(progress=quiet)
    messages = str(raised.value)
    for part in (TOP.file_name, "553 MB", str(tmp_path / "keras" / "models"), TOP.url, "no route to host"):
        assert part in messages
    assert "--weights FILE" in messages
    assert "--model efficientnet-lite0" in messages
    assert offline == [TOP.url]


@pytest.mark.slow
def test_the_smaller_file_is_used_if_sufficient(offline: list[str]) -> None:
    with pytest.raises(WeightsNotFoundError, match=NOTOP.file_name):
        load_extractor(layer="block5_pool", progress=quiet)


@pytest.mark.slow
def test_files_cached_by_keras_are_used(offline: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "keras" / "models" / TOP.file_name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"numbers")
    monkeypatch.setattr(cache, "file_hashes", lambda path: {"sha256": "0", "md5": TOP.digest or ""})
    assert PublishedSource().locate(make_spec(), None, quiet) == cached
    assert PublishedSource().locate(make_spec(layer="block1_pool"), None, quiet) == cached
    assert offline == []


def test_custom_weights_that_are_no_longer_named(tmp_path: Path) -> None:
    file = tmp_path / "my.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    spec = make_spec(weights=file)
    with pytest.raises(WeightsNotFoundError, match="--weights"):
        PublishedSource().locate(spec, None, quiet)
    assert PublishedSource().locate(spec, file, quiet) == file
    with pytest.raises(WeightsNotFoundError, match="wrong weights"):
        PublishedSource().locate(make_spec(), file, quiet)


def test_weights_that_were_seen_before_are_found(tmp_path: Path) -> None:

    file = tmp_path / "my.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    os.utime(file, (1_000_000_000, 1_000_000_000))  # written long ago, so that its hash is remembered
    spec = make_spec(weights=file)
    assert PublishedSource().locate(spec, None, quiet) == file
    file.write_bytes(b"\x89HDF\r\n\x1a\n other")
    with pytest.raises(WeightsNotFoundError):
        PublishedSource().locate(spec, None, quiet)


@pytest.fixture
def publisher(tmp_path: Path) -> Iterator[str]:
    """Serve ``numbers.h5`` and return the address of the server."""
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "numbers.h5").write_bytes(b"numbers")

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Silent, directory=str(tmp_path / "published"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("digest", ["md5", "sha256", None])
def test_a_download(publisher: str, digest: str | None) -> None:
    expected = None if digest is None else hashlib.new(digest, b"numbers").hexdigest()
    wanted = PublishedWeights(f"{publisher}/numbers.h5", "numbers_1.h5", expected, 0)
    messages: list[str] = []
    place = published.keras_folder() / "numbers_1.h5"
    assert published.download(backbones()["vgg16"], wanted, messages.append) == place
    assert place.read_bytes() == b"numbers"
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    assert wanted.url in messages[0]
    assert published.download(backbones()["vgg16"], wanted, messages.append) == place  # it is there
    assert len(messages) == 1


def test_another_file_than_was_published(publisher: str) -> None:
    place = published.keras_folder() / "numbers.h5"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half")
    wanted = PublishedWeights(f"{publisher}/numbers.h5", "numbers.h5", "0" * 32, 0)
    for altered, reason in ((wanted, "its MD5 is"), (replace(wanted, url=f"{wanted.url}.gone"), "404")):
        with pytest.raises(WeightsNotFoundError, match=f"incomplete or altered copy.*{reason}.*--weights FILE"):
            published.download(backbones()["vgg16"], altered, quiet)
        assert place.read_bytes() == b"half"
    right = replace(wanted, digest=hashlib.md5(b"numbers").hexdigest())
    assert published.download(backbones()["vgg16"], right, quiet).read_bytes() == b"numbers"


def test_a_folder_of_keras_that_cannot_be_written(publisher: str, tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "models").touch()
    wanted = PublishedWeights(f"{publisher}/numbers.h5", "numbers.h5", None, 0)
    with pytest.raises(WeightsNotFoundError, match=r"models cannot be used: File exists\..*--weights FILE"):
        published.download(backbones()["vgg16"], wanted, quiet)


def test_half_a_gigabyte_is_not_fetched_in_vain(publisher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchengine.extractors.frameworks.lacks_avx", lambda: True)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    wanted = PublishedWeights(f"{publisher}/numbers.h5", "numbers.h5", None, 0)
    with pytest.raises(ExtractorError, match="lacks AVX"):
        published.download(backbones()["vgg16"], wanted, quiet)
    assert not published.keras_folder().exists()


def test_download_progress_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    progress = published._Sentences(messages.append)
    progress.start(553_000_000, 100_000_000, what="vgg16.h5", unit="B")
    progress.advance(10**6)
    monkeypatch.setattr(published, "_REPORT_SECONDS", -1.0)
    progress.advance(10**6)
    progress.say("the connection broke off; trying again")
    assert messages == ["vgg16.h5: 102 of 553 MB", "the connection broke off; trying again"]
