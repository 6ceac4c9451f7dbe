"""Unusable files are refused with a sentence, and leave no index behind."""

from __future__ import annotations

import builtins
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.engine import open_index
from searchengine.errors import (
    IndexingError,
    IndexNotFoundError,
    MissingPackageError,
    QueryError,
    UnknownNameError,
)
from searchengine.exchange import Columns, ImportOptions, export_index, import_features, read_vectors
from searchengine.exchange.csv_files import is_vector, parse_vector
from searchengine.exchange.table import LARGEST_ID
from searchengine.index.catalog import Catalog
from searchengine.index.writer import IndexWriter

GOOD = np.arange(12, dtype=np.float32).reshape(4, 3)


def refused(file: Path, match: str, columns: Columns | None = None) -> None:
    folder = file.parent / "index"
    with pytest.raises(IndexingError, match=match):
        import_features(file, folder, ImportOptions(columns=columns or Columns()))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.array(5.0), r"shape \(\).* A single number"),
        (np.arange(5.0), r"shape \(5,\).* one feature, write features\.reshape\(1, -1\)"),
        (np.zeros((2, 7, 7, 4)), r"reshape\(len"),
        (np.zeros((0, 4)), "nothing to import"),
        (np.zeros((4, 0)), "nothing to import"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.zeros((2, 2), dtype=complex), "real numbers"),
        (np.array([[1.0, 2], [np.nan, 4]]), "Row 2 of .* NaN or infinity"),
        (np.array([[1.0, np.inf]]), "Row 1 of .* NaN or infinity"),
        (np.array([[1.0, 1e39]]), "too large for float32"),
    ],
)
def test_arrays(array: np.ndarray[Any, Any], match: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", match)
    np.savez(tmp_path / "a.npz", features=array)
    refused(tmp_path / "a.npz", match)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return builtins.exec, ("raise AssertionError('unpickled')",)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(pickle.dumps(Evil()))
    refused(tmp_path / "a.npy", "Python objects")
    with (tmp_path / "b.npy").open("wb") as file:
        np.save(file, np.array([[1, None]], dtype=object), allow_pickle=True)
    refused(tmp_path / "b.npy", "Python objects")
    np.savez(tmp_path / "c.npz", features=GOOD, labels=np.array([{}, {}, {}, {}], dtype=object))
    refused(tmp_path / "c.npz", "Python objects")


@pytest.mark.parametrize(
    "header",
    [
        *("(" * 9000, "-" * 9000 + "1", "{'descr': " + "[" * 150, "", "1", "{}"),
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1280), }",
    ],
)
def test_headers_that_numpy_cannot_parse(header: str, tmp_path: Path) -> None:
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "a.npy").write_bytes(data)
    refused(tmp_path / "a.npy", "is not an .npy file")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("features.npy", data)
    refused(tmp_path / "a.npz", "is not an .npz archive")
    np.save(tmp_path / "b.npy", GOOD)
    refused(tmp_path / "b.npy", "a.npy cannot be read", Columns(labels=str(tmp_path / "a.npy")))
    with pytest.raises(QueryError, match="does not hold a vector"):
        read_vectors(str(tmp_path / "a.npy"))


def test_damaged_files(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GOOD)
    np.savez(tmp_path / "a.npz", features=GOOD)
    for name in ("a.npy", "a.npz"):
        whole = (tmp_path / name).read_bytes()
        for data in (b"", b"no features", whole[:-7], whole[:90]):
            (tmp_path / f"b{name[1:]}").write_bytes(data)
            refused(tmp_path / f"b{name[1:]}", "is not an? ")
    for name in ("b.csv", "b.xyz"):
        (tmp_path / name).write_bytes(b"\xff\xfe,1\n")
    refused(tmp_path / "b.csv", "UTF-8")
    refused(tmp_path / "b.xyz", r"\.npy, \.npz")
    refused(tmp_path / "nowhere.npy", "There is no file")
    refused(tmp_path, "There is no file")
    pytest.importorskip("pyarrow")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    refused(tmp_path / "b.parquet", "cannot be read as Parquet")


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"ids": [1, 2, 3, 2]}, "Rows 2 and 4 of .* the same id 2"),
        ({"ids": [-1, 1, 2, 3]}, "Row 1 of .* the id -1.*--ids none"),
        ({"ids": ["a", "b", "c", "d"]}, "the id 'a'"),
        ({"ids": [1, 2, 3, 2**63 - 1]}, f"Row 4 of .* the id {2**63 - 1}.*from 0 to {LARGEST_ID}"),
        ({"ids": [1, 2, 3]}, "4 rows of features, but 3 ids"),
        ({"labels": ["x"] * 5}, "but 5 labels"),
        ({"labels": np.zeros((4, 2))}, r"'labels' has the shape \(4, 2\)"),
        ({"all_labels": ["no"] * 4}, "not a list of labels"),
        ({"all_labels": ["[" * 100_000] * 4}, "not a list of labels"),
        ({"all_labels": ['"text"'] * 4}, "not a list of labels"),
        ({"all_labels": ['[["a"]]'] * 4}, "not a list of labels"),
    ],
)
def test_values_that_do_not_match_the_rows(more: dict[str, Any], match: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=GOOD, **more)
    refused(tmp_path / "a.npz", match)


def test_missing_columns(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=GOOD, two=GOOD)
    refused(tmp_path / "a.npz", "--features which array .* one .* two")
    refused(tmp_path / "a.npz", "no column 'labls'", Columns(features="one", labels="labls"))
    refused(tmp_path / "a.npz", "no column 'oen' in .* It has: 'one'", Columns(features="oen"))
    np.save(tmp_path / "a.npy", GOOD)
    refused(tmp_path / "a.npy", "no named columns", Columns(labels="label"))
    refused(tmp_path / "a.npy", "leave out --features", Columns(features="x"))
    (tmp_path / "a.csv").write_text("a,b,c\n1,[1 2],[3 4]\n")
    refused(tmp_path / "a.csv", "several columns of vectors: b, c")
    refused(tmp_path / "a.csv", "no column 'd'", Columns(features="d"))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty"),
        ("a,b\n", "no rows"),
        ("a,a\n1,2\n", "two columns named 'a'"),
        (
            "1,cat,0.5,0.25\n2,dog,1,2\n",
            r"first line of .* holds numbers \('1'\).*no line of column names.*id,label,f0,f1",
        ),
        ("cat,0.5,0.5\ndog,1,2\n", "no line of column names"),
        ("cat,-1,nan\ndog,1,2\n", "no line of column names"),
        ("1,cat,[1 2]\n2,dog,[3 4]\n", "no line of column names"),
        ("cat,[1 2]\ndog,[3 4]\n", "no line of column names"),
        ("cat,0\ndog,1\n", "no line of column names"),
        ("label,1,2\ndog,1,2\n", "no line of column names"),
        ("0,1,2\n3,4,5\n", "counts 0, 1, 2.* Put a line of names before it"),
        ("name,what\nx,y\n", "no column of numbers"),
        ("1,2\n3\n", "Line 2 of .* has 1 columns, where the first has 2"),
        ("a,b\n1,2\n3,x\n", "Line 3 of .*'x' in the column 'b' is not a number"),
        ("a,b\n1,2\n3,\n", "Line 3 of .*'' in the column 'b'"),
        ("a,b\n,2\n3,4\n", "Line 2 of .*'' in the column 'a'"),
        ("a,b\n1,2\n3,nan\n", "Row 2 of .* NaN"),
        ("v\n[1 2]\n[1 2 3]\n", "Line 3 of .* a vector of 3 numbers, where the first has 2"),
        ("v\n[1 2]\n[]\n", "Line 3 of .* is empty"),
        ("v\n[1 2]\n[1 b]\n", "Line 3 of .* something other"),
        ("v\n[0.1 0.2 ... 0.9]\n", r"cut short .*'\.\.\.'"),
        ("id,v\n1,[1 2]\n1,[3 4]\n", "the same id 1"),
        (f"v,all_labels\n[1 2],{'[' * 100_000}\n", "not a list of labels"),
    ],
)
def test_csv(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    refused(tmp_path / "a.csv", match)


def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    for columns, match in (
        ({"v": [[1.0, 2.0], [3.0]]}, "Row 2 of .* a vector of 1 numbers"),
        ({"v": [[1.0, 2.0], None]}, "Row 2 of .* nothing in the column 'v'"),
        ({"v": [[1.0, None], [1.0, 2.0]]}, "numbers are missing"),
        ({"v": ["[1 2]", "[1 2 3]"]}, "Row 2 of .* 3 numbers"),
        ({"v": ["[1 2]", "x"]}, "something other"),
        ({"a": [1.0, None], "b": [1.0, 2.0]}, "Row 2 of .* nothing in the column 'a'"),
        ({"a": ["x", "y"]}, "no column of numbers"),
    ):
        pyarrow.parquet.write_table(arrow.table(columns), tmp_path / "a.parquet")
        refused(tmp_path / "a.parquet", match)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'searchengine\[parquet\]'"):
        import_features(tmp_path / "a.parquet", tmp_path / "index")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", GOOD)

    def full(*_: Any) -> None:
        raise IndexingError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "store", full)  # in the middle of the transaction
        refused(tmp_path / "a.npy", "full")
    with pytest.raises(IndexNotFoundError):
        open_index(tmp_path / "index")
    # An import killed before the transaction leaves an empty catalog, which is ignored.
    Catalog.create(
        tmp_path / "index",
        {"dimension": "9", "rows": "0", "edits": "0", "features_file": "features.npy"}
        | {"spec": GOOD_SPEC, "extractor": "x", "fingerprint": "x"},
    ).close()
    assert import_features(tmp_path / "a.npy", tmp_path / "index").images == 4


def test_a_failed_import_removes_only_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,a\n1,2\n")
    with pytest.raises(IndexingError, match="two columns"):
        import_features(tmp_path / "a.csv", tmp_path / "new" / "deep" / "index")
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(IndexingError, match="two columns"):
        import_features(tmp_path / "a.csv", tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(IndexingError, match="two columns"):
        import_features(tmp_path / "a.csv", tmp_path / "full")
    assert (tmp_path / "full" / "notes.txt").exists()


def test_ids_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=GOOD, ids=[1, 2, 3, LARGEST_ID])
    import_features(tmp_path / "a.npz", tmp_path / "index")
    np.save(tmp_path / "b.npy", GOOD)
    append = ImportOptions(append=True)
    assert import_features(tmp_path / "b.npy", tmp_path / "index", append).images == 8
    with IndexWriter.open(tmp_path / "index") as writer:
        writer.reserve_ids(2**63 - 4)
    with pytest.raises(IndexingError, match=r"ids up to 9223372036854775804, .* --ids\. Nothing was imported"):
        import_features(tmp_path / "b.npy", tmp_path / "index", append)
    np.save(tmp_path / "b.npy", GOOD[:3])
    assert import_features(tmp_path / "b.npy", tmp_path / "index", append).images == 11


@pytest.mark.parametrize("out", ["a.csv/e.npz", "a.csv/deeper/e.npz"])
def test_export_into_a_file_in_place_of_a_folder(out: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GOOD)
    import_features(tmp_path / "a.npy", tmp_path / "index")
    index = open_index(tmp_path / "index")
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(IndexingError, match=r"a\.csv is a file.* Name another folder"):
        export_index(index, tmp_path / out)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IndexingError, match=r"folder\.npz is a folder\. Name a file"):
        export_index(index, tmp_path / "folder.npz")
    index.close()


@pytest.mark.parametrize("array", [np.ones(3, dtype=complex), np.array(["1", "2", "3"])])
def test_query_vectors_of_another_type(array: np.ndarray[Any, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", array)
    with pytest.raises(QueryError, match=f"have the type {array.dtype}; they must be real numbers"):
        read_vectors(str(tmp_path / "q.npy"))


GOOD_SPEC = (
    '{"model": "imported", "layer": null, "pooling": "none", "normalize": "none", "weights": "none", '
    '"input_size": [0, 0], "full_decode": true}'
)


def test_names_of_options(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GOOD)
    with pytest.raises(UnknownNameError, match="cosine"):
        import_features(tmp_path / "a.npy", tmp_path / "index", ImportOptions(metric="cosin"))
    with pytest.raises(UnknownNameError, match="l2"):
        import_features(tmp_path / "a.npy", tmp_path / "index", ImportOptions(normalize="l1"))


def test_vectors_in_text() -> None:
    for text in (
        "array('d', [1.0, 2.5])",
        "[1 2.5]",
        " [1.0,2.5] ",
        "array([1. , 2.5], dtype=float32)",
        "1 2.5",
        "1,2.5",
        "[1\n 2.5]",
        "tensor([1.0, 2.5])",
    ):
        assert is_vector(text), text
        assert parse_vector(text) == [1.0, 2.5]
    for text in ("", "cat", "3", "Height: 32 Width: 32", "a [cat]", "photos [2]/x.jpg", "[]"):
        assert not is_vector(text), text
