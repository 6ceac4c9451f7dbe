"""Indexes of older formats can be opened and upgraded. Older versions of the program made the files in ``formats/``.

``format-1-compact.zip`` has an index made with a model that no longer exists: 5 pictures in /photos, one of which was
removed again, and a skipped file. ``format-1-imported.zip`` has 4 imported features. ``format-3.zip`` has an index made
with the fake extractor from 3 JPEGs in /photos, and these files, two of them with EXIF data.
"""

from __future__ import annotations

import os
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from searchengine import SearchEngine, open_index, update_index
from searchengine.errors import IndexDamagedError
from searchengine.exchange import ImportOptions, import_features
from searchengine.extractors import ExtractorSpec
from searchengine.index.catalog import FORMAT, Catalog
from searchengine.indexing.verify import verify
from tests.fakes import FakeExtractor, picture

FORMATS = Path(__file__).parent / "formats"
PATHS = ["cats/a.png", "cats/b.png", "dogs/c.png", "dogs/d.png"]
Unpack = Callable[[str], Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    def unpack(name: str) -> Path:
        with zipfile.ZipFile(FORMATS / f"{name}.zip") as archive:
            archive.extractall(tmp_path / name)
        return tmp_path / name

    return unpack


def format_of(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def spec_of(folder: Path) -> ExtractorSpec:
    with closing(open_index(folder)) as index:
        return ExtractorSpec.from_json(index.spec)


def photos_of(folder: Path, at: Path) -> Path:
    """Write the pictures of ``format-1-compact.zip`` to a folder."""
    colours = [(200, 30, 30), (180, 60, 30), (30, 200, 30), (30, 30, 200)]
    for path, colour in zip(PATHS, colours, strict=True):
        (at / path).parent.mkdir(parents=True, exist_ok=True)
        (at / path).write_bytes(picture(colour))
    (at / "no.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return at


def test_reading_changes_nothing_on_disk(unpack: Unpack) -> None:
    folder = unpack("format-1-compact")
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with closing(SearchEngine.open(folder)) as engine:
        assert (engine.index.normalized, engine.index.metric, engine.spec.model) == (True, "cosine", "compact")
        assert engine.index.paths == PATHS
        assert engine.index.labels == ["cats", "cats", "dogs", "dogs"]
        assert engine.index.ids.tolist() == [1, 2, 3, 4]
        assert [hit.id for hit in engine.search(1)][:2] == [1, 2]
        assert engine.index.status().skipped == 1
        assert [record.id for record in engine.index.sample(2)] == [1, 3]
    assert verify(folder).sound
    assert {file: file.read_bytes() for file in before} == before
    assert format_of(folder / "catalog.sqlite") == 1


def test_imported_features(unpack: Unpack, tmp_path: Path) -> None:
    folder = unpack("format-1-imported")
    with closing(open_index(folder)) as index:
        np.testing.assert_array_equal(index.features, np.arange(12).reshape(4, 3))
        assert (index.ids.tolist(), index.normalized) == ([3, 5, 7, 8], False)
        np.savez(tmp_path / "more.npz", features=np.ones((1, 3), dtype=np.float32))
        import_features(tmp_path / "more.npz", folder, ImportOptions(append=True))
        assert format_of(folder / "catalog.sqlite") == FORMAT
        assert index.ids.tolist() == [3, 5, 7, 8, 9]  # the open reader has kept up
    assert verify(folder).sound


def test_a_run_upgrades_the_index_and_keeps_every_id(unpack: Unpack, tmp_path: Path) -> None:
    folder, photos = unpack("format-1-compact"), photos_of(tmp_path, tmp_path / "photos")
    (photos / "new.png").write_bytes(picture((1, 2, 3)))
    done = update_index(photos, folder, extractor=FakeExtractor(spec_of(folder)), relocate=True)
    assert (done.added, done.unchanged, done.images, done.embedded) == (1, 4, 5, 1)
    assert {format_of(folder / name) for name in ("catalog.sqlite", "backup.sqlite")} == {FORMAT}
    with closing(open_index(folder)) as index:
        assert dict(zip(index.paths, index.ids.tolist(), strict=True)) == {
            **{path: number for number, path in enumerate(PATHS, 1)},
            "new.png": 6,  # 5 was given to the picture that was removed
        }
    assert verify(folder).sound


def test_ids_are_taken_from_a_backup_of_an_older_format(unpack: Unpack, tmp_path: Path) -> None:
    folder = unpack("format-1-compact")
    spec = spec_of(folder)
    (folder / "catalog.sqlite").write_bytes(b"damaged" * 1000)
    with pytest.raises(IndexDamagedError):
        open_index(folder)
    photos = photos_of(folder, tmp_path / "photos")
    update_index(photos, folder, extractor=FakeExtractor(spec), rebuild=True, prune=True)
    with closing(open_index(folder)) as index:
        assert dict(zip(index.paths, index.ids.tolist(), strict=True)) == dict(zip(PATHS, [1, 2, 3, 4], strict=True))


def test_an_index_with_a_log_of_a_killed_run(unpack: Unpack, tmp_path: Path) -> None:
    """The log has changes that were not written back to the catalog."""
    folder = unpack("format-1-compact")
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection:
        connection.execute("DELETE FROM images WHERE id = 4")
        connection.commit()
        killed = tmp_path / "killed"
        killed.mkdir()
        for file in folder.iterdir():
            if not file.name.endswith("-shm"):
                (killed / file.name).write_bytes(file.read_bytes())
    with closing(open_index(killed)) as index:
        assert index.ids.tolist() == [1, 2, 3]
        assert index.state() is index.state()


@pytest.fixture
def photographed(unpack: Unpack) -> tuple[Path, Path]:
    """The index of format 3, and its photos with the mtimes that they had when they were indexed."""
    folder = unpack("format-3")
    for file in (folder / "photos").rglob("*.*"):
        os.utime(file, (1_600_000_000, 1_600_000_000))  # 2020-09-13
    return folder / "index", folder / "photos"


def years_and_cameras(folder: Path) -> tuple[dict[str, int], dict[str, int]]:
    with closing(open_index(folder)) as index:
        facets = index.facets()
        year, camera = ({each.value: each.count for each in facet} for facet in (facets.year, facets.camera))
        return year, camera


def test_the_next_run_reads_the_dates_and_cameras_of_photos(photographed: tuple[Path, Path]) -> None:
    folder, photos = photographed
    assert years_and_cameras(folder) == ({"2020": 3}, {})  # by the times of the files
    extractor = FakeExtractor()
    done = update_index(photos, folder, extractor=extractor, relocate=True)
    assert (done.unchanged, done.dated, done.embedded, extractor.embedded) == (3, 3, 0, 0)
    assert format_of(folder / "catalog.sqlite") == FORMAT
    assert years_and_cameras(folder) == (
        {"2020": 1, "2021": 1, "2023": 1},
        {"Canon EOS 5D": 1, "Canon PowerShot G7": 1},
    )
    assert verify(folder).sound
    assert update_index(photos, folder, extractor=extractor).dated == 0


def test_dates_that_could_not_be_read_are_read_by_a_later_run(photographed: tuple[Path, Path]) -> None:
    folder, photos = photographed
    (photos / "cats" / "a.jpg").rename(photos / "elsewhere")
    assert update_index(photos, folder, extractor=FakeExtractor(), relocate=True, limit=1).dated == 1
    (photos / "elsewhere").rename(photos / "cats" / "a.jpg")
    assert update_index(photos, folder, extractor=FakeExtractor(), relocate=True).dated == 2
    assert years_and_cameras(folder)[0] == {"2020": 1, "2021": 1, "2023": 1}


def test_a_manifest_without_the_entries_of_its_format(unpack: Unpack) -> None:
    folder = unpack("format-1-compact")
    with closing(sqlite3.connect(folder / "catalog.sqlite")) as connection:
        connection.execute("UPDATE manifest SET value = '{' WHERE key = 'spec'")
        connection.commit()
    for write in (False, True):
        with pytest.raises(IndexDamagedError, match=r"which extractor made the features.*--rebuild"):
            Catalog.open(folder, write=write)
    assert format_of(folder / "catalog.sqlite") == 1
