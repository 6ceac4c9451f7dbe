from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.learn.triplets import Recipe, Trained, train_metric
from tests.learn.triplets import tiny
from tests.small_compact import pictures


@dataclass(frozen=True)
class Setting:
    """Photos, a backbone, and how a short run is done on them."""

    photos: Path
    backbone: Path

    def train(self, out: Path, told: tiny.Told | None = None, **changes: Any) -> Trained:
        images = changes.pop("photos", self.photos)
        options = {name: changes.pop(name) for name in ("labels", "restart", "exclude") if name in changes}
        recipe = Recipe(**{"dim": 4, "epochs": 8, "batch": 12, "learning_rate": 0.05, "validation": 0.4, **changes})
        return train_metric(
            [images],
            out,
            tiny.spec_of(self.backbone),
            told or tiny.Told(),
            recipe=recipe,
            weights_file=self.backbone,
            runtime="keras",
            **options,
        )


@pytest.fixture(scope="package")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("training")
    tiny.save_backbone(folder / "backbone.keras")
    return Setting(tiny.draw_photos(folder / "photos"), folder / "backbone.keras")


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
