from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from searchengine.learn.triplets import Recipe, Trained, TrainingOptions, train_metric
from tests.learn.triplets import tiny


@dataclass(frozen=True)
class Setting:
    """Photos and a backbone for short runs."""

    photos: Path
    backbone: Path

    def train(self, out: Path, recorder: tiny.Recorder | None = None, **changes: Any) -> Trained:
        images = changes.pop("photos", self.photos)
        options = {name: changes.pop(name) for name in ("labels", "restart", "exclude") if name in changes}
        recipe = Recipe(**{"dim": 4, "epochs": 8, "batch": 12, "learning_rate": 0.05, "validation": 0.4, **changes})
        wanted = TrainingOptions(recipe, weights_file=self.backbone, runtime="keras", **options)
        return train_metric([images], out, tiny.spec_of(self.backbone), wanted, recorder or tiny.Recorder())


@pytest.fixture(scope="package")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("training")
    tiny.save_backbone(folder / "backbone.keras")
    return Setting(tiny.draw_photos(folder / "photos"), folder / "backbone.keras")
