"""How the compact model is taught: losses, data, a training that can be killed, and the form that is shipped."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.extractors import compact
from searchengine.learning.lessons import VIEW, Batches, Lessons, lessons_of_files
from searchengine.learning.photos import Augmentation, Photos, decode_once, find_labelled, squashed
from searchengine.learning.schedule import GrowingSize, OneCycle
from searchengine.learning.teacher import Directions, Teacher, answers_once
from tests.small_compact import HEADLESS, SMALL, cosines, pictures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow and what it brings warn while they are imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]

# --- losses, against loops that are obviously right


def unit(row: Any) -> Any:
    return row / np.linalg.norm(row)


@pytest.mark.slow
def test_cosine_loss_is_one_minus_the_mean_cosine() -> None:
    from searchengine.learning.losses import cosine_loss

    a, b = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    wanted = np.mean([1 - unit(x) @ unit(y) for x, y in zip(a, b, strict=True)])
    assert float(cosine_loss(a, b)) == pytest.approx(wanted, abs=1e-5)
    assert float(cosine_loss(a, 3 * a)) == pytest.approx(0, abs=1e-5)
    assert np.isfinite(float(cosine_loss(np.zeros_like(a), b)))


def naive_neighbourhood_loss(feature: Any, wanted: Any, scale: float, teacher_scale: float) -> float:
    n, total = len(feature), 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        theirs = np.array([np.exp(teacher_scale * unit(wanted[i]) @ unit(wanted[j])) for j in others])
        ours = np.array([np.exp(scale * unit(feature[i]) @ unit(feature[j])) for j in others])
        theirs, ours = theirs / theirs.sum(), ours / ours.sum()
        total += float((theirs * np.log(theirs / ours)).sum())
    return total / n


@pytest.mark.slow
def test_neighbourhood_loss_is_a_mean_divergence() -> None:
    from searchengine.learning.losses import neighbourhood_loss

    rng = np.random.default_rng(0)
    feature, wanted = rng.random((6, 4), np.float32), rng.random((6, 9), np.float32)
    found = float(neighbourhood_loss(feature, wanted, scale=4.0, teacher_scale=10.0))
    assert found == pytest.approx(naive_neighbourhood_loss(feature, wanted, 4.0, 10.0), rel=1e-3)
    assert float(neighbourhood_loss(wanted, wanted, scale=10.0, teacher_scale=10.0)) == pytest.approx(0, abs=1e-4)


@pytest.mark.slow
def test_cross_entropy_is_smoothed_and_skips_the_unlabelled() -> None:
    from searchengine.learning.losses import smoothed_cross_entropy

    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    labels = np.array([0, -1, 2, 1], np.int32)
    each = []
    for row, label in zip(logits, labels, strict=True):
        if label >= 0:
            probability = np.exp(row) / np.exp(row).sum()
            target = np.full(3, 0.1 / 3)
            target[label] += 0.9
            each.append(-(target * np.log(probability)).sum())
    assert float(smoothed_cross_entropy(logits, labels)) == pytest.approx(np.mean(each), abs=1e-4)
    assert float(smoothed_cross_entropy(logits, np.full(4, -1, np.int32))) == 0


# --- data and schedule


def test_learning_rate_rises_falls_and_ends_at_nothing() -> None:
    cycle = OneCycle(1.0, rise=0.1)
    rates = [cycle.at(p) for p in np.linspace(0, 1, 101)]
    assert max(rates) == rates[10] == pytest.approx(1)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == cycle.at(1.5) == pytest.approx(0)


def test_sizes_grow() -> None:
    sizes = GrowingSize(((0.5, 48), (1.0, 64)))
    assert [sizes.at(p) for p in (0, 0.49, 0.5, 1.0)] == [48, 48, 64, 64]
    assert GrowingSize.parse("48:0.5,64:1") == sizes


@pytest.mark.parametrize("text", ["50:1", "64:1,48:0.5", "64", "16:1", ""])
def test_sizes_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (two kinds of it, one from float() and int())
        GrowingSize.parse(text)


def test_directions_are_unit_rows_whose_parts_are_about_their_means_and_count_alike() -> None:
    answers = np.random.default_rng(0).random((20, 8)).astype(np.float32)
    rows = Directions.of(answers, (5, 3))(answers)
    for part in (slice(0, 5), slice(5, 8)):
        mean = np.mean([unit(row[part]) for row in answers], axis=0)
        naive = np.array([unit(unit(row[part]) - mean) for row in answers])
        np.testing.assert_allclose(rows[:, part], naive / np.sqrt(2), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_augmentation_keeps_shape_and_repeats_by_seed() -> None:
    several = pictures(4, 32)
    first = Augmentation().batch(several, 48, np.random.default_rng(5))
    assert first.shape == (4, 48, 48, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, Augmentation().batch(several, 48, np.random.default_rng(5)))
    assert (first != Augmentation().batch(several, 48, np.random.default_rng(6))).any()


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """24 JPEGs of two classes, 40 x 30 pixels."""
    from PIL import Image

    folder = tmp_path / "photos"
    for row, picture in enumerate(pictures(24, 40)):
        path = folder / ("cats", "dogs")[row % 2] / f"{row:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture[:30]).save(path)
    return folder


def test_photos_are_decoded_once_in_a_fixed_order(photo_folder: Path, tmp_path: Path) -> None:
    photos = decode_once(photo_folder, tmp_path / "cache", size=16)
    files, labels, classes = find_labelled(photo_folder)
    order = np.random.default_rng(0).permutation(len(files))
    assert classes == photos.classes == ("cats", "dogs")
    assert photos.labels.tolist() == [labels[i] for i in order]
    np.testing.assert_array_equal(photos.pixels[3], squashed(files[order[3]], 16))
    stamp = (tmp_path / "cache" / "pixels.npy").stat().st_mtime_ns
    decode_once(photo_folder, tmp_path / "cache", size=16)
    assert (tmp_path / "cache" / "pixels.npy").stat().st_mtime_ns == stamp
    with pytest.raises(SearchEngineError, match="other photos"):
        decode_once(photo_folder, tmp_path / "cache", size=32)


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchEngineError, match="one folder a class"):
        find_labelled(tmp_path / "nothing")


# --- training


def lessons(count: int, side: int, *, classes: int = 4, parts: tuple[int, ...] = (16, 8)) -> Lessons:
    answers = np.random.default_rng(count).random((count, sum(parts))).astype(np.float16)
    labels = np.arange(count) % classes if classes else np.full(count, -1)
    return Lessons(pictures(count, side), answers, parts, labels)


@pytest.mark.slow
def test_training_stops_resumes_and_learns(tmp_path: Path) -> None:
    from searchengine.learning.distillation import CHECKPOINT, Recipe, new_distiller, train
    from searchengine.learning.distiller import load_checkpoint

    kinds = [lessons(64, 32), lessons(24, 48, classes=0)]
    photos = Photos(kinds[0].pixels, kinds[0].labels, ("a", "b", "c", "d"))
    half = Recipe(epochs=2, batch=16, shape=SMALL, sizes=GrowingSize(((0.5, 48), (1.0, 64))))
    train(kinds, photos, half, tmp_path)
    whole = dataclasses.replace(half, epochs=4)
    trained, _ = train(kinds, photos, whole, tmp_path)

    copy = new_distiller(whole, teacher_dimension=24, classes=4)
    done = load_checkpoint(tmp_path / CHECKPOINT, copy)
    assert (done.images, done.steps) == (256, 16)
    for mine, theirs in zip(copy.variables, trained.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
    assert not list(tmp_path.glob("*.part"))

    other = new_distiller(dataclasses.replace(half, shape=compact.CompactShape()), teacher_dimension=24, classes=4)
    with pytest.raises(SearchEngineError, match="another architecture"):
        load_checkpoint(tmp_path / CHECKPOINT, other)


@pytest.mark.slow
def test_a_student_begun_with_a_packaged_model_computes_what_that_does(tmp_path: Path) -> None:
    from searchengine.learning.packaging import write_package
    from searchengine.learning.warm_start import start_from

    packaged = compact.build_compact(64, SMALL, folded=True, whitened=True)
    rng = np.random.default_rng(3)
    for layer in packaged.layers:
        if layer.name.endswith("_conv"):
            layer.bias.assign(rng.normal(0, 0.3, layer.bias.shape))
    write_package(compact.named_weights(packaged), SMALL, tmp_path, size=64, summary={})
    student = compact.build_compact(None, SMALL)
    photos = Photos(pictures(256, 64), np.zeros(256, np.int64), ("a",))
    start_from(student, tmp_path, photos, size=64)

    folded = compact.load_compact(tmp_path, size=64)
    several = pictures(32, 64)
    wanted = np.asarray(type(folded)(folded.input, folded.get_layer("feature").output)(several))
    np.testing.assert_allclose(np.asarray(student(several)), wanted, atol=1e-3 * np.abs(wanted).max())
    trained = np.asarray(student(photos.pixels[:128], training=True))  # by the statistics of the batch instead
    assert (cosines(trained, np.asarray(student(photos.pixels[:128]))) > 0.98).all()


@pytest.mark.slow
def test_a_student_with_a_head_begins_with_all_that_a_model_without_one_knew(tmp_path: Path) -> None:
    from searchengine.learning.packaging import write_package
    from searchengine.learning.warm_start import start_from

    packaged = compact.build_compact(64, HEADLESS, folded=True, whitened=True)
    write_package(compact.named_weights(packaged), HEADLESS, tmp_path, size=64, summary={})
    photos = Photos(pictures(256, 64), np.zeros(256, np.int64), ("a",))
    students = [compact.build_compact(None, shape) for shape in (HEADLESS, SMALL)]
    for student in students:
        start_from(student, tmp_path, photos, size=64)
    wanted, found = (np.asarray(student(pictures(8, 64))) for student in students)
    np.testing.assert_allclose(found[:, :16], wanted, rtol=1e-3, atol=1e-6)
    assert (found[:, 16:] > 0).any()
    with pytest.raises(SearchEngineError, match="do not fit"):
        start_from(compact.build_compact(None, compact.CompactShape(head=0)), tmp_path, photos, size=64)


def test_each_kind_of_lessons_has_its_share_and_all_its_views_are_drawn_once_an_epoch() -> None:
    batches = Batches([lessons(10, 48), lessons(6, 64, classes=0)], Augmentation(), 7, seed=1)
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


# --- the teacher


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    """A classifier of 10 classes for one picture of 32 x 32: a convolution, the mean over positions, a dense layer."""
    import openvino as ov
    import openvino.opset13 as ops

    rng = np.random.default_rng(0)
    picture = ops.parameter([1, 32, 32, 3], np.uint8)
    planes = ops.transpose(ops.convert(picture, "f32"), np.array([0, 3, 1, 2]))
    kernel = rng.normal(0, 0.01, (6, 3, 3, 3)).astype(np.float32)
    seen = ops.relu(ops.convolution(planes, kernel, [2, 2], [1, 1], [1, 1], [1, 1]))
    mean = ops.avg_pool(seen, [1, 1], [0, 0], [0, 0], [16, 16], False)
    flat = ops.reshape(mean, np.array([1, 6]), False)
    classes = ops.matmul(flat, rng.normal(size=(6, 10)).astype(np.float32), False, False)
    file = tmp_path / "teacher.xml"
    ov.save_model(ov.Model([ops.softmax(classes, 1)], [picture]), file, compress_to_fp16=False)
    return file


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


# --- packaging


@pytest.mark.slow
def test_packaging_writes_what_loading_reads(tmp_path: Path) -> None:
    from searchengine.learning.packaging import write_package

    weights = compact.named_weights(compact.build_compact(64, SMALL, folded=True, whitened=True))
    write_package(weights, SMALL, tmp_path, size=64, summary={"images": 0})
    assert compact.graph_file(tmp_path).exists()
    loaded = compact.named_weights(compact.load_compact(tmp_path))
    for name, value in weights.items():
        np.testing.assert_allclose(loaded[name], value, atol=1e-3)


def test_whitening_in_full_makes_classes_vary_evenly() -> None:
    from searchengine.learning.packaging import whitening

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(20), 50)
    within = rng.normal(size=(1000, 6)) * [1, 2, 3, 1, 1, 1]
    features = (within + rng.normal(size=(20, 6))[labels] * 9 + 5).astype(np.float32)
    whitened = features @ whitening(features, labels, 1.0, shrinkage=0.0)
    covariances = [np.cov(whitened[labels == label], rowvar=False, bias=True) for label in range(20)]
    average = np.mean(covariances, axis=0)
    np.testing.assert_allclose(average, np.eye(6) * average[0, 0], atol=1e-3)
    np.testing.assert_allclose(whitening(features, labels, 0.0), np.eye(6), atol=1e-6)


def test_the_axes_that_are_kept_are_those_of_largest_variance() -> None:
    from searchengine.learning.packaging import principal_axes

    rng = np.random.default_rng(0)
    turned = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    features = (rng.normal(size=(4000, 5)) * [1, 9, 2, 5, 3] @ turned.T + 7).astype(np.float32)
    axes = principal_axes(features, 2)
    np.testing.assert_allclose(np.abs(axes.T @ turned[:, [1, 3]]), np.eye(2), atol=0.05)
    np.testing.assert_allclose(axes.T @ axes, np.eye(2), atol=1e-6)


@pytest.mark.slow
def test_batch_normalisation_is_measured_on_pictures_as_they_are_drawn() -> None:
    from searchengine.learning.packaging import recalibrated

    student = compact.build_compact(None, SMALL)
    before, fresh = compact.named_weights(student), np.asarray(student(pictures(128, 64)))
    found = recalibrated(student, pictures(128, 64), size=64, images=128)
    compact.set_named_weights(student, found)
    by_statistics, by_batch = (np.asarray(student(pictures(128, 64), training=t)) for t in (False, True))
    assert cosines(by_statistics, by_batch).mean() > 0.99 > cosines(fresh, by_batch).mean()
    assert {name for name in before if (before[name] != found[name]).any()} == {n for n in before if "/moving_" in n}


def test_classes_of_one_photo_each_tell_nothing_about_whitening() -> None:
    from searchengine.learning.packaging import whitening

    features = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    with pytest.raises(SearchEngineError, match="no class has two photos"):
        whitening(features, np.arange(6), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("given", [True, False])
def test_the_origin_is_the_mean_of_the_photos_given_for_it(given: bool) -> None:
    from searchengine.learning.packaging import with_whitening

    photos = Photos(pictures(40, 64), np.arange(40) % 4, tuple("abcd"))
    centre = pictures(9, 64, seed=5)
    weights = compact.named_weights(compact.build_compact(64, SMALL, folded=True))
    weights = with_whitening(weights, photos, SMALL, power=0.5, centre=centre if given else None)
    model = compact.build_compact(64, SMALL, folded=True, whitened=True)
    compact.set_named_weights(model, weights)
    here, there = (np.asarray(model(several)).mean(axis=0) for several in (centre, photos.pixels))
    scale = np.abs(np.asarray(model(photos.pixels))).max()
    np.testing.assert_allclose(here if given else there, 0, atol=1e-4 * scale)
    assert np.abs(there if given else here).max() > 1e-2 * scale


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--sharp", "nothing"], "no images in nothing"), (["--size", "100"], "invalid choice: 100")],
)
def test_what_the_export_cannot_use_is_told_before_the_training(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    from searchengine.learning.distillation import main

    work = tmp_path / "work"
    given = [
        "--data",
        str(photo_folder),
        "--teacher",
        "none.tflite",
        "--out",
        str(work),
        "--export",
        str(tmp_path / "x"),
    ]
    try:
        status = main([*given, *flags])
    except SystemExit as stop:  # argparse
        status = int(stop.code or 0)
    assert status != 0
    assert said in capsys.readouterr().err
    assert not work.exists()
