"""Labels from a CSV file or COCO annotations, and what is recorded of them; the metric of an index."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from searchengine.engine import open_index
from searchengine.errors import IndexingError
from searchengine.indexing import IndexingOptions, Summary, update_index
from searchengine.indexing.labels import labels_from
from searchengine.progress import Quiet
from tests.fakes import OTHER_SPEC, SPEC, FakeExtractor, write_pictures

Update = Callable[..., Summary]


class Told(Quiet):
    """A progress that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """a.png, sub/b.png and sub/c.png, old enough to be trusted."""
    folder = tmp_path / "photos"
    write_pictures(folder, a=1, sub__b=2, sub__c=3)
    for file in folder.rglob("*.png"):
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return folder


@pytest.fixture
def update(tmp_path: Path, photos: Path, told: Told) -> Update:
    def run(*folders: Path, spec: Any = SPEC, **options: Any) -> Summary:
        return update_index(
            folders or [photos],
            tmp_path / "index",
            extractor=FakeExtractor(spec),
            options=IndexingOptions(**options),
            progress=told,
        )

    return run


def labels_of(folder: Path) -> dict[str, tuple[str, ...]]:
    index = open_index(folder)
    try:
        return {record.path: record.labels for record in index.records(index.ids.tolist())}
    finally:
        index.close()


def test_a_csv_file_is_followed_and_remembered(tmp_path: Path, update: Update, told: Told) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label\na.png,cat\na.png,dog\n./sub/b.png,bird\ngone.png,x\n")
    update(labels=str(file))
    assert labels_of(tmp_path / "index") == {"a.png": ("cat", "dog"), "sub/b.png": ("bird",), "sub/c.png": ()}
    assert len(told.said) == 1
    assert "1 of 3 files are not named in" in told.said[0]
    assert "1 of the 3 files named in" in told.said[0]
    file.write_text('label,path\n"fish, blue",sub/c.png\n')
    done = update()  # the recorded choice, and what the file says now
    assert (done.embedded, done.unchanged) == (0, 3)
    assert labels_of(tmp_path / "index") == {"a.png": (), "sub/b.png": (), "sub/c.png": ("fish, blue",)}
    file.unlink()
    with pytest.raises(IndexingError, match=r"no labels file .*labels\.csv.*--labels folder"):
        update()
    update(labels="folder")
    update()  # the choice that was made last
    assert labels_of(tmp_path / "index")["sub/b.png"] == ("sub",)


def test_names_alone_absolute_paths_and_several_folders(tmp_path: Path, update: Update, photos: Path) -> None:
    other = tmp_path / "scans"
    write_pictures(other, a=9, d=10)
    file = tmp_path / "labels.csv"
    file.write_text(f"photos/a.png,one\nscans/a.png,two\nb.png,three\n{photos}/sub/c.png,four\nd.png,\n")
    update(photos, other, labels=str(file))
    assert labels_of(tmp_path / "index") == {
        "photos/a.png": ("one",),
        "photos/sub/b.png": ("three",),
        "photos/sub/c.png": ("four",),
        "scans/a.png": ("two",),
        "scans/d.png": (),
    }


def test_coco_annotations(tmp_path: Path, update: Update) -> None:
    file = tmp_path / "instances.json"
    coco = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}, {"id": 9, "file_name": "c.png"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "area": 5.0},
            {"image_id": 7, "category_id": 2, "area": 4.0},
            {"image_id": 7, "category_id": 2, "area": 4.0},
            {"image_id": 8, "category_id": 1, "bbox": [0, 0, 2, 2]},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    }
    file.write_text(json.dumps(coco))
    update(labels=str(file))
    expected = {"a.png": ("dog", "person"), "sub/b.png": ("person",), "sub/c.png": ()}
    assert labels_of(tmp_path / "index") == expected
    update(spec=OTHER_SPEC, rebuild=True)
    assert labels_of(tmp_path / "index") == expected


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.json", "{", "neither"),
        ("a.json", '{"images": [], "annotations": []}', "'categories' is missing"),
        ("a.json", '{"categories": [], "images": [], "annotations": [{"image_id": 1, "category_id": 1}]}', "missing"),
        ("a.json", "[1]", "neither"),
        ("image_info.json", '{"images": [{"id": 1, "file_name": "a.png"}], "categories": []}', "it has no annotations"),
        (
            "a.json",
            '{"images": [{"id": 1}], "categories": [], "annotations": []}',
            "no annotations, so no image",
        ),
        ("a.csv", "a,b,c\n1,2,3\n", "first line is 'a,b,c'"),
        ("a.csv", "", "first line is ''"),
        ("a.csv", "path,klass\na.png,x\n", "first line is 'path,klass'"),
        ("a.csv", "path,label\nx\n", "row 2 has 1 columns"),
    ],
)
def test_files_that_are_neither(name: str, text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(IndexingError, match=match):
        labels_from(str(tmp_path / name))


def test_the_metric_is_recorded_and_can_be_changed(tmp_path: Path, update: Update) -> None:
    update(metric="manhattan")
    index = open_index(tmp_path / "index")
    assert index.metric == "manhattan"
    grey = [0.0] * 12
    assert index.search(grey, 1)[0][0].distance == 12.0
    assert index.search(grey, 1, "euclidean")[0][0].distance == 12**0.5
    update()
    assert index.metric == "manhattan"
    update(metric="inner-product")  # embeds nothing anew
    assert [(hit.path, hit.distance, hit.score) for hit in index.search([1.0] * 12, 1)[0]] == [("sub/c.png", -36, 36)]
    update(spec=OTHER_SPEC, rebuild=True)
    assert index.metric == "inner-product"
    index.close()


def test_labels_that_are_no_text(tmp_path: Path, update: Update, photos: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"path,label\nsub/b.png,Caf\xe9\n")
    with pytest.raises(IndexingError, match=r"the label in row 2 is not UTF-8 text; save the file as CSV UTF-8\."):
        update(labels=str(tmp_path / "labels.csv"))
    (tmp_path / "labels.csv").write_text("path,label\nsub/b.png,Café\n", encoding="utf-16")
    with pytest.raises(IndexingError, match="it is UTF-16 text; save it as CSV UTF-8"):
        update(labels=str(tmp_path / "labels.csv"))


def test_folders_of_one_name_are_one_label(tmp_path: Path, update: Update) -> None:
    first, second = tmp_path / "1" / "beach", tmp_path / "2" / "beach"
    write_pictures(first, a=1)
    write_pictures(second, b=2)
    update(first, second)
    assert labels_of(tmp_path / "index") == {"beach/a.png": ("beach",), "beach-2/b.png": ("beach",)}
