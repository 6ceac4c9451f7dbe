"""What a training keeps of its photos is used for these photos only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.learning import teacher
from searchengine.learning.photos import decode_once, squashed_some
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
    """A teacher that says the mean colour; it can be stopped after some batches."""

    parts = (3,)
    batches = 10**6

    def __init__(self, path: Path, *, size: int) -> None:
        self.batch = 2

    def answer(self, pictures: np.ndarray) -> np.ndarray:
        if not Mean.batches:
            raise KeyboardInterrupt
        Mean.batches -= 1
        return pictures.mean(axis=(1, 2)).astype(np.float16)


@pytest.fixture(autouse=True)
def mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "Teacher", Mean)
    monkeypatch.setattr(Mean, "batches", 10**6)


def pictures(seed: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)


def means(seed: int, count: int = 5) -> np.ndarray:
    return pictures(seed, count).mean(axis=(1, 2)).astype(np.float16)


def told(folder: Path, seed: int, *, count: int = 5, file: str = "mean.tflite") -> np.ndarray:
    shown = pictures(seed, count)
    source = {"photos": seed}
    found = teacher.answers_once(Path(file), folder / "told", count, source, lambda first, after: shown[first:after])
    assert found.parts == (3,)
    return found.answers


def test_answers_about_other_pictures_or_of_other_teachers_are_refused(tmp_path: Path) -> None:
    np.testing.assert_array_equal(told(tmp_path, 0), means(0))
    before = stamp(tmp_path / "told.npy")
    np.testing.assert_array_equal(told(tmp_path, 0), means(0))
    for seed, count, file in ((1, 5, "mean.tflite"), (0, 4, "mean.tflite"), (0, 6, "mean.tflite"), (0, 5, "b.tflite")):
        with pytest.raises(SearchEngineError, match=r"other photos or by another teacher \(5 rows\); remove it"):
            told(tmp_path, seed, count=count, file=file)
    assert stamp(tmp_path / "told.npy") == before
    (tmp_path / "told.npy").unlink()
    np.testing.assert_array_equal(told(tmp_path, 1), means(1))


def test_stopped_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mean, "batches", 60)  # of 100: what is certain is written every 50
    with pytest.raises(KeyboardInterrupt):
        told(tmp_path, 0, count=200)
    monkeypatch.setattr(Mean, "batches", 50)
    np.testing.assert_array_equal(told(tmp_path, 0, count=200), means(0, 200))
    monkeypatch.setattr(Mean, "batches", 0)
    np.testing.assert_array_equal(told(tmp_path, 0, count=200), means(0, 200))


def test_stopped_before_anything_is_certain_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(tmp_path, 0)
    (tmp_path / "told.npy").unlink()
    monkeypatch.setattr(Mean, "batches", 1)
    with pytest.raises(KeyboardInterrupt):
        told(tmp_path, 1)
    monkeypatch.setattr(Mean, "batches", 10)
    np.testing.assert_array_equal(told(tmp_path, 1), means(1))


def test_some_photos_are_drawn_evenly_and_always_the_same(tmp_path: Path) -> None:
    photos = tiny.draw_photos(tmp_path / "photos", each=4)
    every = squashed_some(photos, 16)
    assert every.shape == (12, 16, 16, 3)
    assert every.dtype == np.uint8
    some = squashed_some(photos, 16, most=5)
    assert len(some) == 5
    assert all((every == one).all(axis=(1, 2, 3)).any() for one in some)
    np.testing.assert_array_equal(some, squashed_some(photos, 16, most=5))
