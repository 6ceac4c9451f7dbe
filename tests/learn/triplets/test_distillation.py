"""How the compact model is taught: losses, data, and a training that can be stopped."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.errors import SearchEngineError
from searchengine.extractors import compact
from searchengine.learning.lessons import Batches
from searchengine.learning.photos import Augmentation, Photos, decode_once, find_labelled, squashed
from searchengine.learning.schedule import GrowingSize, OneCycle
from tests.learn.triplets import tiny
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
    with pytest.raises(ValueError, match="sizes must be multiples of 16"):
        GrowingSize.parse(text)


def test_augmentation_keeps_shape_and_repeats_by_seed() -> None:
    several = pictures(4, 32)
    first = Augmentation().batch(several, 48, np.random.default_rng(5))
    assert first.shape == (4, 48, 48, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, Augmentation().batch(several, 48, np.random.default_rng(5)))
    assert (first != Augmentation().batch(several, 48, np.random.default_rng(6))).any()


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


@pytest.mark.slow
def test_training_stops_resumes_and_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from searchengine.learning import distillation
    from searchengine.learning.distillation import CHECKPOINT, Recipe, new_distiller, train
    from searchengine.learning.distiller import load_checkpoint

    sizes: list[int] = []  # of the pictures of each step

    def watched(*args: Any, **options: Any) -> Any:
        made = new_distiller(*args, **options)
        step = made.train_on_batch

        def train_on_batch(pictures: Any, *args: Any, **options: Any) -> Any:
            sizes.append(pictures.shape[1])
            return step(pictures, *args, **options)

        made.train_on_batch = train_on_batch
        return made

    monkeypatch.setattr(distillation, "new_distiller", watched)
    kinds = [tiny.lessons(64, 32), tiny.lessons(24, 48, classes=0)]
    photos = Photos(kinds[0].pixels, kinds[0].labels, ("a", "b", "c", "d"))
    half = Recipe(epochs=2, batch=16, peak=0.01, shape=SMALL, sizes=GrowingSize(((0.5, 48), (1.0, 64))))
    train(kinds, photos, half, tmp_path)
    assert len(sizes) == 8
    assert "resumed" not in capsys.readouterr().err
    whole = dataclasses.replace(half, epochs=4)
    trained, _ = train(kinds, photos, whole, tmp_path)
    assert "resumed at 128 images" in capsys.readouterr().err
    assert sizes[8:] == [64] * 8  # the second half alone

    copy = new_distiller(whole, teacher_dimension=24, classes=4)
    done = load_checkpoint(tmp_path / CHECKPOINT, copy)
    assert (done.images, done.steps) == (256, 16)
    for mine, theirs in zip(copy.variables, trained.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
    assert not list(tmp_path.glob("*.part"))

    fresh = new_distiller(whole, teacher_dimension=24, classes=4)
    several, wanted = Batches(kinds, whole.augmentation, 88, seed=1).at(0, 64)
    before, after = (float(one.compute_loss(several, wanted, one(several, training=True))) for one in (fresh, trained))
    assert after < before - 0.1

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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sharp", "nothing"], "no images in nothing"),
        (["--more", "a/photos", "--more", "b/photos"], "need different names"),
        (["--size", "100"], "invalid choice: 100"),
        (["--sizes", "50:1"], "sizes must be multiples of 16 from 48"),
        (["--teacher", "none.tflite"], "none.tflite is not a file"),
        (["--export-only"], "holds no checkpoint.npz"),
    ],
)
def test_what_cannot_be_used_is_told_before_the_training(
    photo_folder: Path,
    teacher_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    from searchengine.learning.distillation import main

    work = tmp_path / "work"
    given = [
        "--data",
        str(photo_folder),
        "--teacher",
        str(teacher_file),
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
