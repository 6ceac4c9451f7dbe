"""A small backbone in a ``.keras`` file, and pictures whose classes it separates badly, so that learning helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchengine.extractors import ExtractorSpec
from searchengine.extractors.cache import file_hashes
from searchengine.extractors.frameworks import import_keras
from searchengine.progress import Progress

SIZE = 16
CLASSES = ("blue", "green", "red")
EACH = 12


def picture(label: str, number: int) -> NDArray[np.uint8]:
    """Draw a (16, 16, 3) picture: a class has slightly more of one colour, while brightness varies far more."""
    random = np.random.default_rng([CLASSES.index(label), number])
    pixels = np.full((SIZE, SIZE, 3), random.uniform(20, 220)) + random.normal(0, 6, (SIZE, SIZE, 3))
    pixels[..., {"red": 0, "green": 1, "blue": 2}[label]] += 25
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw_photos(folder: Path, each: int = EACH) -> Path:
    """Draw a folder with a subfolder for each class."""
    for label in CLASSES:
        (folder / label).mkdir(parents=True)
        for number in range(each):
            Image.fromarray(picture(label, number)).save(folder / label / f"{number:02d}.png")
    return folder


def save_backbone(file: Path) -> None:
    """Save a network (n, 16, 16, 3) of 0 to 255 -> 8 numbers ("mean") -> 5 classes, by a dense layer to be replaced."""
    keras = import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(7)
    keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 255, name="scale"),
            layers.Conv2D(8, 3, 2, "same", activation="relu", name="first"),
            layers.Conv2D(8, 3, 2, "same", activation="relu", name="second"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(5, activation="softmax", name="classes"),
        ]
    ).save(file)


def spec_of(file: Path, layer: str | None = "mean") -> ExtractorSpec:
    """Return the same spec as ``make_spec``, without the subprocess that inspects the file."""
    return ExtractorSpec(
        "own", layer, "none", "none", f"sha256:{file_hashes(file)['sha256']}", (SIZE, SIZE), True, "none"
    )


class Recorder(Progress):
    """A ``Progress`` that records everything; ``after`` is called with the number of each epoch."""

    def __init__(self, after: Callable[[int], None] = lambda epoch: None) -> None:
        self.sentences: list[str] = []
        self.refused: list[str] = []
        self.epochs: list[int] = []
        self.units: dict[str, list[int]] = {}  # what was counted, and what was left of it
        self._after = after

    def start(self, total: int | None, done: int = 0, *, what: str = "", unit: str = "images") -> None:
        assert total is not None
        self._left = self.units[unit] = [total - done]

    def advance(self, amount: int = 1) -> None:
        self._left[0] -= amount

    def skipped(self, path: str, reason: str) -> None:
        self.refused.append(path)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)
        if epoch := re.match(r"epoch +(\d+): loss", sentence):
            self.epochs.append(int(epoch[1]))
            self._after(int(epoch[1]))
