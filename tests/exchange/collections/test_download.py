"""Downloads from a server that breaks off, resumes, lies, and changes its files."""

from __future__ import annotations

import base64
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest

from searchengine.download import Client, DownloadError, Resource
from searchengine.progress import Progress
from tests.exchange.collections.conftest import Publisher

DATA = random.Random(1).randbytes(300_000)


MD5 = hashlib.md5(DATA).hexdigest()


def fetch(publisher: Publisher, folder: Path, md5: str | None = None, name: str = "a.zip", **more: Any) -> Path:
    with Client(pause=0) as client:
        return client.fetch(Resource(f"{publisher.base}/{name}", md5), folder, **more)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture(autouse=True)
def published(publisher: Publisher) -> None:
    publisher.files["/a.zip"] = DATA


def test_whole(publisher: Publisher, tmp_path: Path) -> None:
    assert fetch(publisher, tmp_path, MD5).read_bytes() == DATA
    assert names(tmp_path) == ["a.zip"]
    fetch(publisher, tmp_path)
    assert len(publisher.asked) == 1  # the file exists


def test_resumes_where_it_broke_off(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks = [100_000, 50_000, 1]
    assert fetch(publisher, tmp_path).read_bytes() == DATA
    assert [bytes_ for _, bytes_ in publisher.asked] == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_resumes_in_another_run(publisher: Publisher, tmp_path: Path) -> None:
    publisher.breaks = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"100,000 bytes.*run the same command again"):
        fetch(publisher, tmp_path)
    assert names(tmp_path) == ["a.zip.part", "a.zip.part.json"]
    publisher.breaks, publisher.asked = [], []
    assert fetch(publisher, tmp_path).read_bytes() == DATA
    assert publisher.asked == [("/a.zip", "bytes=100000-")]


def test_a_server_that_ignores_range_sends_all_again(publisher: Publisher, tmp_path: Path) -> None:
    publisher.ranges, publisher.breaks = False, [100_000, 200_000]
    assert fetch(publisher, tmp_path).read_bytes() == DATA
    assert len(publisher.asked) == 3


def test_a_server_that_always_breaks_at_the_same_place(publisher: Publisher, tmp_path: Path) -> None:
    publisher.ranges, publisher.breaks = False, [100_000] * 50
    with pytest.raises(DownloadError, match="cannot be downloaded: the connection broke off"):
        fetch(publisher, tmp_path)
    assert len(publisher.asked) < 10


@pytest.mark.parametrize("marks", [True, False])
def test_the_file_changes(publisher: Publisher, tmp_path: Path, marks: bool) -> None:
    publisher.marks, publisher.breaks = marks, [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(publisher, tmp_path)
    publisher.breaks = []
    publisher.files["/a.zip"] = changed = DATA[::-1] + b"more"
    assert fetch(publisher, tmp_path).read_bytes() == changed


def test_the_file_becomes_shorter(publisher: Publisher, tmp_path: Path) -> None:
    publisher.marks, publisher.breaks = False, [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(publisher, tmp_path)
    publisher.breaks = []
    publisher.files["/a.zip"] = b"short"
    assert fetch(publisher, tmp_path).read_bytes() == b"short"


def test_a_server_that_promises_more_than_it_has(publisher: Publisher, tmp_path: Path) -> None:
    publisher.says = len(DATA) + 1000
    with pytest.raises(DownloadError, match="cannot be downloaded: the connection broke off"):
        fetch(publisher, tmp_path)
    assert len(publisher.asked) < 20
    assert not (tmp_path / "a.zip").exists()


def test_a_server_that_promises_less_than_it_has(publisher: Publisher, tmp_path: Path) -> None:
    publisher.says = len(DATA) - 1000
    with pytest.raises(DownloadError, match=r"MD5 is .* run the same command again"):
        fetch(publisher, tmp_path, MD5)
    assert names(tmp_path) == []
    publisher.says = None
    assert fetch(publisher, tmp_path, MD5).read_bytes() == DATA


GOOGLE = {"x-goog-hash": f"crc32c=AAAAAA==, md5={base64.b64encode(bytes.fromhex(MD5)).decode()}"}
AMAZON = {"Server": "AmazonS3"}  # its ETag is the MD5


@pytest.mark.parametrize("headers", [GOOGLE, AMAZON])
def test_a_part_that_was_damaged_on_the_disk(headers: dict[str, str], publisher: Publisher, tmp_path: Path) -> None:
    """The server reports the hash of a file whose publisher gives none."""
    publisher.headers, publisher.breaks = headers, [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(publisher, tmp_path)
    publisher.breaks = []
    (tmp_path / "a.zip.part").write_bytes(bytes(100_000))
    with pytest.raises(DownloadError, match=r"MD5 is .* run the same command again"):
        fetch(publisher, tmp_path)
    assert names(tmp_path) == []
    assert fetch(publisher, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(
    "headers",
    [
        {"x-goog-hash": f"md5={'A' * 22}==", "x-goog-stored-content-encoding": "gzip"},
        {"x-goog-hash": "md5=?"},
        {**AMAZON, "x-amz-server-side-encryption": "aws:kms"},
    ],
)
def test_hashes_of_something_else_are_not_used(
    headers: dict[str, str], publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Publisher, "mark", lambda *_: f'"{0:032}"')
    publisher.headers = headers
    assert fetch(publisher, tmp_path).read_bytes() == DATA


def test_a_part_of_another_file_is_not_resumed(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"something else")
    assert fetch(publisher, tmp_path).read_bytes() == DATA
    (tmp_path / "a.zip").unlink()
    (tmp_path / "a.zip.part").write_bytes(DATA[:1000])
    (tmp_path / "a.zip.part.json").write_text("{broken")
    assert fetch(publisher, tmp_path).read_bytes() == DATA
    # Longer than the file, but with notes of it.
    (tmp_path / "a.zip").rename(tmp_path / "a.zip.part")
    with (tmp_path / "a.zip.part").open("ab") as file:
        file.write(b"tail")
    (tmp_path / "a.zip.part.json").write_text(f'{{"url": "{publisher.base}/a.zip", "size": {len(DATA)}, "tag": null}}')
    assert fetch(publisher, tmp_path).read_bytes() == DATA


def test_status_codes(publisher: Publisher, tmp_path: Path) -> None:
    publisher.statuses = [503, 429, 500]
    assert fetch(publisher, tmp_path).read_bytes() == DATA
    with pytest.raises(DownloadError, match="answered 404"):
        fetch(publisher, tmp_path, name="none.zip")
    assert len([path for path, _ in publisher.asked if path == "/none.zip"]) == 1  # a retry would not help
    with Client() as client, pytest.raises(DownloadError, match="not a web address"):
        client.fetch(Resource("file:///etc/passwd"), tmp_path)


def test_an_unreachable_server(tmp_path: Path) -> None:
    with Client(pause=0) as client:
        message = r"cannot be reached \(Connection refused\)\. Run the same command again later"
        with pytest.raises(DownloadError, match=message):
            client.fetch(Resource("http://127.0.0.1:9/a.zip"), tmp_path)


def test_space_is_checked_before_anything_is_written(publisher: Publisher, tmp_path: Path) -> None:
    def refuse(missing: int) -> None:
        assert missing == len(DATA)
        raise DownloadError("no space")

    with pytest.raises(DownloadError, match="no space"):
        fetch(publisher, tmp_path, check_space=refuse)
    assert names(tmp_path) == []


def test_a_full_disk(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DownloadError, match="No space left on device"):
        fetch(publisher, tmp_path)


def test_progress_adds_up(publisher: Publisher, tmp_path: Path) -> None:
    class Counting(Progress):
        total: int | None = None
        done = 0

        def start(self, total: int | None, done: int = 0, *, what: str = "", unit: str = "images") -> None:
            self.total, self.done = total, done

        def advance(self, amount: int = 1) -> None:
            self.done += amount

    counting = Counting()
    publisher.breaks = [100_000]
    fetch(publisher, tmp_path, progress=counting)
    assert counting.total == counting.done == len(DATA)
