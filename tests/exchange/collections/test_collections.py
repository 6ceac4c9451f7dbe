"""From an address to a folder that can be indexed: small versions of COCO and CIFAR-10, and malicious archives."""

from __future__ import annotations

import fcntl
import gzip
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
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searchengine import cli
from searchengine.download import Client, DownloadError, Resource
from searchengine.exchange.collections import (
    CIFAR10_CLASSES,
    DATASETS,
    Dataset,
    Downloaded,
    DownloadOptions,
    download_dataset,
)
from searchengine.indexing.labels import labels_from
from tests.exchange.collections.conftest import Publisher
from tests.fakes import picture

VAL = DATASETS["coco-val2017"]
CIFAR = DATASETS["cifar10"]
PHOTO = picture((9, 9, 9), kind="JPEG")


COCO_FILES = [
    "annotations/instances_train2017.json",
    "annotations/instances_val2017.json",
    "val2017/000000000139.jpg",
]


def zipped(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A zip archive with reproducible bytes: its files are dated 1980."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return out.getvalue()


def tarred(files: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda info: None) -> bytes:
    """A tar archive with reproducible bytes."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def published(dataset: Dataset, publisher: Publisher, *archives: tuple[bytes, int]) -> Dataset:
    """Publish archives, each with its number of files, as the parts of a collection."""
    parts = []
    for part, (data, files) in zip(dataset.parts, archives, strict=False):
        publisher.files[f"/{part.resource.name}"] = data
        resource = Resource(f"{publisher.base}/{part.resource.name}", hashlib.md5(data).hexdigest())
        parts.append(replace(part, resource=resource, files=files))
    return replace(dataset, parts=tuple(parts))


def download(dataset: Dataset, to: Path, **options: Any) -> Downloaded:
    with Client(pause=0) as client:
        return download_dataset(dataset, to, DownloadOptions(**options), client=client)


def coco(publisher: Publisher, **more: bytes) -> Dataset:
    annotations = {
        "images": [{"id": 139, "file_name": "000000000139.jpg"}],
        "categories": [{"id": 1, "name": "tv"}],
        "annotations": [{"id": 1, "image_id": 139, "category_id": 1}],
    }
    photos = {"val2017/": b"", "val2017/000000000139.jpg": PHOTO, **more}
    labels = {
        "annotations/instances_val2017.json": json.dumps(annotations).encode(),
        "annotations/instances_train2017.json": json.dumps(annotations).encode(),
        "annotations/captions_val2017.json": b"{}",
    }
    return published(VAL, publisher, (zipped(photos), 1), (zipped(labels), 2))


def batches(seed: int = 0, each: int = 20) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    names = [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    archive = {}
    for name in names:
        records = random.integers(0, 256, (each, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(each) % 10
        archive[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
    return archive


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
    assert CIFAR.parts[0].resource.digest == "c32a1d4ab5d03f1284b67883e8d87530"
    assert [part.files for part in (*VAL.parts, *CIFAR.parts)] == [5_000, 2, 60_000]


def test_coco(publisher: Publisher, tmp_path: Path) -> None:
    dataset = coco(publisher, **{"val2017/notes.txt": b"no photograph"})
    publisher.breaks = [50, 100]
    done = download(dataset, tmp_path / "coco")
    assert files_in(tmp_path / "coco") == COCO_FILES
    assert (done.files, done.pictures) == (3, tmp_path / "coco" / "val2017")
    assert done.label_file is not None
    labels_from(str(done.label_file))  # the index takes it
    # A second run does nothing.
    publisher.asked.clear()
    again = download(dataset, tmp_path / "coco")
    assert (again.files, again.pictures, again.label_file) == (0, done.pictures, done.label_file)
    assert publisher.asked == []
    # But what has gone is fetched again, and only that.
    shutil.rmtree(tmp_path / "coco" / "val2017")
    assert download(dataset, tmp_path / "coco").files == 1
    assert [path for path, _ in publisher.asked] == ["/val2017.zip"]


def test_coco_without_labels_and_with_its_archives_kept(publisher: Publisher, tmp_path: Path) -> None:
    done = download(coco(publisher), tmp_path, labels=False, keep=True)
    assert done.label_file is None
    assert files_in(tmp_path) == ["val2017/000000000139.jpg"]
    assert (tmp_path / ".download" / "val2017.zip").exists()


def saved(publisher: Publisher, folder: Path) -> list[Path]:
    """The publisher's archives as a user has saved them."""
    folder.mkdir(exist_ok=True)
    for name, data in publisher.files.items():
        (folder / name[1:]).write_bytes(data)
    return [folder / name[1:] for name in publisher.files]


def test_given_archives_need_no_network_and_are_kept(publisher: Publisher, tmp_path: Path) -> None:
    dataset = coco(publisher)
    archives = saved(publisher, tmp_path / "saved")
    publisher.files.clear()
    done = download(dataset, tmp_path / "coco", archives=archives)
    assert (done.files, files_in(tmp_path / "coco"), publisher.asked) == (3, COCO_FILES, [])
    assert [archive.exists() for archive in archives] == [True, True]
    assert sorted(file.name for file in (tmp_path / "coco" / ".download").iterdir()) == [
        "annotations_trainval2017.zip.done",
        "val2017.zip.done",
    ]
    # Without the labels' archive, only the labels are missing.
    with pytest.raises(DownloadError, match=r"answered 404.*\n.*annotations_trainval2017\.zip.*--archive"):
        download(dataset, tmp_path / "other", archives=archives[:1])
    assert files_in(tmp_path / "other") == ["val2017/000000000139.jpg"]
    assert download(dataset, tmp_path / "photos", archives=archives[:1], labels=False).files == 1


@pytest.mark.parametrize("place", ["given", "left over"])
@pytest.mark.parametrize("fault", ["another file", "cut short", "too few files"])
def test_a_wrong_archive_is_refused_and_kept(publisher: Publisher, tmp_path: Path, place: str, fault: str) -> None:
    dataset = coco(publisher)
    folder = tmp_path / "saved" if place == "given" else tmp_path / "coco" / ".download"
    folder.parent.mkdir(exist_ok=True)
    archives = saved(publisher, folder)
    data = {
        "another file": zipped({"val2017/000000000139.jpg": PHOTO, "val2017/000000000140.jpg": PHOTO}),
        "cut short": archives[0].read_bytes()[:-9],
        "too few files": zipped({"val2017/": b""}),
    }[fault]
    archives[0].write_bytes(data)
    if fault == "too few files":  # with no hash to go by
        photos = replace(dataset.parts[0], resource=replace(dataset.parts[0].resource, digest=None))
        dataset = replace(dataset, parts=(photos, dataset.parts[1]))
    with pytest.raises(DownloadError, match=r"(is not the file|holds 0 of the 1 files).* left as it is.*Replace it"):
        download(dataset, tmp_path / "coco", archives=archives if place == "given" else ())
    assert files_in(tmp_path / "coco") == []
    assert archives[0].read_bytes() == data


def test_an_archive_left_over_is_checked_used_and_kept(publisher: Publisher, tmp_path: Path) -> None:
    dataset = coco(publisher)
    archives = saved(publisher, tmp_path / ".download")
    assert download(dataset, tmp_path).files == 3
    assert (files_in(tmp_path), publisher.asked) == (COCO_FILES, [])
    assert [archive.exists() for archive in archives] == [True, True]


def test_archives_of_other_collections(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"")
    for name, words in (("photos.zip", r"name of .* val2017\.zip or annotations"), ("none.zip", "no file")):
        with pytest.raises(DownloadError, match=f"{words}.*--archive"):
            download(coco(publisher), tmp_path / "coco", archives=[tmp_path / name])
    assert not (tmp_path / "coco").exists()


def test_what_is_in_the_way_does_not_cost_the_download(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "val2017").write_text("mine")
    with pytest.raises(DownloadError, match="is in the way"):
        download(coco(publisher), tmp_path)
    (tmp_path / "val2017").unlink()
    publisher.asked.clear()
    assert download(coco(publisher), tmp_path).files == 3
    assert [path for path, _ in publisher.asked] == ["/annotations_trainval2017.zip"]


def test_cifar10(publisher: Publisher, tmp_path: Path) -> None:
    archive = batches()
    dataset = published(CIFAR, publisher, (tarred({**archive, "cifar-10-batches-bin/readme.html": b"hello"}), 120))
    done = download(dataset, tmp_path)
    assert (done.files, done.pictures, done.label_file) == (120, tmp_path / "train", None)
    assert sorted(folder.name for folder in done.pictures.iterdir()) == sorted(CIFAR10_CLASSES)
    assert len(files_in(tmp_path / "train")) == 100
    # Number 3 of the second batch is a cat; its bytes are the red, the green and the blue plane.
    record = archive["cifar-10-batches-bin/data_batch_2.bin"][3 * 3073 : 4 * 3073]
    with Image.open(tmp_path / "train" / "cat" / "10003.png") as image:
        pixels = np.asarray(image)
    assert pixels.shape == (32, 32, 3)
    for y, x, channel in ((0, 0, 0), (0, 1, 2), (31, 30, 1)):
        assert pixels[y, x, channel] == record[1 + channel * 1024 + y * 32 + x]
    assert download(dataset, tmp_path).files == 0


def test_a_damaged_cifar10(publisher: Publisher, tmp_path: Path) -> None:
    archive = batches()
    whole = tarred(archive)
    name = "cifar-10-batches-bin/test_batch.bin"
    for data, words in (
        (whole[: len(whole) // 2], "damaged"),
        (b"no archive", "damaged"),
        (tarred({**archive, name: archive[name][:-1]}), "has 61,459 bytes"),
        (tarred({**archive, name: b"\x0a" + archive[name][1:]}), "a class that does not exist"),
        (tarred({"other/data_batch_1.bin": archive[name]}), "holds 0 of the 120 files"),
        (tarred({name: archive[name]}), "holds 20 of the 120 files"),
    ):
        with pytest.raises(DownloadError, match=f"{words}.*run the same command again"):
            download(published(CIFAR, publisher, (data, 120)), tmp_path)
        assert files_in(tmp_path) == []
        assert not list((tmp_path / ".download").glob("*.gz*"))


def test_malicious_archives(publisher: Publisher, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    names = ["../evil.jpg", "/tmp/evil.jpg", "val2017/../../evil.jpg", "val2017/..\\evil.jpg", "other/000000000001.jpg"]
    archive = zipped({**dict.fromkeys(names, PHOTO), "val2017/000000000002.jpg": PHOTO})
    download(published(VAL, publisher, (archive, 1)), inside)
    assert files_in(tmp_path) == ["a/b/val2017/000000000002.jpg"]
    shutil.rmtree(inside)
    with pytest.raises(DownloadError, match="a link in place of the file"):
        download(published(VAL, publisher, (zipped({}, {"val2017/000000000001.jpg": "/etc/passwd"}), 1)), inside)
    assert files_in(tmp_path) == []

    def link(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"

    with pytest.raises(DownloadError, match="a link in place of the file"):
        download(published(CIFAR, publisher, (tarred(batches(), link), 120)), inside)
    bomb = {"cifar-10-batches-bin/data_batch_1.bin": bytes(10_001 * 3073)}
    with pytest.raises(DownloadError, match="larger than possible"):
        download(published(CIFAR, publisher, (tarred(bomb), 120)), inside)
    assert files_in(tmp_path) == []


def test_a_damaged_zip(publisher: Publisher, tmp_path: Path) -> None:
    archive = bytearray(zipped({"val2017/000000000001.jpg": bytes(range(256)) * 40}))
    archive[60] ^= 255  # in the compressed bytes
    for data in (bytes(archive), b"no archive", b""):
        with pytest.raises(DownloadError, match=r"damaged.*run the same command again"):
            download(published(VAL, publisher, (data, 1)), tmp_path)
        assert files_in(tmp_path) == []


def test_unpacking_that_was_killed_starts_again(publisher: Publisher, tmp_path: Path) -> None:
    half = tmp_path / ".download" / "unpacking" / "val2017"
    half.mkdir(parents=True)
    (half / "000000000001.jpg").write_bytes(b"half of it")
    download(coco(publisher), tmp_path)
    assert files_in(tmp_path) == COCO_FILES


def test_no_space(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(DownloadError, match=r"val2017.zip needs .* Make room"):
        download(coco(publisher), tmp_path)
    assert not list((tmp_path / ".download").glob("*.part"))


def test_what_is_in_the_way(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DownloadError, match="cannot be created"):
        download(coco(publisher), tmp_path / "file")


def test_two_at_a_time(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / ".download").mkdir()
    with (tmp_path / ".download" / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadError, match="Another download"):
            download(coco(publisher), tmp_path)
    assert publisher.asked == []


def test_the_command(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(DATASETS, "coco-val2017", coco(publisher))
    to = str(tmp_path / "my coco")
    assert cli.main(["download", "coco-val2017", "--to", to]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"searchengine index '{to}/val2017' --index-dir coco-val2017 --labels ")
    assert cli.main(["download", "coco-val2017", "--to", to, "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["files"] == 0
    given = [word for archive in saved(publisher, tmp_path) for word in ("--archive", str(archive))]
    publisher.files.clear()
    assert cli.main(["download", "coco-val2017", "--to", str(tmp_path / "third"), *given]) == 0
    capsys.readouterr()
    assert cli.main(["download", "coco-val2017", "--to", str(tmp_path / "other")]) == 1
    output = capsys.readouterr()
    assert "answered 404" in output.err
    assert "Traceback" not in output.err
    assert cli.main(["download", "imagenet", "--to", to]) == 2
