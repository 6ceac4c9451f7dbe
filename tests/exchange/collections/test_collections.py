"""From an address to a folder that can be indexed: COCO and CIFAR-10 in small, and archives that mean harm."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchengine import cli
from searchengine.exchange.collections import DATASETS, Dataset, DownloadError, download_dataset
from searchengine.exchange.collections.cifar10 import CLASSES
from searchengine.indexing.labels import labels_from
from tests.exchange.collections.conftest import Publisher
from tests.fakes import picture

VAL = DATASETS["coco-val2017"]
CIFAR = DATASETS["cifar10"]


def zipped(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return out.getvalue()


def tarred(files: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda info: None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def published(dataset: Dataset, publisher: Publisher, *archives: bytes) -> Dataset:
    """The collection as that publisher has it."""
    parts = []
    for part, data in zip(dataset.parts, archives, strict=False):
        publisher.files[f"/{part.resource.name}"] = data
        md5 = hashlib.md5(data).hexdigest() if part.resource.md5 else None
        parts.append(
            replace(part, resource=replace(part.resource, url=f"{publisher.base}/{part.resource.name}", md5=md5))
        )
    return replace(dataset, parts=tuple(parts))


def coco(publisher: Publisher, **more: bytes) -> Dataset:
    annotations = {
        "images": [{"id": 139, "file_name": "000000000139.jpg"}],
        "categories": [{"id": 1, "name": "tv"}],
        "annotations": [{"id": 1, "image_id": 139, "category_id": 1}],
    }
    photos = {"val2017/": b"", "val2017/000000000139.jpg": picture((9, 9, 9), kind="JPEG"), **more}
    labels = {
        "annotations/instances_val2017.json": json.dumps(annotations).encode(),
        "annotations/captions_val2017.json": b"{}",
    }
    return published(VAL, publisher, zipped(photos), zipped(labels))


def batches(seed: int = 0, each: int = 20) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    made = {}
    for name in names:
        records = random.integers(0, 256, (each, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(each) % 10
        made[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
    return made


def files_in(folder: Path) -> list[str]:
    return sorted(
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and ".download" not in file.parts
    )


def test_the_publishers_addresses() -> None:
    urls = {part.resource.url for dataset in DATASETS.values() for part in dataset.parts}
    assert urls == {
        "http://images.cocodataset.org/zips/val2017.zip",
        "http://images.cocodataset.org/zips/train2017.zip",
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    }
    assert CIFAR.parts[0].resource.md5 == "c32a1d4ab5d03f1284b67883e8d87530"


def test_coco(publisher: Publisher, tmp_path: Path) -> None:
    dataset = coco(publisher, **{"val2017/notes.txt": b"no photograph"})
    publisher.breaks = [50, 100]
    done = download_dataset(dataset, tmp_path / "coco", pause=0)
    assert files_in(tmp_path / "coco") == ["annotations/instances_val2017.json", "val2017/000000000139.jpg"]
    assert (done.files, done.pictures) == (2, tmp_path / "coco" / "val2017")
    assert done.label_file is not None
    labels_from(str(done.label_file))  # the index takes it
    # A second run does nothing.
    publisher.asked.clear()
    again = download_dataset(dataset, tmp_path / "coco")
    assert (again.files, again.pictures, again.label_file) == (0, done.pictures, done.label_file)
    assert publisher.asked == []
    # But what has gone is fetched again, and only that.
    shutil.rmtree(tmp_path / "coco" / "val2017")
    assert download_dataset(dataset, tmp_path / "coco").files == 1
    assert [path for path, _ in publisher.asked] == ["/val2017.zip"]


def test_coco_without_labels_and_with_its_archives_kept(publisher: Publisher, tmp_path: Path) -> None:
    done = download_dataset(coco(publisher), tmp_path, labels=False, keep=True)
    assert done.label_file is None
    assert files_in(tmp_path) == ["val2017/000000000139.jpg"]
    assert (tmp_path / ".download" / "val2017.zip").exists()


def test_cifar10(publisher: Publisher, tmp_path: Path) -> None:
    made = batches()
    dataset = published(CIFAR, publisher, tarred({**made, "cifar-10-batches-bin/readme.html": b"hello"}))
    done = download_dataset(dataset, tmp_path)
    assert (done.files, done.pictures, done.label_file) == (120, tmp_path / "train", None)
    assert sorted(folder.name for folder in done.pictures.iterdir()) == sorted(CLASSES)
    assert len(files_in(tmp_path / "train")) == 100
    # Number 3 of the second batch is a cat; its bytes are the red, the green and the blue plane.
    record = made["cifar-10-batches-bin/data_batch_2.bin"][3 * 3073 : 4 * 3073]
    with Image.open(tmp_path / "train" / "cat" / "10003.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (32, 32, 3)
    for y, x, channel in ((0, 0, 0), (0, 1, 2), (31, 30, 1)):
        assert pixels[y, x, channel] == record[1 + channel * 1024 + y * 32 + x]
    assert download_dataset(dataset, tmp_path).files == 0


def test_a_damaged_cifar10(publisher: Publisher, tmp_path: Path) -> None:
    made = batches()
    whole = tarred(made)
    name = "cifar-10-batches-bin/test_batch.bin"
    for data, words in (
        (whole[: len(whole) // 2], "damaged"),
        (b"no archive", "damaged"),
        (tarred({**made, name: made[name][:-1]}), "has 61,459 bytes"),
        (tarred({**made, name: b"\x0a" + made[name][1:]}), "a class that does not exist"),
        (tarred({"other/data_batch_1.bin": made[name]}), "holds nothing of CIFAR-10"),
    ):
        with pytest.raises(DownloadError, match=f"{words}.*run the same command again"):
            download_dataset(published(CIFAR, publisher, data), tmp_path)
        assert files_in(tmp_path) == []
        assert not list((tmp_path / ".download").glob("*.gz*"))


def test_archives_that_mean_harm(publisher: Publisher, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    photo = picture((1, 2, 3), kind="JPEG")
    names = ["../evil.jpg", "/tmp/evil.jpg", "val2017/../../evil.jpg", "val2017/..\\evil.jpg", "other/000000000001.jpg"]
    archive = zipped({**dict.fromkeys(names, photo), "val2017/000000000002.jpg": photo})
    download_dataset(published(VAL, publisher, archive), inside)
    assert files_in(tmp_path) == ["a/b/val2017/000000000002.jpg"]
    shutil.rmtree(inside)
    with pytest.raises(DownloadError, match="a link in place of a file"):
        download_dataset(published(VAL, publisher, zipped({}, {"val2017/000000000001.jpg": "/etc/passwd"})), inside)
    assert files_in(tmp_path) == []

    def link(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"

    with pytest.raises(DownloadError, match="a link in place of a file"):
        download_dataset(published(CIFAR, publisher, tarred(batches(), link)), inside)
    bomb = {"cifar-10-batches-bin/data_batch_1.bin": bytes(10_001 * 3073)}
    with pytest.raises(DownloadError, match="larger than it can be"):
        download_dataset(published(CIFAR, publisher, tarred(bomb)), inside)
    assert files_in(tmp_path) == []


def test_a_damaged_zip(publisher: Publisher, tmp_path: Path) -> None:
    archive = bytearray(zipped({"val2017/000000000001.jpg": bytes(range(256)) * 40}))
    archive[60] ^= 255  # in the compressed bytes
    for data in (bytes(archive), b"no archive", b""):
        with pytest.raises(DownloadError, match=r"damaged.*run the same command again"):
            download_dataset(published(VAL, publisher, data), tmp_path)
        assert files_in(tmp_path) == []


def test_an_unpacking_that_was_killed_starts_anew(publisher: Publisher, tmp_path: Path) -> None:
    half = tmp_path / ".download" / "unpacking" / "val2017"
    half.mkdir(parents=True)
    (half / "000000000001.jpg").write_bytes(b"half of it")
    download_dataset(coco(publisher), tmp_path)
    assert files_in(tmp_path) == ["annotations/instances_val2017.json", "val2017/000000000139.jpg"]


def test_no_room(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(DownloadError, match=r"val2017.zip needs .* GB .* Make room"):
        download_dataset(coco(publisher), tmp_path)
    assert not list((tmp_path / ".download").glob("*.part"))


def test_what_is_in_the_way(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DownloadError, match="cannot be made"):
        download_dataset(coco(publisher), tmp_path / "file")
    (tmp_path / "val2017").write_text("mine")
    with pytest.raises(DownloadError, match="is in the way"):
        download_dataset(coco(publisher), tmp_path)
    assert (tmp_path / "val2017").read_text() == "mine"


def test_two_at_a_time(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / ".download").mkdir()
    with (tmp_path / ".download" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="Another download"):
            download_dataset(coco(publisher), tmp_path)
    assert publisher.asked == []


def test_the_command(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATASETS, "coco-val2017", coco(publisher))
    to = str(tmp_path / "my coco")
    assert cli.main(["download", "coco-val2017", "--to", to]) == 0
    told = capsys.readouterr()
    assert told.out.startswith(f"searchengine index '{to}/val2017' --index-dir coco-val2017 --labels ")
    assert cli.main(["download", "coco-val2017", "--to", to, "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["files"] == 0
    publisher.files.clear()
    assert cli.main(["download", "coco-val2017", "--to", str(tmp_path / "other")]) == 1
    told = capsys.readouterr()
    assert "answered 404" in told.err
    assert "Traceback" not in told.err
    with pytest.raises(SystemExit):
        cli.main(["download", "imagenet", "--to", to])
