"""The map drawn as a picture: images at their places, none covering another."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchengine.analyse.map import on_grid
from searchengine.cli import main
from tests.analyse.filled import fill

pytest.importorskip("scipy")


@pytest.mark.parametrize("kind", ["spread", "crowded", "line", "point", "one"])
def test_no_two_images_share_a_cell(kind: str) -> None:
    random = np.random.default_rng(0)
    places = {
        "spread": random.uniform(-1, 1, (900, 2)),
        "crowded": np.concatenate([random.normal(0, 0.01, (600, 2)), random.normal(5, 1, (50, 2))]),
        "line": np.stack([np.linspace(-3, 3, 200), np.zeros(200)], axis=1),
        "point": np.zeros((70, 2)),
        "one": np.zeros((1, 2)),
    }[kind].astype(np.float32)
    grid = on_grid(places)
    cells = [tuple(cell) for cell in grid.cells.tolist()]
    assert len(set(cells)) == len(places)
    assert all(0 <= column < grid.columns and 0 <= row < grid.rows for column, row in cells)
    assert np.array_equal(on_grid(places).cells, grid.cells)
    if kind == "spread":  # left stays left, and up is up
        assert np.corrcoef(places[:, 0], grid.cells[:, 0])[0, 1] > 0.98
        assert np.corrcoef(places[:, 1], grid.cells[:, 1])[0, 1] < -0.98


def test_every_picture_can_be_seen_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openTSNE")
    random = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    colours = [(40 + 5 * i, 250 - 5 * i, (i * 67) % 200) for i in range(30)]
    for i, colour in enumerate(colours):
        Image.new("RGB", (300, 200) if i % 2 else (200, 300), colour).save(images / f"{i}.png")
    features = random.normal(size=(30, 8)).astype(np.float32)
    index = fill(tmp_path / "index", features, images=images, names=[f"{i}.png" for i in range(30)])
    index.close()
    file = tmp_path / "map.png"
    command = ["map", "--index-dir", str(tmp_path / "index"), "--iterations", "30", "--png", str(file), "--json"]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["png"]["side"] == 120
    with Image.open(file) as picture:
        assert picture.size == (summary["png"]["width"], summary["png"]["height"])
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    for colour in colours:
        there = np.abs(pixels - np.array(colour)).max(axis=-1) <= 2
        assert there.sum() == 120 * 80  # nothing covers it
    assert main([*command[:-2], str(tmp_path / "map.jpg")]) == 1
    assert "must end in .png" in capsys.readouterr().err
