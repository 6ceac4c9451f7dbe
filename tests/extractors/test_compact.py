"""The model that ships: the same on both runtimes, checked, and quick to its first feature."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import compact, extractor_from_spec, load_extractor, make_spec, shipped
from searchengine.extractors.compact import MODEL_FOLDER


def pictures(n: int) -> NDArray[np.uint8]:
    """(n, 300, 400, 3) uint8: smooth colours, each its own."""
    coarse = np.random.default_rng(3).integers(0, 256, (n, 3, 4, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((400, 300))) for one in coarse])


def test_ready_without_a_download(cache_dir: Path) -> None:
    extractor = load_extractor("compact")
    card = compact.read_card()
    assert extractor.spec == make_spec("compact")
    assert extractor.spec.title == "compact model, L2-normalised"
    assert not extractor.spec.full_decode
    found = extractor.embed(pictures(20))
    assert found.shape == (20, card["dimension"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(extractor.embed(pictures(20)[:1]), found[:1], atol=1e-5)
    assert not cache_dir.exists()


def test_normalisation_is_part_of_its_name() -> None:
    raw = load_extractor("compact", normalize="none")
    assert raw.spec.fingerprint != make_spec("compact").fingerprint
    assert raw.spec.title == "compact model, not normalised"
    found = raw.embed(pictures(2))
    expected = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(load_extractor("compact").embed(pictures(2)), expected, atol=1e-6)


def test_jpegs_are_decoded_no_smaller_than_one_and_a_half_times_the_input() -> None:
    extractor = load_extractor("compact")
    side = extractor.spec.input_size[0]
    stream = io.BytesIO()
    Image.fromarray(pictures(1)[0]).resize((side * 8, side * 6)).save(stream, "JPEG")
    decoded, pixels = extractor.preprocess(stream.getvalue())
    assert (decoded.width, decoded.height) == (side * 8, side * 6)
    assert decoded.pixels.shape[:2] == (side * 6 // 4, side * 8 // 4)
    assert pixels.shape == (side, side, 3)


@pytest.mark.slow
def test_keras_agrees() -> None:
    openvino = load_extractor("compact", runtime="openvino", precision="float32").embed(pictures(5))
    keras = load_extractor("compact", runtime="keras", precision="float32").embed(pictures(5))
    assert np.linalg.norm(keras - openvino, axis=1).max() <= 1e-4
    rounded = load_extractor("compact", runtime="keras", precision="bfloat16").embed(pictures(5))
    assert np.sum(rounded * openvino, axis=1).min() >= 0.999


def test_an_index_of_another_version() -> None:
    spec = replace(make_spec("compact"), weights="compact:0123456789abcdef")
    with pytest.raises(ExtractorError, match=r"another version, .* --index-dir INDEX --rebuild\.$"):
        extractor_from_spec(spec)


@pytest.mark.parametrize("name", ["compact.xml", "compact.bin", "compact.json"])
def test_damaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "compact_model"
    shutil.copytree(MODEL_FOLDER, folder)
    monkeypatch.setattr(compact.read_card, "__defaults__", (folder,))
    monkeypatch.setattr(compact.graph_file, "__defaults__", (folder,))
    spec = shipped.shipped_spec()
    with (folder / name).open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ExtractorError, match="install it again"):
        extractor_from_spec(spec)
    (folder / name).unlink()
    with pytest.raises(WeightsNotFoundError, match="install it again"):
        extractor_from_spec(spec)
