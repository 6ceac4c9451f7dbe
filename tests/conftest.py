"""What several test folders share."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchengine.web.settings import Settings, variable


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's caches, nor his settings."""
    for field in fields(Settings):
        monkeypatch.delenv(variable(field.name), raising=False)
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


def draw(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """A smooth random picture of (width, height); another seed gives one that looks quite different."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve pictures in two subfolders, of which one file is no image."""
    folder = tmp_path_factory.mktemp("drawings")
    for i in range(12):
        place = folder / ("warm" if i % 2 else "cold")
        place.mkdir(exist_ok=True)
        draw(i).save(place / f"{i:02d}.jpg", quality=90)
    (folder / "warm" / "broken.jpg").write_bytes(b"no image")
    return folder
