"""What a training keeps of its photos is used for these photos only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.learning import teacher
from searchengine.learning.photos import decode_once
from tests.learning import tiny


def stamp(file: Path) -> int:
    return file.stat().st_mtime_ns


def test_other_photos_of_the_same_number_are_refused(tmp_path: Path) -> None:
    photos, cache = tiny.draw_photos(tmp_path / "photos", each=2), tmp_path / "cache"
    decode_once(photos, cache, size=16)
    (photos / "red" / "00.png").rename(photos / "blue" / "02.png")
    with pytest.raises(SearchEngineError, match=r"other photos.*remove it"):
        decode_once(photos, cache, size=16)
    (photos / "blue" / "02.png").rename(photos / "red" / "00.png")
    decode_once(photos, cache, size=16)
    with pytest.raises(SearchEngineError, match="other photos"):
        decode_once(photos, cache, size=16, seed=1)  # the order, and with it the labels, would be another
    (photos / "red" / "00.png").write_bytes((photos / "red" / "00.png").read_bytes() + b" ")
    with pytest.raises(SearchEngineError, match="other photos"):
        decode_once(photos, cache, size=16)
    (cache / "pixels.npy").unlink()
    assert len(decode_once(photos, cache, size=16).pixels) == 6
    assert len(decode_once(photos, cache, size=16).pixels) == 6


def test_pixels_of_unknown_photos_are_taken_for_these(tmp_path: Path) -> None:
    photos, cache = tiny.draw_photos(tmp_path / "photos", each=2), tmp_path / "cache"
    decode_once(photos, cache, size=16)
    before = stamp(cache / "pixels.npy")
    (cache / "pixels.json").unlink()
    decode_once(photos, cache, size=16)
    assert stamp(cache / "pixels.npy") == before
    assert (cache / "pixels.json").exists()
    (cache / "pixels.json").unlink()
    (photos / "red" / "00.png").unlink()
    with pytest.raises(SearchEngineError, match="other photos"):  # these are not
        decode_once(photos, cache, size=16)
    assert not (cache / "pixels.json").exists()


class Mean:
    """A teacher whose embedding is the mean colour; it can be stopped after some batches."""

    batch, dimension = 2, 3
    batches = 10**6

    def __init__(self, path: Path) -> None:
        self.path = path

    def embed(self, pictures: np.ndarray) -> np.ndarray:
        if not Mean.batches:
            raise KeyboardInterrupt
        Mean.batches -= 1
        return pictures.mean(axis=(1, 2)).astype(np.uint8)


@pytest.fixture(autouse=True)
def mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "Teacher", Mean)
    monkeypatch.setattr(Mean, "batches", 10**6)


def pictures(seed: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def test_embeddings_of_other_pictures_or_teachers_are_refused(tmp_path: Path) -> None:
    file = Path("mean.tflite")
    rows = np.array(teacher.embed_once(file, pictures(0), tmp_path))
    before = stamp(tmp_path / "teacher.npy")
    np.testing.assert_array_equal(teacher.embed_once(file, pictures(0), tmp_path), rows)
    for other, shown in ((file, pictures(1)), (file, pictures(0, 4)), (file, pictures(0, 6)), (Path("b"), pictures(0))):
        with pytest.raises(SearchEngineError, match=r"other photos or by another teacher \(5 rows\); remove it"):
            teacher.embed_once(other, shown, tmp_path)
    assert stamp(tmp_path / "teacher.npy") == before
    (tmp_path / "teacher.npy").unlink()
    found = teacher.embed_once(file, pictures(1), tmp_path)
    np.testing.assert_array_equal(found, pictures(1).mean(axis=(1, 2)).astype(np.uint8))


def test_embeddings_of_unknown_pictures_are_taken_for_these(tmp_path: Path) -> None:
    file = Path("mean.tflite")
    rows = np.array(teacher.embed_once(file, pictures(0), tmp_path))
    (tmp_path / "teacher.json").unlink()
    with pytest.raises(SearchEngineError, match="5 rows"):  # but for another number of them
        teacher.embed_once(file, pictures(0, 6), tmp_path)
    np.testing.assert_array_equal(teacher.embed_once(file, pictures(0), tmp_path), rows)
    with pytest.raises(SearchEngineError, match="other photos"):
        teacher.embed_once(file, pictures(1), tmp_path)


def test_made_anew_and_stopped_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("mean.tflite")
    teacher.embed_once(file, pictures(0), tmp_path)
    (tmp_path / "teacher.npy").unlink()
    monkeypatch.setattr(Mean, "batches", 1)
    with pytest.raises(KeyboardInterrupt):
        teacher.embed_once(file, pictures(1), tmp_path)
    monkeypatch.setattr(Mean, "batches", 10)
    found = teacher.embed_once(file, pictures(1), tmp_path)
    np.testing.assert_array_equal(found, pictures(1).mean(axis=(1, 2)).astype(np.uint8))
