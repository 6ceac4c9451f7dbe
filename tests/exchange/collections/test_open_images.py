"""Photographs by class, from a publisher on this machine: which are chosen, where they are stored, what can fail."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from searchengine import cli, download
from searchengine.download import Client, DownloadError
from searchengine.exchange import open_images
from searchengine.exchange.collections import Downloaded
from searchengine.exchange.open_images import PUBLISHER, Selection, download_open_images
from searchengine.exchange.open_images import Publisher as Addresses
from searchengine.indexing import update_index
from tests.exchange.collections.conftest import Publisher
from tests.fakes import FakeExtractor, Sentences, picture

CLASSES = {"/m/01yrx": "Cat", "/m/0bt9lr": "Dog", "/m/0633h": "Polar bear", "/g/11x": "Mac/PC", "/m/0rare": "Rare"}
SPLITS = ("validation", "test", "train")
JPEG = picture((9, 9, 9), kind="JPEG")
Rows = list[tuple[str, str, str]]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a table of a few hundred rows arrive in many pieces."""
    monkeypatch.setattr(download, "_CHUNK", 97)


@pytest.fixture
def tables(publisher: Publisher) -> dict[str, Rows]:
    """Publish photographs, and return the (id, class id, confidence) rows of each split, sorted by id."""
    generator, tables = random.Random(3), {}
    for number, split in enumerate(SPLITS):
        rows = []
        for at in range(60):
            id_ = f"{number}{generator.getrandbits(60):015x}"
            marks = generator.sample(["/m/01yrx", "/m/0bt9lr", "/g/11x", "/m/0other"], generator.randint(1, 3))
            if split == "train" and at == 50:
                rows.append((id_, "/m/0rare", "1"))
            rows += [(id_, mark, generator.choice(["0", "1", "1", "1.0", "0.0"])) for mark in marks]
            publisher.files[f"/{split}/{id_}.jpg"] = JPEG
        tables[split] = sorted(rows)
    publish(publisher, tables)
    return tables


def publish(publisher: Publisher, tables: dict[str, Rows]) -> None:
    names = "LabelName,DisplayName\n" + "".join(f"{mark},{name}\n" for mark, name in CLASSES.items())
    publisher.files["/classes.csv"] = names.encode()
    for split, rows in tables.items():
        lines = ["ImageID,Source,LabelName,Confidence", *(f"{id_},verification,{m},{c}" for id_, m, c in rows)]
        publisher.files[f"/{split}.csv"] = "\n".join(lines).encode()


def addresses(publisher: Publisher) -> Addresses:
    base = publisher.base
    return Addresses(
        f"{base}/classes.csv", {split: f"{base}/{split}.csv" for split in SPLITS}, base + "/{split}/{id}.jpg"
    )


def get(publisher: Publisher, to: Path, classes: list[str], images: int) -> Downloaded:
    with Client(pause=0) as client:
        return download_open_images(Selection(classes, images), to, publisher=addresses(publisher), client=client)


def expected(
    tables: dict[str, Rows], classes: list[str], images: int, gone: tuple[str, ...] = ()
) -> dict[str, set[str]]:
    """Choose photographs by a plain loop over all rows: id -> names of its classes."""
    marks = {mark: name for mark, name in CLASSES.items() if name in classes}
    counts: dict[str, int] = defaultdict(int)
    chosen: dict[str, set[str]] = {}
    for split in SPLITS:
        if all(counts[name] >= images for name in classes):
            break
        by_photo: dict[str, list[str]] = defaultdict(list)
        for id_, mark, confidence in tables[split]:
            if mark in marks and float(confidence) == 1 and id_ not in gone:
                by_photo[id_].append(marks[mark])
        for id_, names in by_photo.items():
            if all(counts[name] >= images for name in classes):
                break
            if any(counts[name] < images for name in names):
                chosen[id_] = set(names)
                for name in names:
                    counts[name] += 1
    return chosen


def labels_of(done: Downloaded) -> dict[str, set[str]]:
    labels: dict[str, set[str]] = {}
    if done.label_file is not None:
        with done.label_file.open(newline="") as file:
            for row in csv.DictReader(file):
                assert (done.pictures / row["path"]).is_file()
                labels.setdefault(Path(row["path"]).stem, set()).add(row["label"])
    return labels or {file.stem: {file.parent.name} for file in done.pictures.rglob("*.jpg")}


def test_the_publishers_addresses() -> None:
    tables = "https://storage.googleapis.com/openimages/v7"
    assert PUBLISHER.classes == f"{tables}/oidv7-class-descriptions.csv"
    assert PUBLISHER.labels == {
        "validation": f"{tables}/oidv7-val-annotations-human-imagelabels.csv",
        "test": f"{tables}/oidv7-test-annotations-human-imagelabels.csv",
        "train": f"{tables}/oidv7-train-annotations-human-imagelabels.csv",
    }
    address = PUBLISHER.photos.format(split="train", id="000002b66c9c498e")
    assert address == "https://open-images-dataset.s3.amazonaws.com/train/000002b66c9c498e.jpg"


@pytest.mark.parametrize("images", [1, 5, 40, 500])
def test_which_photographs(publisher: Publisher, tables: dict[str, Rows], tmp_path: Path, images: int) -> None:
    publisher.files["/validation.csv"] += b"\n../../etc/cat,verification,/m/01yrx,1"  # no photograph
    done = get(publisher, tmp_path, ["cat", "DOG"], images)
    assert labels_of(done) == expected(tables, ["Cat", "Dog"], images)
    assert done.files == len(list(done.pictures.rglob("*.jpg")))
    # Only the tables that are needed were requested, and they are kept.
    assert ("/train.csv" in [path for path, _ in publisher.asked]) == (images > 5)
    publisher.asked.clear()
    assert get(publisher, tmp_path, ["Cat", "Dog"], images).files == 0
    assert publisher.asked == []


def test_one_class_needs_no_table_of_labels(publisher: Publisher, tables: dict[str, Rows], tmp_path: Path) -> None:
    done = get(publisher, tmp_path, ["/g/11x"], 4)
    assert done.label_file is None
    assert [file.parent.name for file in done.pictures.rglob("*.jpg")] == ["Mac-PC"] * 4
    # More photographs and another class in the same folder: existing files stay, and get their labels.
    more = get(publisher, tmp_path, ["Cat", "Mac/PC"], 9)
    wanted = expected(tables, ["Cat", "Mac/PC"], 9)
    assert labels_of(more).items() >= wanted.items()
    assert more.files == len(list(more.pictures.rglob("*.jpg"))) - 4


def test_breaks_and_kills(
    publisher: Publisher, tables: dict[str, Rows], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = expected(tables, ["Rare", "Dog"], 30)
    publisher.breaks = [10, 1_000_000, 300, 100, 0, 150]  # within the classes, then within the tables
    publisher.files["/test.csv"] += b"\r\n"
    with monkeypatch.context() as killed:
        killed.setattr(open_images._Server, "fetch_photos", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            get(publisher, tmp_path, ["Rare", "Dog"], 30)
    publisher.asked.clear()
    assert labels_of(get(publisher, tmp_path, ["Rare", "Dog"], 30)) == wanted
    assert not [path for path, _ in publisher.asked if path.endswith(".csv")]


def test_photographs_that_are_gone_are_replaced(publisher: Publisher, tables: dict[str, Rows], tmp_path: Path) -> None:
    gone = tuple(expected(tables, ["Cat"], 10))[2:5]
    for id_ in gone:
        del publisher.files[f"/validation/{id_}.jpg"]
    done = get(publisher, tmp_path, ["Cat"], 10)
    assert labels_of(done) == expected(tables, ["Cat"], 10, gone)
    assert done.files == 10
    publisher.asked.clear()
    assert get(publisher, tmp_path, ["Cat"], 10).files == 0
    assert publisher.asked == []


def test_a_photograph_that_was_damaged_on_its_way(
    publisher: Publisher, tables: dict[str, Rows], tmp_path: Path
) -> None:
    (first, *_) = expected(tables, ["Cat"], 3)
    path = f"/validation/{first}.jpg"
    publisher.files[path] = b"<html>Please log in</html>"
    with pytest.raises(DownloadError, match="is not a JPEG"):
        get(publisher, tmp_path, ["Cat"], 3)
    publisher.files[path] = JPEG
    assert labels_of(get(publisher, tmp_path, ["Cat"], 3)) == expected(tables, ["Cat"], 3)


def test_refusals(publisher: Publisher, tables: dict[str, Rows], tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"no class 'Polar beer'. The closest are: Polar bear, .*All 5 are listed in"
    ):
        get(publisher, tmp_path, ["Cat", "Polar beer"], 3)
    with pytest.raises(DownloadError, match="There is no photograph of Polar bear in validation, test, train"):
        get(publisher, tmp_path, ["polar_bear"], 3)
    publisher.files["/validation.csv"] = b"<html>"
    with pytest.raises(DownloadError, match="changed the format"):
        get(publisher, tmp_path / "other", ["Cat"], 3)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DownloadError, match="cannot be created"):
        get(publisher, tmp_path / "file", ["Cat"], 3)
    publisher.files["/classes.csv"] = b"\xff\xfe\x00"
    with pytest.raises(DownloadError, match="Delete it"):
        get(publisher, tmp_path / "third", ["Cat"], 3)


def test_the_command(
    publisher: Publisher,
    tables: dict[str, Rows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    defaults = open_images.download_open_images.__kwdefaults__
    monkeypatch.setattr(
        open_images.download_open_images, "__kwdefaults__", {**defaults, "publisher": addresses(publisher)}
    )
    to = str(tmp_path / "pets")
    command = ["download", "open-images", "--to", to, "--classes", "Cat", "Rare", "--images", "3"]
    assert cli.main([*command, "--split", "train", "validation"]) == 0
    output = capsys.readouterr()
    assert "Rare: only 1 photographs in train, validation" in output.err
    assert output.out.startswith(f"searchengine index {to}/images --index-dir open-images")
    assert cli.main([*command, "--split", "train", "validation", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0
    # The index takes what it writes.
    progress = Sentences()
    labels = f"{to}/labels.csv" if Path(to, "labels.csv").exists() else "folder"
    update_index([f"{to}/images"], tmp_path / "i", extractor=FakeExtractor(), labels=labels, progress=progress)
    assert "not named in" not in progress.text
    for wrong in (["download", "open-images", "--to", to], ["download", "cifar10", "--to", to, "--images", "3"]):
        assert cli.main(wrong) == 2
        assert "--classes" in capsys.readouterr().err


@pytest.mark.parametrize(("free", "what"), [(100, "validation.csv"), (100_000, "2 photographs")])
def test_no_space(
    publisher: Publisher,
    tables: dict[str, Rows],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    what: str,
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
    with pytest.raises(DownloadError, match=rf"no room for {what}: .* Make room"):
        get(publisher, tmp_path, ["Cat"], 2)
