"""Views of photos, and the batches drawn from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.learning.lessons import VIEW, Batches, lessons_of_files
from searchengine.learning.photos import Augmentation
from searchengine.learning.teacher import Teacher
from tests.learn.triplets import tiny
from tests.small_compact import cosines


def test_each_kind_of_lessons_has_its_share_and_all_its_views_are_drawn_once_an_epoch() -> None:
    batches = Batches([tiny.lessons(10, 48), tiny.lessons(6, 64, classes=0)], Augmentation(), 7, seed=1)
    drawn = [batches.rows(step) for step in range(6)]
    assert {tuple(map(len, rows)) for rows in drawn} == {(4, 3)}
    for kind, count in enumerate((10, 6)):
        rows = np.concatenate([several[kind] for several in drawn])
        assert sorted(rows[:count].tolist()) == list(range(count))
    several, wanted = batches.at(2, 48)
    assert several.shape == (7, 48, 48, 3)
    assert wanted["teacher"].shape == (7, 24)
    assert (wanted["label"][:4] >= 0).all()
    assert (wanted["label"][4:] == -1).all()
    np.testing.assert_array_equal(several, batches.at(2, 48)[0])


def test_pupil_and_teacher_see_the_same_part_of_a_photo(
    teacher_file: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo_folder / "cats" / "broken.jpg").write_bytes(b"no picture")
    made = lessons_of_files(photo_folder, teacher_file, tmp_path / "kept" / "more")
    assert made.pixels.shape == (50, VIEW, VIEW, 3)
    assert (made.labels == -1).all()
    assert "broken.jpg cannot be read" in capsys.readouterr().err
    readable = made.pixels.any(axis=(1, 2, 3))
    assert readable.sum() == 48
    seen = Teacher(teacher_file).answer(made.pixels[:20])[readable[:20]]  # the pupil's view, enlarged
    assert (cosines(seen[:, :6].astype(float), made.answers[:20][readable[:20], :6].astype(float)) > 0.99).all()
    whole, part = made.pixels[0].astype(int), made.pixels[1].astype(int)
    assert np.abs(whole - part).mean() > 1
    again = lessons_of_files(photo_folder, teacher_file, tmp_path / "kept" / "more")
    np.testing.assert_array_equal(again.pixels, made.pixels)


def test_views_that_are_gone_are_made_again(teacher_file: Path, photo_folder: Path, tmp_path: Path) -> None:
    made = lessons_of_files(photo_folder, teacher_file, tmp_path / "more")
    pixels, answers = np.array(made.pixels), np.array(made.answers)
    (tmp_path / "more.pixels.npy").unlink()
    again = lessons_of_files(photo_folder, teacher_file, tmp_path / "more")
    np.testing.assert_array_equal(again.pixels, pixels)  # not black
    np.testing.assert_array_equal(again.answers, answers)


def test_another_set_of_photos_in_between_leaves_the_views_as_they_are(
    teacher_file: Path, photo_folder: Path, tmp_path: Path
) -> None:
    pixels = np.array(lessons_of_files(photo_folder, teacher_file, tmp_path / "more").pixels)
    added = photo_folder / "cats" / "added.jpg"
    added.write_bytes((photo_folder / "cats" / "00.jpg").read_bytes())
    with pytest.raises(SearchEngineError, match=r"more\.pixels\.npy was made from other photos \(48 rows\); remove it"):
        lessons_of_files(photo_folder, teacher_file, tmp_path / "more")
    added.unlink()
    again = lessons_of_files(photo_folder, teacher_file, tmp_path / "more")
    np.testing.assert_array_equal(again.pixels, pixels)  # not black
    added.write_bytes((photo_folder / "cats" / "00.jpg").read_bytes())
    (tmp_path / "more.pixels.npy").unlink()  # as the message says
    made = lessons_of_files(photo_folder, teacher_file, tmp_path / "more")
    assert len(made.answers) == len(made.pixels) == 50
    assert made.pixels.any(axis=(1, 2, 3)).all()
