"""A fake extractor whose features can be worked out by hand, and pictures to go with it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchengine.extractors import ExtractorRecipe, ExtractorSpec
from searchengine.images import DecodedImage, decode, resize
from searchengine.progress import Progress, Say

SPEC = ExtractorSpec("fake", None, "none", "none", "none", input_size=(2, 2), full_decode=True)
OTHER_SPEC = replace(SPEC, layer="another")


class FakeExtractor:
    """The feature of an image is its twelve numbers when shrunk to 2 x 2: plain colours give themselves, four times."""

    precision = "float32"
    runtime = "fake"
    device = "none"
    dimension = 12

    def __init__(self, spec: ExtractorSpec = SPEC) -> None:
        self.spec = spec
        self.embedded = 0

    def preprocess(self, data: bytes, max_pixels: int = 10**8, preview: int | None = None) -> DecodedImage:
        return decode(data, size=self.spec.input_size, preview=preview, max_pixels=max_pixels)

    def embed(self, images: Iterable[Any] | NDArray[np.uint8]) -> NDArray[np.float32]:
        images = list(images)
        self.embedded += len(images)
        if len(images) == 0:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.stack([resize(np.asarray(image), (2, 2)) for image in images]).reshape(-1, 12).astype(np.float32)


@dataclass(frozen=True, slots=True)
class FakeRecipe(ExtractorRecipe):
    """Loads a fake extractor: by default one as above."""

    spec: ExtractorSpec = SPEC
    loads: Callable[[], FakeExtractor] = FakeExtractor

    def load(self, say: Say | None = None) -> FakeExtractor:
        return self.loads()


class Sentences(Progress):
    """A progress that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    """A plain picture as the bytes of a file; ``size`` is (width, height)."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def write_pictures(folder: Path, **colours: int) -> None:
    """name=grey level -> folder/name.png; ``__`` in a name stands for a subfolder."""
    for name, level in colours.items():
        file = folder / (name.replace("__", "/") + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture((level, level, level)))
