"""What a teacher network says of pictures, kept for these pictures only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.learning.teacher import Directions, Teacher, answers_once
from tests.small_compact import pictures


def unit(row: Any) -> Any:
    return row / np.linalg.norm(row)


def test_directions_are_unit_rows_whose_parts_are_about_their_means_and_count_alike() -> None:
    answers = np.random.default_rng(0).random((20, 8)).astype(np.float32)
    rows = Directions.of(answers, (5, 3))(answers)
    for part in (slice(0, 5), slice(5, 8)):
        mean = np.mean([unit(row[part]) for row in answers], axis=0)
        naive = np.array([unit(unit(row[part]) - mean) for row in answers])
        np.testing.assert_allclose(rows[:, part], naive / np.sqrt(2), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_a_classifier_teaches_its_mean_over_positions_and_its_logits(teacher_file: Path) -> None:
    teacher = Teacher(teacher_file, size=48, batch=4)
    assert teacher.parts == (6, 10)
    several = pictures(3, 48)
    answers = teacher.answer(several)
    assert answers.shape == (3, 16)
    assert answers.dtype == np.float16
    np.testing.assert_array_equal(teacher.answer(several[1:2])[0], answers[1])  # whatever stands beside it
    classes = np.random.default_rng(0)
    classes.normal(0, 0.01, (6, 3, 3, 3))
    weights = classes.normal(size=(6, 10))
    np.testing.assert_allclose(answers[:, 6:], answers[:, :6].astype(float) @ weights, rtol=0.01, atol=0.01)


def test_a_network_without_a_mean_over_positions_cannot_teach(tmp_path: Path) -> None:
    import openvino as ov
    import openvino.opset13 as ops

    picture = ops.parameter([1, 32, 32, 3], np.uint8)
    file = tmp_path / "none.xml"
    ov.save_model(ov.Model([ops.convert(picture, "f32")], [picture]), file)
    with pytest.raises(SearchEngineError, match="no mean over positions"):
        Teacher(file)


def test_what_the_teacher_says_is_kept_and_a_stopped_run_goes_on(teacher_file: Path, tmp_path: Path) -> None:
    several, asked = pictures(70, 32), []

    def some(first: int, after: int) -> list[Any]:
        asked.append(first)
        return list(several[first:after])

    told = answers_once(teacher_file, tmp_path / "kept" / "x", 70, {"photos": "these"}, some, size=32)
    assert told.parts == (6, 10)
    assert asked == [0, 32, 64]
    wanted = np.array(told.answers)
    rows = np.lib.format.open_memmap(tmp_path / "kept" / "x.npy", "r+")
    rows[32:] = 0  # as a kill after one batch leaves it
    rows.flush()
    (tmp_path / "kept" / "x.done").write_text("32")
    again = answers_once(teacher_file, tmp_path / "kept" / "x", 70, {"photos": "these"}, some, size=32)
    assert asked == [0, 32, 64, 32, 64]
    np.testing.assert_array_equal(again.answers, wanted)
    with pytest.raises(SearchEngineError, match="made from other photos"):
        answers_once(teacher_file, tmp_path / "kept" / "x", 70, {"photos": "others"}, some, size=32)


def test_answers_about_other_pictures_or_of_other_teachers_are_refused(teacher_file: Path, tmp_path: Path) -> None:
    def told(seed: int, count: int = 5, file: Path = teacher_file) -> Any:
        several = pictures(count, 32, seed)
        kept = tmp_path / "told"
        return answers_once(file, kept, count, {"photos": seed}, lambda i, j: list(several[i:j]), size=32).answers

    answers = np.array(told(0))
    before = (tmp_path / "told.npy").stat().st_mtime_ns
    np.testing.assert_array_equal(told(0), answers)
    other = teacher_file.with_name("other.xml")
    for suffix in (".xml", ".bin"):
        other.with_suffix(suffix).write_bytes(teacher_file.with_suffix(suffix).read_bytes())
    for seed, count, file in ((1, 5, teacher_file), (0, 4, teacher_file), (0, 6, teacher_file), (0, 5, other)):
        with pytest.raises(SearchEngineError, match=r"other photos or by another teacher \(5 rows\); remove it"):
            told(seed, count, file)
    assert (tmp_path / "told.npy").stat().st_mtime_ns == before
    (tmp_path / "told.npy").unlink()
    assert (told(1) != answers).any()


def test_another_network_of_the_same_name_is_refused(teacher_file: Path, tmp_path: Path) -> None:
    def told(file: Path) -> Any:
        several = pictures(5, 32)
        return answers_once(file, tmp_path / "told", 5, {"photos": 0}, lambda i, j: list(several[i:j]), size=32)

    answers, note = np.array(told(teacher_file).answers), tmp_path / "told.json"
    other = tmp_path / "other" / teacher_file.name
    other.parent.mkdir()
    other.write_bytes(teacher_file.read_bytes())
    weights = bytearray(teacher_file.with_suffix(".bin").read_bytes())  # an .xml alone does not tell
    weights[-4] ^= 1
    other.with_suffix(".bin").write_bytes(weights)
    with pytest.raises(SearchEngineError, match="by another teacher"):
        told(other)
    earlier = {"teacher": teacher_file.name, "size": 32, "photos": 0}
    note.write_text(json.dumps(earlier))  # as it was written before it told the bytes
    np.testing.assert_array_equal(told(teacher_file).answers, answers)
    assert json.loads(note.read_text()) == earlier  # which network that was is not known
    note.write_text(json.dumps({**earlier, "teacher": "another.xml"}))
    with pytest.raises(SearchEngineError, match="by another teacher"):
        told(teacher_file)


@pytest.mark.parametrize("kind", ["nothing", "folder", "text", "sound"])
def test_a_teacher_that_cannot_be_used_is_named(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "teacher.xml"
    if kind == "folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("no network")
    elif kind == "sound":
        save_network_of_sound(file)
    said = {"text": "cannot be read as a network", "sound": "takes no pictures"}.get(kind, "is not a file")
    with pytest.raises(SearchEngineError, match=rf"teacher\.xml {said}.*--teacher"):
        Teacher(file)


def save_network_of_sound(file: Path) -> None:
    """It takes a mean over positions, but of rows of numbers."""
    import openvino as ov
    import openvino.opset13 as ops

    sound = ops.parameter([1, 4, 100], np.float32)
    ov.save_model(ov.Model([ops.reduce_mean(sound, np.array([2]))], [sound]), file)


def test_stopped_before_anything_is_certain_it_begins_anew(teacher_file: Path, tmp_path: Path) -> None:
    several = pictures(70, 32)

    def stopped(first: int, after: int) -> list[Any]:
        if first:
            raise KeyboardInterrupt
        return list(pictures(after, 32, seed=9))  # others than those that come then

    with pytest.raises(KeyboardInterrupt):
        answers_once(teacher_file, tmp_path / "x", 70, {"photos": "others"}, stopped, size=32)
    found = answers_once(teacher_file, tmp_path / "x", 70, {"photos": 0}, lambda i, j: list(several[i:j]), size=32)
    np.testing.assert_array_equal(found.answers[:32], Teacher(teacher_file, size=32).answer(several[:32]))
