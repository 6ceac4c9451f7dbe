"""The neighbours of every image against a naive loop; the table and the sheets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.analyse.neighbours import NeighboursOptions, whole_set, write_neighbours
from searchengine.cli.main import main
from searchengine.engine import open_index
from searchengine.errors import IndexingError, QueryError
from searchengine.exchange import import_features
from searchengine.index.distances import Euclidean
from searchengine.index.local import LocalIndex
from searchengine.index.metrics import METRICS
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from searchengine.progress import Progress
from tests.fakes import picture
from tests.index.test_metrics import naive_distance

Rows = NDArray[np.float32]
Said = pytest.CaptureFixture[str]


def indexed(folder: Path, features: Rows, **more: object) -> LocalIndex:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "a.npz", features=features, **more)  # type: ignore[arg-type]
    import_features(folder / "a.npz", folder / "index")
    return open_index(folder / "index")


@pytest.mark.parametrize("metric", METRICS)
def test_equals_the_naive_loop(metric: str, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = random.integers(-3, 4, (60, 5)).astype(np.float32)  # whole numbers: many ties, exact sums
    if metric == "cosine":
        rows = random.standard_normal((60, 5)).astype(np.float32)
    rows[7, 0] = 0
    rows[7::5] = rows[7]  # more copies than an image has neighbours
    rows[12, 0] = rows[17, 0] = -0.0
    ids = random.permutation(500)[:60] + 1
    index = indexed(tmp_path, rows, ids=ids)
    with IndexWriter.open(tmp_path / "index") as writer:
        writer.commit(Batch(removed=[int(ids[12]), int(ids[30])]))
    alive = [i for i in range(60) if i not in (12, 30)]
    blocks = list(whole_set(index.state(), 6, index.state().searcher(metric)))
    assert [id_ for block in blocks for id_ in block.ids.tolist()] == sorted(ids[alive].tolist())
    place = {int(id_): i for i, id_ in enumerate(ids)}
    for block in blocks:
        for id_, neighbours, distances in zip(block.ids, block.neighbours, block.distances, strict=True):
            query = rows[place[int(id_)]]
            others = [(naive_distance(metric, rows[i], query), int(ids[i])) for i in alive if ids[i] != id_]
            expected = sorted(others)[:6]
            assert neighbours.tolist() == [other for _, other in expected]
            np.testing.assert_allclose(distances, [distance for distance, _ in expected], rtol=1e-12, atol=1e-14)
    index.close()


def test_many_equal_images_are_each_others_neighbours(tmp_path: Path) -> None:
    index = indexed(tmp_path, np.ones((300, 4), dtype=np.float32))
    blocks = list(whole_set(index.state(), 3))
    assert blocks[0].neighbours[0].tolist() == [2, 3, 4]
    assert blocks[1].neighbours[-1].tolist() == [1, 2, 3]  # the image itself would be the 300th
    assert [len(block.ids) for block in blocks] == [256, 44]
    index.close()
    index = indexed(tmp_path / "b", np.eye(2, 4, dtype=np.float32))
    (block,) = whole_set(index.state(), 9)
    assert block.neighbours.tolist() == [[2], [1]]
    index.close()


def test_few_distances_to_equal_rows_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 equal rows are nearer to each of 200 others than those are to each other."""
    rows = np.random.default_rng(5).standard_normal((300, 128)).astype(np.float32)
    rows[::3] = 0
    index = indexed(tmp_path, rows)
    distances_of, measured = Euclidean.distances, list[int]()

    def counted(self: Euclidean, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        measured.append(len(positions))
        return distances_of(self, positions, query)

    monkeypatch.setattr(Euclidean, "distances", counted)
    (first, _) = whole_set(index.state(), 5)
    assert first.neighbours[1].tolist() == [1, 4, 7, 10, 13]
    assert sum(measured) < 300 * 20
    index.close()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_table(kind: str, tmp_path: Path) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    features = np.array([[0, 0], [1, 0], [0, 3]], dtype=np.float32)
    index = indexed(tmp_path, features, paths=["a,b.png", "é.png", ""], labels=["x", "", "z"])
    done = write_neighbours(index, tmp_path / "out", NeighboursOptions(k=5, format=kind))
    assert (done.images, done.neighbours, done.metric) == (3, 2, "euclidean")
    if kind == "csv":
        with Path(done.table).open(encoding="utf-8", newline="") as opened:
            rows = [tuple(row.values()) for row in csv.DictReader(opened)]
    else:
        import pyarrow.parquet

        read = pyarrow.parquet.read_table(done.table).to_pylist()
        rows = [tuple("" if value is None else str(value) for value in row.values()) for row in read]
    assert rows[:2] == [
        ("1", "a,b.png", "x", "1", "2", "é.png", "", "1.0", "0.5"),
        ("1", "a,b.png", "x", "2", "3", "#3", "z", "3.0", "0.25"),
    ]
    assert [row[0] + row[4] for row in rows] == ["12", "13", "21", "23", "31", "32"]
    assert float(rows[3][7]) == 10**0.5
    assert [file.name for file in (tmp_path / "out").iterdir()] == [f"neighbours.{kind}"]
    index.close()


def test_a_failed_run_keeps_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = indexed(tmp_path, np.eye(3, dtype=np.float32))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".neighbours.csv.{2**22 + 1}.part").touch()  # left by a process that no longer exists
    table = Path(write_neighbours(index, tmp_path / "out").table)
    before = table.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_neighbours(index, tmp_path / "out", NeighboursOptions(k=1), _Stopped())
    assert table.read_bytes() == before
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["neighbours.csv"]
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexingError, match=r"file is a file.* Name another folder"):
        write_neighbours(index, tmp_path / "file")
    with pytest.raises(QueryError):
        write_neighbours(index, tmp_path / "out", NeighboursOptions(k=0))
    index.close()
    index = indexed(tmp_path / "one", np.ones((1, 2), dtype=np.float32))
    with pytest.raises(QueryError, match="1 images"):
        write_neighbours(index, tmp_path / "out")
    index.close()


class _Stopped(Progress):
    def advance(self, amount: int = 1) -> None:
        raise KeyboardInterrupt


def test_sheets_show_the_pictures_and_are_drawn_once(tmp_path: Path, capsys: Said) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    for i, colour in enumerate(colours):
        (photos / f"{i}.png").write_bytes(picture(colour, (64, 32)))
    np.savez(
        tmp_path / "a.npz",
        features=np.array([[0, 0], [1, 0], [0, 3], [0, 9]], dtype=np.float32),
        paths=["0.png", "1.png", "2.png", "gone.png"],
        labels=["red", "grün " * 20, "", "日本"],
    )
    folder, out = str(tmp_path / "index"), tmp_path / "out"
    assert main(["import", str(tmp_path / "a.npz"), "--index-dir", folder, "--images", str(photos)]) == 0
    command = ["neighbours", "--index-dir", folder, "-k", "2", "--out", str(out), "--pictures", "--json"]
    capsys.readouterr()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 4
    names = sorted(file.name for file in (out / "pictures").iterdir())
    assert names == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "sheets.json"]
    with Image.open(out / "pictures" / "1.jpg") as sheet:
        sheet.load()
        assert sheet.size == (12 + 3 * 172, 12 + 204)
        centres = [sheet.getpixel((12 + 80 + 172 * i, 12 + 80)) for i in range(3)]
    for centre, colour in zip(centres, colours, strict=True):
        assert np.abs(np.subtract(centre, colour)).max() < 12
    (out / "pictures" / "2.jpg").unlink()
    (out / "pictures" / "3.jpg").write_bytes(b"cut short")
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 2
    assert main([*command, "--metric", "manhattan"]) == 0  # here with the same distances but those of 1 and 2 to 3
    assert 0 < json.loads(capsys.readouterr().out)["pictures"] < 4


def test_missing_pictures_are_reported(tmp_path: Path, capsys: Said) -> None:
    photos, folder, out = tmp_path / "photos", str(tmp_path / "index"), tmp_path / "out"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.png").write_bytes(picture((250, 0, 80 * i), (64, 32)))
    features = np.array([[0, 0], [1, 0], [0, 3]], dtype=np.float32)
    np.savez(tmp_path / "a.npz", features=features, paths=["0.png", "1.png", "2.png"])
    assert main(["import", str(tmp_path / "a.npz"), "--index-dir", folder, "--images", str(photos)]) == 0
    command = ["neighbours", "--index-dir", folder, "-k", "2", "--out", str(out), "--pictures", "--json"]
    for place, drawn, missing in ((tmp_path / "moved", 3, 3), (photos, 3, 0)):
        ((tmp_path / "moved") if place == photos else photos).rename(place)
        capsys.readouterr()
        assert main(command) == 0
        stdout, err = capsys.readouterr()
        assert (json.loads(stdout)["pictures"], json.loads(stdout)["missing"]) == (drawn, missing)
        assert ("3 of 3 pictures are missing or cannot be read" in err) == ("--images-dir" in err) == bool(missing)


def test_features_without_pictures_are_reported(tmp_path: Path, capsys: Said) -> None:
    indexed(tmp_path, np.eye(3, dtype=np.float32)).close()
    folder, out = str(tmp_path / "index"), str(tmp_path / "out")
    assert main(["neighbours", "--index-dir", folder, "--out", out, "--pictures"]) == 0
    assert "3 images have only features and no picture" in capsys.readouterr().err


def test_sheets_of_removed_images_are_deleted_and_no_other_file(tmp_path: Path) -> None:
    index = indexed(tmp_path, np.eye(4, dtype=np.float32))
    options = NeighboursOptions(k=2, pictures=True)
    write_neighbours(index, tmp_path / "out", options)
    pictures = tmp_path / "out" / "pictures"
    Image.new("RGB", (9, 9)).save(pictures / "77.jpg")  # a file of the user
    (pictures / "78.jpg").write_bytes(b"no picture")
    (pictures / "4 of mine.jpg").write_bytes((pictures / "4.jpg").read_bytes())
    with IndexWriter.open(tmp_path / "index") as writer:
        writer.commit(Batch(removed=[3, 4]))
    done = write_neighbours(index, tmp_path / "out", options)
    assert done.removed == 2
    assert {file.name for file in pictures.iterdir()} == {
        "1.jpg", "2.jpg", "77.jpg", "78.jpg", "4 of mine.jpg", "sheets.json",
    }  # fmt: skip
    index.close()


def test_too_large_a_k_is_reported(tmp_path: Path, capsys: Said) -> None:
    indexed(tmp_path, np.eye(3, dtype=np.float32)).close()
    command = ["neighbours", "--index-dir", str(tmp_path / "index"), "--out", str(tmp_path / "out"), "-k"]
    assert main([*command, "100"]) == 0
    assert "holds 3 images, so each has 2 neighbours, not 100" in capsys.readouterr().err
    assert main([*command, "2"]) == 0
    assert capsys.readouterr().err == ""


def test_a_sheet_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    index = indexed(tmp_path, np.eye(3, dtype=np.float32))
    (tmp_path / "out" / "pictures" / "2.jpg").mkdir(parents=True)
    with pytest.raises(IndexingError, match=r"pictures/2\.jpg cannot be written: Is a directory"):
        write_neighbours(index, tmp_path / "out", NeighboursOptions(pictures=True))
    index.close()
