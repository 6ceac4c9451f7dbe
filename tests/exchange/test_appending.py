"""Features are added to an index that has some, or had some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.engine import open_index
from searchengine.errors import IndexingError
from searchengine.exchange import ImportOptions, import_features
from searchengine.index.catalog import Catalog
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from searchengine.indexing import update_index
from searchengine.indexing.verify import verify
from tests.exchange.conftest import DIMENSION, ROWS, write
from tests.fakes import FakeExtractor, picture

Rows = NDArray[np.float32]


def test_append(features: Rows, tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", features)
    import_features(file, tmp_path / "index")
    with pytest.raises(IndexingError, match=r"already .* 7 images .*--append"):
        import_features(file, tmp_path / "index")
    with pytest.raises(IndexingError, match="already holds an image 11"):
        import_features(file, tmp_path / "index", ImportOptions(append=True))
    np.save(tmp_path / "b.npy", features + 1)
    assert import_features(tmp_path / "b.npy", tmp_path / "index", ImportOptions(append=True)).images == 2 * ROWS
    index = open_index(tmp_path / "index")
    assert index.ids.tolist() == list(range(11, 25))
    index.close()
    np.save(tmp_path / "c.npy", features[:, :3])
    with pytest.raises(IndexingError, match="features of 5 numbers"):
        import_features(tmp_path / "c.npy", tmp_path / "index", ImportOptions(append=True))
    assert verify(tmp_path / "index").images == 2 * ROWS


def test_an_append_that_is_refused_changes_nothing(features: Rows, tmp_path: Path) -> None:
    file = write(tmp_path / "a.npz", features)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    import_features(file, tmp_path / "index", ImportOptions(images=tmp_path / "one"))
    with pytest.raises(IndexingError, match="already holds an image 11"):
        import_features(file, tmp_path / "index", ImportOptions(images=tmp_path / "two", append=True))
    index = open_index(tmp_path / "index")
    assert index.paths[0] == "p/11.png"  # from one folder; with a second, its name would precede each path
    index.close()


def emptied(folder: Path) -> list[int]:
    """Remove all images from an index, and return their ids."""
    with IndexWriter.open(folder) as writer:
        ids = sorted(writer.catalog.ids())
        writer.commit(Batch(removed=ids))
    return ids


def test_an_empty_index_of_photos_is_not_changed(features: Rows, tmp_path: Path) -> None:
    photos, folder = tmp_path / "photos", tmp_path / "index"
    photos.mkdir()
    (photos / "a.png").write_bytes(picture((255, 0, 0)))
    (photos / "b.png").write_bytes(picture((0, 255, 0)))
    update_index([photos], folder, extractor=FakeExtractor())
    np.save(tmp_path / "a.npy", features)
    given = emptied(folder)
    files = {file.name for file in folder.iterdir()}
    for append in (False, True):
        with pytest.raises(IndexingError, match=r"0 images .*index of photos\. Choose another --index-dir"):
            import_features(tmp_path / "a.npy", folder, ImportOptions(append=append))
    (tmp_path / "bad.npz").write_bytes(b"no features")
    with pytest.raises(IndexingError, match="index of photos"):
        import_features(tmp_path / "bad.npz", folder)
    assert {file.name for file in folder.iterdir()} == files
    update_index([photos], folder, extractor=FakeExtractor())
    index = open_index(folder)
    assert min(index.ids) > max(given)
    index.close()


def test_ids_continue_after_all_features_were_removed(features: Rows, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    np.save(tmp_path / "a.npy", features)
    import_features(tmp_path / "a.npy", folder)
    open_before = open_index(folder)
    assert emptied(folder) == list(range(1, ROWS + 1))
    np.save(tmp_path / "bad.npy", [[1.0, np.nan]])
    with pytest.raises(IndexingError, match="NaN"):
        import_features(tmp_path / "bad.npy", folder)
    index = open_index(folder)
    assert (len(index), index.dimension) == (0, DIMENSION)
    index.close()
    other = np.abs(features[:3, :4])
    np.save(tmp_path / "b.npy", other)
    assert import_features(tmp_path / "b.npy", folder, ImportOptions(normalize="l2", metric="cosine")).images == 3
    assert open_before.ids.tolist() == [ROWS + 1, ROWS + 2, ROWS + 3]
    assert (open_before.dimension, open_before.normalized, open_before.metric) == (4, True, "cosine")
    assert open_before.search(other[1], 1)[0][0].id == ROWS + 2
    open_before.close()
    assert verify(folder).sound


def test_ids_continue_after_a_full_disk(features: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"
    np.save(tmp_path / "a.npy", features)
    import_features(tmp_path / "a.npy", folder)
    emptied(folder)

    def full(*_: object) -> None:
        raise IndexingError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "store", full)  # in the middle of the transaction
        with pytest.raises(IndexingError, match="full"):
            import_features(tmp_path / "a.npy", folder)
    import_features(tmp_path / "a.npy", folder)
    index = open_index(folder)
    assert index.ids.tolist() == list(range(ROWS + 1, 2 * ROWS + 1))
    index.close()
