"""Labels from a CSV file or COCO annotations, and the choices of labels and metric that an index records."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from searchengine.engine import open_index
from searchengine.errors import IndexingError
from searchengine.indexing.label_files import read_label_file
from searchengine.indexing.labels import labels_from
from searchengine.indexing.scan import Root
from tests.fakes import OTHER_SPEC, Sentences, write_pictures
from tests.indexing.looking import Update


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Make a.png, sub/b.png and sub/c.png, old enough for their times to be trusted."""
    folder = tmp_path / "photos"
    write_pictures(folder, a=1, sub__b=2, sub__c=3)
    for file in folder.rglob("*.png"):
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return folder


def labels_of(folder: Path) -> dict[str, tuple[str, ...]]:
    index = open_index(folder)
    try:
        return {record.path: record.labels for record in index.records(index.ids.tolist())}
    finally:
        index.close()


def test_a_csv_file_is_used_and_recorded(tmp_path: Path, update: Update, progress: Sentences) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label\na.png,cat\na.png,dog\n./sub/b.png,bird\ngone.png,x\n")
    update(labels=str(file))
    assert labels_of(tmp_path / "index") == {"a.png": ("cat", "dog"), "sub/b.png": ("bird",), "sub/c.png": ()}
    assert len(progress.said) == 1
    assert "1 of 3 files are not named in" in progress.said[0]
    assert "1 of the 3 files named in" in progress.said[0]
    file.write_text('label,path\n"fish, blue",sub/c.png\n')
    done = update()  # the recorded choice, with the present content of the file
    assert (done.embedded, done.unchanged) == (0, 3)
    assert labels_of(tmp_path / "index") == {"a.png": (), "sub/b.png": (), "sub/c.png": ("fish, blue",)}
    file.unlink()
    with pytest.raises(IndexingError, match=r"no labels file .*labels\.csv.*--labels folder"):
        update()
    update(labels="folder")
    update()  # the latest choice
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
        (
            "a.json",
            '{"categories": [], "images": [], "annotations": [{"image_id": 1, "category_id": 1}]}',
            "none of its 1 ",
        ),
        ("image_info.json", '{"images": [{"id": 1, "file_name": "a.png"}], "categories": []}', "it has no annotations"),
        (
            "a.json",
            '{"images": [{"id": 1}], "categories": [], "annotations": []}',
            "no annotations, so no image",
        ),
        ("a.json", '[{"path": "a.png", "label": "cat"}]', "not a JSON object. Give COCO .* as CSV"),
        (
            "a.jsonl",
            '{"path": "a.png", "label": "cat"}\n{"path": "b.png", "label": "dog"}\n',
            "another form. Give COCO .* as CSV",
        ),
        ("a.json", '{"a.png": "cat"}\n{"b.png": "dog"}\n', "another form. Give COCO .* as CSV"),
        ("a.json", '{"version": "1", "shapes": [], "imagePath": "a.png"}', "another form. Give COCO .* as CSV"),
        ("a.json", '{"a.png": {"regions": []}}', "another form. Give COCO .* as CSV"),
        ("a.json", "{}", "another form. Give COCO .* as CSV"),
        ("a.csv", "a,b,c\n1,2,3\n", "first line is 'a,b,c'"),
        ("a.csv", "", "first line is ''"),
        ("a.csv", "path,klass,note\na,x,z\n", "first line is 'path,klass,note'"),
        ("a.csv", "# a list\na.png\n", "first line is 'a.png'"),
        ("a.csv", "path,label\nx\n", r"none of its rows can be used: 1 rows .*\(line 2\)"),
        ("a.json", '{"images": ' + "[" * 100_000, "nested too deeply"),
        ("a.json", '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id"', "Expecting"),
        (
            "captions.json",
            '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "caption": "a cat"}]}',
            "captions, which are not labels",
        ),
    ],
)
def test_files_that_are_neither(name: str, text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(IndexingError, match=match):
        labels_from(str(tmp_path / name))


TABLE = "path,label\na.jpg,cat\n"


@pytest.mark.parametrize("name", ["labels.csv", "labels.json"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"PK\x03\x04\x14\0\x06\0[Content_Types].xml,\n", "is a spreadsheet .* Save the spreadsheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "is a spreadsheet. Save it as CSV"),
        (gzip.compress(TABLE.encode()), "is compressed. Unpack it first"),
        (bz2.compress(TABLE.encode()), "is compressed. Unpack it first"),
        (lzma.compress(TABLE.encode()), "is compressed. Unpack it first"),
        (b"PAR1\x15\x04,label\n", "is not text. Save the table as CSV"),
        (TABLE.encode("utf-16-le"), "UTF-16 without a byte order mark. Save it as CSV"),
        (TABLE.encode("utf-32-be"), "UTF-16 without a byte order mark. Save it as CSV"),
    ],
    ids=["xlsx", "xls", "gz", "bz2", "xz", "parquet", "UTF-16", "UTF-32"],
)
def test_files_that_are_not_text_are_named_in_a_sentence(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IndexingError, match=match):
        read_label_file(tmp_path / name)


def test_the_metric_is_recorded_and_can_be_changed(tmp_path: Path, update: Update) -> None:
    update(metric="manhattan")
    index = open_index(tmp_path / "index")
    assert index.metric == "manhattan"
    grey = [0.0] * 12
    assert index.search(grey, 1)[0][0].distance == 12.0
    assert index.search(grey, 1, "euclidean")[0][0].distance == 12**0.5
    update()
    assert index.metric == "manhattan"
    update(metric="inner-product")  # embeds nothing again
    assert [(hit.path, hit.distance, hit.score) for hit in index.search([1.0] * 12, 1)[0]] == [("sub/c.png", -36, 36)]
    update(spec=OTHER_SPEC, rebuild=True)
    assert index.metric == "inner-product"
    index.close()


IMAGE, CATEGORY = {"id": 1, "file_name": "a.png"}, {"id": 1, "name": "cat"}
ANNOTATION = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "area": 4}


def coco(*annotations: object, images: object = (IMAGE,), categories: object = (CATEGORY,)) -> str:
    return json.dumps({"annotations": annotations or [ANNOTATION], "images": images, "categories": categories})


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        pytest.param(coco(ANNOTATION, {**ANNOTATION, "image_id": 9}), "1 images are annotated but not", id="no image"),
        pytest.param(coco(ANNOTATION, {**ANNOTATION, "category_id": 7}), r"not listed \(id 7\)", id="no category"),
        pytest.param(coco(ANNOTATION, {"id": 5}, 3, None), "have no category or no image", id="not an annotation"),
        pytest.param(coco(images=[IMAGE, {"id": 2}, []]), "images have no file name or no id", id="not an image"),
        pytest.param(coco(images=[{**IMAGE, "id": "1"}]), "", id="id as text"),
        pytest.param(coco({**ANNOTATION, "image_id": 1.0}), "", id="id as a float"),
        pytest.param(coco({**ANNOTATION, "area": None}), "", id="area null"),
        pytest.param(coco({**ANNOTATION, "area": "large", "bbox": [0, 0]}), "", id="two-number box"),
        pytest.param(coco({"image_id": 1, "segments_info": [ANNOTATION]}), "", id="panoptic"),
        pytest.param(coco({**ANNOTATION, "keypoints": [1, 2, 2], "caption": "x"}), "", id="keypoints"),
        pytest.param(coco(images=[{"id": 1, "coco_url": "http://images.org/train2017/a.png"}]), "", id="coco_url"),
        pytest.param(coco(images=[{"id": 1, "file_name": "images\\1/a.png"}]), "", id="another folder"),
        pytest.param(coco(images=[{"id": 1, "file_name": "..\\..\\media\\upload\\4\\a.png"}]), "", id="Windows"),
        pytest.param(coco(images=[{"id": 1, "file_name": "C:\\p\\0badcafe-a.png"}]), "", id="uploaded to Label Studio"),
        pytest.param(coco(images=[{"id": 1, "file_name": "/data/local-files/?d=x/a.png"}]), "", id="local files"),
        pytest.param("\ufeff" + coco(), "", id="JSON with BOM"),
        pytest.param('{"a.png": "cat", "sub/b.png": ["dog"]}\n', "", id="plain mapping"),
        pytest.param(coco(categories={"1": "cat"}), "", id="categories {id: name}"),
        pytest.param(coco(categories={"1": CATEGORY, "2": {"name": "x"}}), "", id="categories {id: category}"),
        pytest.param(coco(categories={"cat": 1}), "", id="categories {name: id}"),
        pytest.param(coco().replace('"area": 4', '"area": 4, "id": ' + "9" * 5000), "", id="id of 5000 digits"),
        pytest.param("path,label\nhttp://[x,dog\na.png,cat\n", "1 of the 2 files named", id="no address"),
        pytest.param("path;label\na.png;cat\n", "", id="semicolons"),
        pytest.param("sep=|\npath|label\na.png|cat\n", "", id="sep="),
        pytest.param("a.png;cat\nb.png;dog\n", "", id="semicolons, no line of names"),
        pytest.param("\ufeffpath\tlabel\na.png\tcat\n", "", id="tabs and BOM"),
        pytest.param("id,label\na,cat\n", "", id="id without ending"),
        pytest.param("File Name,Category\nA.PNG,cat\n", "", id="other case"),
        pytest.param("id,breed\na,cat\n", "", id="Kaggle"),
        pytest.param("ImageID,Source,LabelName,Confidence\na,verification,cat,1\n", "", id="Open Images"),
        pytest.param("filename,class\na.png,cat\n", "", id="filename, class"),
        pytest.param("image_path,category\na.png,cat\n", "", id="image_path, category"),
        pytest.param("Image-Name\tDiagnosis\na\tcat\n", "", id="one of two names"),
        pytest.param("diagnosis,file\ncat,a.png\n", "", id="one of two names, the second"),
        pytest.param("cat,a.png\ndog,sub/b.png\n", "", id="label first, no names"),
        pytest.param("sub\\b.png,label\na.png,cat\n", "", id="a label that is the name of a column"),
        pytest.param("x/a.png,10,20,30,40,cat\nb.png,,,,,\n", "", id="boxes, no names"),
        pytest.param("# by hand, in May\npath,label\n# cats\na.png,cat\n", "", id="remarks"),
        pytest.param("#path,label\na.png,cat\n", "", id="names as a remark"),
        pytest.param("path,label\n#1.png,dog\na.png,cat\n", "1 of the 2 files named", id="no remark"),
        pytest.param("label,path\ncat,x/y/a.png\n", "", id="CSV with another folder"),
        pytest.param("path,label\na.png,cat\n,dog\nb.png\nc.png,x,y\n", r"2 rows have .*\(line 4, line 5\)", id="rows"),
        pytest.param('path,label\na.png,cat\n"b.png,dog\n' + "x" * 150_000, r"rows have .*\(line 4", id="open quote"),
    ],
)
def test_label_files_in_the_wild(tmp_path: Path, update: Update, progress: Sentences, text: str, remark: str) -> None:
    file = tmp_path / ("labels.json" if text.lstrip("\ufeff").startswith("{") else "labels.csv")
    file.write_text(text)
    update(labels=str(file))
    assert labels_of(tmp_path / "index")["a.png"] == ("cat",)
    assert re.search(remark, progress.said[0])


@pytest.mark.parametrize("category", [{"id": 1}, {"id": 1, "name": None}, {"id": 1, "name": ""}])
def test_a_category_without_a_name_is_named_by_its_id(tmp_path: Path, category: dict[str, Any]) -> None:
    (tmp_path / "labels.json").write_text(coco(categories=[category]))
    assert read_label_file(tmp_path / "labels.json").labels == {"a.png": ("category 1",)}


@pytest.mark.parametrize(
    ("text", "expected", "remark"),
    [
        ('path,label\n"a.jpg,cat\nok/b.JPG,dog\nnoext,cow\n', {"a.jpg": "cat", "ok/b.JPG": "dog", "noext": "cow"}, ""),
        ('path,label\na.jpg,"cat\nb.jpg,"dog"\n', {"a.jpg": "cat", "b.jpg": "dog"}, ""),
        ('path;label\n"a.jpg;cat\n"b.jpg;dog\n"c.jpg;cow', {"a.jpg": "cat", "b.jpg": "dog", "c.jpg": "cow"}, ""),
        ('"path;label\na.jpg;cat\n', {"a.jpg": "cat"}, ""),
        ('path,label\n"a, b.jpg,cat\nc.jpg,dog\n', {"c.jpg": "dog"}, r"1 rows have .* \(line 2\)"),
        ('path,label\na.jpg,"cat\n' + "b.jpg,dog\n" * 30 + 'c.jpg,cow"\n', {"a.jpg": "cat", "b.jpg": "dog"}, ""),
        (
            'path,label,note\na.jpg,cat,"of ""two""\nlines, or\nthree"\nb.jpg,dog,\n',
            {"a.jpg": "cat", "b.jpg": "dog"},
            "",
        ),
        ('path,label\n"new\nline.jpg",cat\n', {"new\nline.jpg": "cat"}, ""),
        ('path,label\n"a" b.jpg,cat\n', {"a b.jpg": "cat"}, ""),
    ],
    ids=["first", "middle", "each", "names", "comma", "much later", "lines in a cell", "line in a name", "in a cell"],
)
def test_a_quote_that_is_not_closed_costs_its_own_row_at_most(
    tmp_path: Path, text: str, expected: dict[str, str], remark: str
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    file = read_label_file(tmp_path / "labels.csv")
    assert {path: file.labels[path] for path in expected} == {path: (label,) for path, label in expected.items()}
    assert re.search(remark, str(file.unusable))
    assert remark or not file.unusable.counts


def test_a_name_in_another_form_of_accents(tmp_path: Path, update: Update, photos: Path) -> None:
    write_pictures(photos, **{unicodedata.normalize("NFD", "Müller"): 9})
    (tmp_path / "labels.csv").write_text(unicodedata.normalize("NFC", "path,label\nMüller.png,person\n"))
    update(labels=str(tmp_path / "labels.csv"))
    assert labels_of(tmp_path / "index")[unicodedata.normalize("NFD", "Müller.png")] == ("person",)


def test_a_path_that_could_mean_two_files_gives_neither_a_label(tmp_path: Path, update: Update, photos: Path) -> None:
    write_pictures(photos, x__same=7, y__same=8)
    file = tmp_path / "labels.csv"
    file.write_text("path,label\ntrain/same.png,cat\n1/a.png,dog\n2/a.png,bird\n3/b.png,fish\n")
    update(labels=str(file))
    labels = labels_of(tmp_path / "index")
    assert [labels[path] for path in ("x/same.png", "y/same.png", "a.png", "sub/b.png")] == [(), (), (), ("fish",)]


def test_a_name_that_belongs_to_another_file_of_the_same_name(tmp_path: Path, update: Update, photos: Path) -> None:
    write_pictures(photos, train__x=7, val__x=8)
    (tmp_path / "labels.csv").write_text("path,label\ntrain/x.png,cat\n")
    update(labels=str(tmp_path / "labels.csv"))
    labels = labels_of(tmp_path / "index")
    assert (labels["train/x.png"], labels["val/x.png"]) == (("cat",), ())


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-32", "utf-8-sig"])
def test_files_of_a_spreadsheet_on_windows(tmp_path: Path, update: Update, photos: Path, encoding: str) -> None:
    write_pictures(photos, Müller=9)
    (tmp_path / "labels.csv").write_text("path;label\nMüller.png;Café\n", encoding=encoding)
    update(labels=str(tmp_path / "labels.csv"))
    assert labels_of(tmp_path / "index")["Müller.png"] == ("Café",)


def test_annotations_are_read_a_piece_at_a_time(tmp_path: Path) -> None:
    """The outlines of a large set would take gigabytes; other members of the file are skipped."""
    outline = [number + 0.12345678901 for number in range(1800)]
    annotations = [{**ANNOTATION, "image_id": i % 50, "segmentation": [outline]} for i in range(300)]
    text = coco(*annotations, images=[{"id": i, "file_name": f"{i}.png"} for i in range(50)])
    (tmp_path / "a.json").write_text('{"info": {"year": 2017, "x": [{}]}, "version": 12, ' + text[1:])
    tracemalloc.start()
    labels = labels_from(str(tmp_path / "a.json"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 < (tmp_path / "a.json").stat().st_size
    root = Root(1, tmp_path, "x")
    assert labels.of([(root, b"49.png")], several=False) == [("cat",)]


def test_folders_of_the_same_name_are_one_label(tmp_path: Path, update: Update) -> None:
    first, second = tmp_path / "1" / "beach", tmp_path / "2" / "beach"
    write_pictures(first, a=1)
    write_pictures(second, b=2)
    update(first, second)
    assert labels_of(tmp_path / "index") == {"beach/a.png": ("beach",), "beach-2/b.png": ("beach",)}
