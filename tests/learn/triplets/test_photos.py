"""What a training keeps of its photos is used for these photos only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.learning.photos import decode_once, find_labelled, squashed, squashed_some
from tests.learn.triplets import tiny


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


def test_some_photos_are_drawn_evenly_and_always_the_same(tmp_path: Path) -> None:
    photos = tiny.draw_photos(tmp_path / "photos", each=4)
    every = squashed_some(photos, 16)
    assert every.shape == (12, 16, 16, 3)
    assert every.dtype == np.uint8
    some = squashed_some(photos, 16, most=5)
    assert len(some) == 5
    assert all((every == one).all(axis=(1, 2, 3)).any() for one in some)
    np.testing.assert_array_equal(some, squashed_some(photos, 16, most=5))


def test_a_photo_that_cannot_be_read_is_told_of_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tiny.draw_photos(tmp_path / "photos", each=2)
    (photos / "red" / "broken.jpg").write_bytes(b"no picture")
    assert len(squashed_some(photos, 16)) == 6
    assert "broken.jpg cannot be read" in capsys.readouterr().err
    for file in photos.rglob("*.png"):
        file.unlink()
    with pytest.raises(SearchEngineError, match=r"no image in .* can be read"):
        squashed_some(photos, 16)


def test_a_photo_that_cannot_be_read_leaves_pixels_and_classes_in_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, cache = tiny.draw_photos(tmp_path / "photos", each=3), tmp_path / "cache"
    for broken in (photos / "blue" / "01.png", photos / "red" / "02.png"):
        broken.write_bytes(broken.read_bytes()[:40])
    made = decode_once(photos, cache, size=16)
    err = capsys.readouterr().err
    assert err.count("cannot be read") == 2
    assert f"{photos / 'blue' / '01.png'} cannot be read" in err
    assert made.pixels.shape == (7, 16, 16, 3)
    files, labels, classes = find_labelled(photos)
    order = [row for row in np.random.default_rng(0).permutation(9) if files[row].stat().st_size > 40]
    assert made.classes == classes
    assert made.labels.tolist() == [labels[row] for row in order]
    np.testing.assert_array_equal(made.pixels, [squashed(files[row], 16) for row in order])
    before = stamp(cache / "pixels.npy")
    again = decode_once(photos, cache, size=16)
    assert stamp(cache / "pixels.npy") == before
    assert (again.source, again.labels.tolist()) == (made.source, made.labels.tolist())
    np.testing.assert_array_equal(again.pixels, made.pixels)
    assert sorted(file.name for file in cache.iterdir()) == ["pixels.json", "pixels.npy"]
    (cache / "pixels.json").unlink()  # without it there is no telling which row is of which photo
    with pytest.raises(SearchEngineError, match="other photos"):
        decode_once(photos, cache, size=16)
    for file in photos.rglob("*.png"):
        file.write_bytes(b"no picture")
    (cache / "pixels.npy").unlink()
    with pytest.raises(SearchEngineError, match=r"no image in .* can be read"):
        decode_once(photos, cache, size=16)
