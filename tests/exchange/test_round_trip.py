"""Features are imported, searched and exported again, bit for bit."""

from __future__ import annotations

import csv
import io
import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.cli.main import main
from searchengine.engine import SearchEngine, open_index
from searchengine.errors import IndexingError, QueryError, UnknownImageError
from searchengine.exchange import Columns, ImportOptions, export_index, import_features, read_features
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from searchengine.indexing import update_index
from searchengine.indexing.verify import verify
from tests.exchange.conftest import DIMENSION, ROWS, write
from tests.fakes import FakeExtractor, picture

Rows = NDArray[np.float32]
Said = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a.npz", "out.csv"),
        ("a.parquet", "out.npz"),
        ("wide.csv", "out.parquet"),
        ("text.csv", "out.npz"),
        ("array.csv", "out.csv"),
    ],
)
def test_import_search_export_is_bit_exact(name: str, out: str, features: Rows, tmp_path: Path) -> None:
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow")
    done = import_features(write(tmp_path / name, features), tmp_path / "index")
    assert (done.added, done.dimension, done.labelled, done.normalized) == (ROWS, DIMENSION, ROWS, False)
    assert done.left_out == (("image", "image_array") if name in {"text.csv", "array.csv"} else ())
    index = open_index(tmp_path / "index")
    for i, row in enumerate(features):
        hit = index.search(row, 1)[0][0]
        assert (hit.id, hit.distance, hit.path, hit.label) == (11 + i, 0.0, f"p/{11 + i}.png", "ab"[i % 2])
    export_index(index, tmp_path / out)
    index.close()
    table = read_features(tmp_path / out)
    assert table.features.dtype == np.float32
    assert table.features.tobytes() == features.tobytes()
    assert table.ids is not None
    assert table.ids.tolist() == list(range(11, 11 + ROWS))
    assert table.labels == [("ab"[i % 2],) for i in range(ROWS)]
    assert table.paths == [f"p/{i}.png" for i in range(11, 11 + ROWS)]
    import_features(tmp_path / out, tmp_path / "again")
    again = open_index(tmp_path / "again")
    assert again.features.tobytes() == features.tobytes()
    again.close()
    assert verify(tmp_path / "again").sound


def test_ids_may_begin_at_0(features: Rows, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=features, ids=np.arange(ROWS))
    import_features(tmp_path / "a.npz", tmp_path / "index")
    with closing(open_index(tmp_path / "index")) as index:
        assert index.ids.tolist() == list(range(ROWS))
        assert index.feature(0).tobytes() == features[0].tobytes()
        assert [hit.id for hit in index.search(features[0], 1)[0]] == [0]
        assert index.records([0])[0].path == "#0"
        assert index.status().images == len(index.sample(100)) == ROWS
        with IndexWriter.open(tmp_path / "index") as writer:
            writer.commit(Batch(removed=[0]))
        assert index.ids.tolist() == list(range(1, ROWS))
        with pytest.raises(UnknownImageError, match="image 0"):
            index.feature(0)
    assert verify(tmp_path / "index").sound


def test_several_labels_and_none_survive(features: Rows, tmp_path: Path) -> None:
    lists = [["cat", "dog"], [], ["dog"], ["a b"], ["é"], [], ["x", "y", "z"]]
    np.savez(tmp_path / "a.npz", features=features, all_labels=[json.dumps(labels) for labels in lists])
    import_features(tmp_path / "a.npz", tmp_path / "index")
    for out in ("out.npz", "out.parquet", "out.csv"):
        if out.endswith("parquet"):
            pytest.importorskip("pyarrow")
        index = open_index(tmp_path / "index")
        export_index(index, tmp_path / out)
        index.close()
        table = read_features(tmp_path / out)
        assert table.labels is not None
        assert [list(labels) for labels in table.labels] == lists
        assert table.paths == [None] * ROWS


def test_csv_cells_guarded_against_spreadsheets_are_read_back(features: Rows, tmp_path: Path) -> None:
    odd = ["=cmd|'x'!A1", "+1+1", "-cat", "@a", "\tb", "'=c", "-1"]
    features[0] = -features[0]
    np.savez(tmp_path / "a.npz", features=features, labels=odd, paths=[f"{name}.jpg" for name in odd])
    import_features(tmp_path / "a.npz", tmp_path / "index")
    with closing(open_index(tmp_path / "index")) as index:
        export_index(index, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as opened:
        cells = [cell for row in csv.reader(opened) for cell in row]
    assert not [cell for cell in cells if cell[:1] in "=+-@\t\r" and cell not in ("", "-1")]
    table = read_features(tmp_path / "out.csv")
    assert table.labels == [(name,) for name in odd]
    assert table.paths == [f"{name}.jpg" for name in odd]
    assert table.features.tobytes() == features.tobytes()


def test_numbers_of_a_csv_file_are_as_short_as_float32_allows(tmp_path: Path) -> None:
    row = np.array([[0.1, 1e-8, 2.5, 1 / 3]], dtype=np.float32)
    np.save(tmp_path / "a.npy", row)
    import_features(tmp_path / "a.npy", tmp_path / "index")
    with closing(open_index(tmp_path / "index")) as index:
        export_index(index, tmp_path / "out.csv")
    assert "[0.1 1e-08 2.5 0.33333334]" in (tmp_path / "out.csv").read_text()
    assert read_features(tmp_path / "out.csv").features.tobytes() == row.tobytes()


def test_columns_by_name_and_separate_files(features: Rows, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", features)
    (tmp_path / "labels.txt").write_text("\n".join(["cat", "", *"defgh"]) + "\n")
    np.save(tmp_path / "ids.npy", np.arange(ROWS, 0, -1))
    columns = Columns(labels=str(tmp_path / "labels.txt"), ids=str(tmp_path / "ids.npy"))
    table = read_features(tmp_path / "a.npy", columns)
    assert table.labels is not None
    assert table.ids is not None
    assert (table.labels[0], table.labels[1], table.ids[0]) == (("cat",), (), ROWS)
    table = read_features(write(tmp_path / "text.csv", features), Columns(features="image_array", labels="none"))
    assert (table.features.shape, table.labels) == ((ROWS, 2), None)
    table = read_features(write(tmp_path / "b.npz", features), Columns(features="my", labels="paths"))
    assert table.labels is not None
    assert table.labels[0] == ("p/11.png",)
    assert table.paths is None


def test_without_names_and_other_delimiters(tmp_path: Path) -> None:
    for name, text in (
        ("bare.csv", "1,2.5\n3,4\n"),
        ("bare.tsv", "1\t2.5\n3\t4\n"),
        ("names.csv", ";a;b;label\n0;1;2.5;x\n1;3;4;y\n"),
        ("vectors.csv", '"array(\'d\', [1.0, 2.5])"\n"[3,\n 4]"\n'),
        ("counted.csv", "0,1\n1.0,2.5\n3.0,4.0\n"),
        ("numbered.csv", ",0,1\n0,1,2.5\n1,3,4\n"),
        ("labelled.csv", "label,0,1,inf\nx,1,2.5,a\ny,3,4,b\n"),
        ("words.csv", '\ufefffeature,class\n"1 2.5",7\n"3, 4",8\n'),
    ):
        (tmp_path / name).write_text(text, "utf-8")
        np.testing.assert_array_equal(read_features(tmp_path / name).features, [[1, 2.5], [3, 4]])


@pytest.mark.parametrize("out", ["out.npz", "out.parquet"])
def test_the_metric_is_exported(out: str, features: Rows, tmp_path: Path) -> None:
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow")
    import_features(write(tmp_path / "a.npz", features), tmp_path / "a", ImportOptions(metric="manhattan"))
    index = open_index(tmp_path / "a")
    export_index(index, tmp_path / out)
    index.close()
    np.save(tmp_path / "b.npy", features)
    import_features(tmp_path / "b.npy", tmp_path / "euclidean")
    for name, options, metric in (
        ("again", ImportOptions(), "manhattan"),
        ("asked", ImportOptions(metric="cosine"), "cosine"),
        ("euclidean", ImportOptions(append=True), "euclidean"),
    ):
        assert import_features(tmp_path / out, tmp_path / name, options).left_out == ()
        index = open_index(tmp_path / name)
        assert index.metric == metric
        index.close()


def test_arrays_of_other_programs_named_metric(features: Rows, tmp_path: Path) -> None:
    for more in ({"metric": "cosine"}, {"metric": np.ones(ROWS), "extractor": "a net"}):
        np.savez(tmp_path / "a.npz", features=features, **more)  # type: ignore[arg-type]
        table = read_features(tmp_path / "a.npz")
        assert (table.metric, set(table.left_out)) == (None, set(more))


def test_normalisation(features: Rows, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", features)
    done = import_features(tmp_path / "a.npy", tmp_path / "unit", ImportOptions(normalize="l2", metric="cosine"))
    assert done.normalized
    index = open_index(tmp_path / "unit")
    np.testing.assert_allclose(np.linalg.norm(index.features, axis=1), 1.0, rtol=1e-6)
    assert (index.metric, index.normalized) == ("cosine", True)
    np.save(tmp_path / "b.npy", index.features.astype(np.float64))
    index.close()
    assert import_features(tmp_path / "b.npy", tmp_path / "detected").normalized  # detected, not requested


def test_pictures_are_read_and_missing_ones_are_reported(features: Rows, tmp_path: Path, capsys: Said) -> None:
    photos = tmp_path / "photos" / "p"
    photos.mkdir(parents=True)
    (photos / "11.png").write_bytes(picture((255, 0, 0), (8, 6)))
    (photos / "12.png").write_bytes(b"no image")
    file = write(tmp_path / "a.npz", features)
    folder = str(tmp_path / "index")
    assert main(["import", str(file), "--index-dir", folder, "--images", str(tmp_path / "photos"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["pictures"] == 1
    assert "6 of 7 pictures are not in" in err
    index = open_index(folder)
    first, second = index.records([11, 12])
    assert (first.width, first.height, first.colour, first.format) == (8, 6, "#ff0000", "PNG")
    assert first.file == tmp_path / "photos" / "p" / "11.png"
    assert (second.width, second.path) == (None, "p/12.png")
    index.close()
    for wrong in ("../../etc/passwd", "/etc/passwd", "p/../..", "a\0b", "."):
        np.savez(tmp_path / "b.npz", features=features[:1], paths=[wrong])
        with pytest.raises(IndexingError, match=r"leads out|not the path"):
            import_features(tmp_path / "b.npz", tmp_path / "other", ImportOptions(images=tmp_path / "photos"))


def test_a_picture_cannot_be_searched_for(features: Rows, tmp_path: Path) -> None:
    import_features(write(tmp_path / "a.npz", features), tmp_path / "index")
    engine = SearchEngine.open(tmp_path / "index")
    engine.warm()  # nothing to warm
    with pytest.raises(QueryError, match=r"imported.*--id.*--vector"):
        engine.search(picture((1, 2, 3)))
    assert engine.search(11)[0].id == 11
    assert "Imported features (a.npz), not normalised" in engine.index.status().extractor
    engine.close()


def test_by_command(features: Rows, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(tmp_path / "index")
    file = str(write(tmp_path / "wide.csv", features))
    assert main(["import", file, "--index-dir", folder, "--normalize", "l2", "--name", "a net"]) == 0
    assert "7 features of 5 numbers imported, 7 with a label; they have length 1" in capsys.readouterr().out
    search = ["search", "--index-dir", folder, "--json"]
    assert main([*search, "--id", "13", "-k", "3", "--vote"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["hits"][0]["id"] == 13
    assert len(result["hits"]) == 3
    assert sum(vote["count"] for vote in result["votes"]) == 3  # the image itself has no vote
    by_id = result["votes"]
    np.save(tmp_path / "q.npy", features[2] * 9)
    assert main([*search, "--vector", str(tmp_path / "q.npy"), "-k", "3", "--vote"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["votes"] == by_id  # equal numbers: the same image
    assert "Left out of the vote as the query itself: p/13.png" in err
    assert main([*search, "--vector", str(tmp_path / "q.npy"), "-k", "1", "--metric", "cosine"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["metric"], result["hits"][0]["id"]) == ("cosine", 13)
    assert "divided by its length" in err
    assert "gives the same order" in err
    monkeypatch.setattr(sys, "stdin", io.StringIO(" ".join(map(str, features[3].tolist()))))
    assert main([*search, "--vector", "-", "-k", "1", "--metric", "manhattan"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["hits"][0]["id"] == 14
    assert "same order" not in err
    for text in ("", "a b", "1 2 3", "1 2 3 4 nan", "1 2 3 4 5\n1 2 3 4 5"):
        (tmp_path / "q.txt").write_text(text)
        assert main([*search, "--vector", str(tmp_path / "q.txt")]) == 1
    assert main([*search, "--vector", str(tmp_path / "nowhere.npy")]) == 1
    Image.new("RGB", (4, 4)).save(tmp_path / "q.png")
    assert main([*search, str(tmp_path / "q.png")]) == 1
    assert "imported" in capsys.readouterr().err
    assert main(["export", "--index-dir", folder, "--out", str(tmp_path / "out.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == ROWS
    with np.load(tmp_path / "out.npz") as archive:
        assert str(archive["extractor"]) == "Imported features (a net), L2-normalised"
    assert main(["export", "--index-dir", folder, "--out", str(tmp_path / "out.zip")]) == 1
    assert main(["info", "--index-dir", folder]) == 0
    assert not list(tmp_path.glob(".*.part"))


def test_images_are_not_indexed_into_imported_features(features: Rows, tmp_path: Path, capsys: Said) -> None:
    photos = tmp_path / "photos" / "p"
    photos.mkdir(parents=True)
    for i in range(ROWS):
        (photos / f"{11 + i}.png").write_bytes(picture((9 * i, 0, 0), (8, 6)))
    folder = str(tmp_path / "index")
    file = str(write(tmp_path / "a.npz", features))
    assert main(["import", file, "--index-dir", folder, "--images", str(tmp_path / "photos")]) == 0
    assert main(["index", str(tmp_path / "photos"), "--index-dir", folder]) == 1
    assert "imported features" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "photos"), "--index-dir", folder, "--model", "efficientnet-lite0"]) == 1
    assert "--rebuild" in capsys.readouterr().err
    update_index([tmp_path / "photos"], folder, extractor=FakeExtractor(), rebuild=True)
    index = open_index(folder)
    assert index.ids.tolist() == list(range(11, 11 + ROWS))  # each picture keeps its id
    assert index.paths == [f"p/{i}.png" for i in range(11, 11 + ROWS)]
    index.close()


def test_features_without_labels_are_to_be_imported_with_labels(tmp_path: Path, capsys: Said) -> None:
    np.save(tmp_path / "a.npy", np.eye(4))
    import_features(tmp_path / "a.npy", tmp_path / "index")
    assert main(["evaluate", "--index-dir", str(tmp_path / "index")]) == 1
    err = capsys.readouterr().err
    assert "searchengine import --labels" in err
    assert "Index again" not in err
