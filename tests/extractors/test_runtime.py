"""The OpenVINO runtime, tested with a model whose features are the mean of each colour."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.errors import DamagedImageError, ExtractorError, ImageError, NotAnImageError, QueryError
from searchengine.extractors import (
    Extractor,
    ExtractorRecipe,
    cache,
    frameworks,
    runtimes,
)
from searchengine.extractors.published import PublishedSource
from searchengine.progress import Say
from tests.extractors.tiny import SIZE, SPEC, put_tiny_model, write_tiny_model


@pytest.fixture
def extractor(cache_dir: Path) -> Extractor:
    put_tiny_model()
    return ExtractorRecipe(SPEC, precision="float32").load()


def noise(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


def means(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = pixels.mean(axis=(1, 2))
    return result


def test_features_of_an_array(extractor: Extractor) -> None:
    pixels = noise(100)
    before = pixels.copy()
    features = extractor.embed(pixels)
    np.testing.assert_allclose(features, means(pixels), rtol=1e-5)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(pixels, before)
    again = extractor.embed(pixels[:1])
    assert not np.shares_memory(features, again)
    np.testing.assert_allclose(again, features[:1], rtol=1e-6)


def test_no_images(extractor: Extractor) -> None:
    assert extractor.embed([]).shape == (0, 3)
    assert extractor.embed(noise(0)).shape == (0, 3)
    assert extractor.embed([]).dtype == np.float32


def test_l2_and_a_row_of_zeros(extractor: Extractor) -> None:
    normalized = ExtractorRecipe(replace(SPEC, normalize="l2"), precision="float32").load()
    pixels = noise(3)
    pixels[1] = 0
    features = normalized.embed(pixels)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 0, 1], atol=1e-6)
    raw = means(pixels)[2]
    np.testing.assert_allclose(features[2], raw / np.linalg.norm(raw), rtol=1e-5)


def test_images_in_every_form(extractor: Extractor, tmp_path: Path) -> None:
    colour = Image.new("RGB", (30, 20), (10, 20, 30))
    stream = io.BytesIO()
    colour.save(stream, "PNG")
    path = tmp_path / "colour.png"
    path.write_bytes(stream.getvalue())
    glass = Image.new("RGBA", (5, 5), (10, 20, 30, 0))
    features = extractor.embed([np.asarray(colour), colour, stream.getvalue(), path, str(path), glass])
    np.testing.assert_allclose(features, [[10, 20, 30]] * 5 + [[255] * 3], atol=1e-4)


def test_an_endless_iterator_is_read_in_batches(extractor: Extractor) -> None:
    taken = 0

    def pictures() -> object:
        nonlocal taken
        for picture in noise(40):
            taken += 1
            yield picture
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        extractor.embed(pictures())  # type: ignore[arg-type]
    assert taken == 40


@pytest.mark.parametrize(
    "images",
    [
        noise(1)[0],
        noise(1).astype(np.float32),
        [noise(1)[0].astype(np.float32)],
        [noise(1)[0, :, :, 0]],
        [np.zeros((0, 8, 3), np.uint8)],
        [None],
        b"bytes of one file",
        "one.jpg",
        Image.new("RGB", (8, 8)),
    ],
)
def test_invalid_pixels(extractor: Extractor, images: object) -> None:
    with pytest.raises(QueryError):
        extractor.embed(images)  # type: ignore[arg-type]


def test_files_that_cannot_be_used(extractor: Extractor, tmp_path: Path) -> None:
    with pytest.raises(NotAnImageError):
        extractor.embed([b"text"])
    with pytest.raises(ImageError, match="cannot be read"):
        extractor.embed([tmp_path / "nowhere.jpg"])
    stream = io.BytesIO()
    Image.fromarray(np.repeat(noise(1)[0], 20, axis=0)).save(stream, "PNG")
    with pytest.raises(DamagedImageError):
        extractor.embed([stream.getvalue()[:200]])


def test_preprocess_gives_what_embed_takes(extractor: Extractor) -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(1)[0]).resize((100, 60)).save(stream, "JPEG")
    decoded = extractor.preprocess(stream.getvalue(), preview=50)
    assert (decoded.width, decoded.height, decoded.pixels.shape) == (100, 60, (SIZE, SIZE, 3))
    assert decoded.preview is not None
    assert decoded.preview.shape == (30, 50, 3)
    np.testing.assert_array_equal(extractor.embed(decoded.pixels[None]), extractor.embed([stream.getvalue()]))


def test_several_threads(extractor: Extractor) -> None:
    def check(seed: int) -> None:
        for n in (1, 3, 40, 2):
            pixels = noise(n, seed)
            np.testing.assert_allclose(extractor.embed(pixels), means(pixels), rtol=1e-5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(check, range(8)))


def test_no_tensorflow_and_no_network_access(extractor: Extractor) -> None:
    code = """
import sys, numpy as np
talk = []
sys.addaudithook(lambda event, arguments: talk.append((event, arguments)) if event.startswith("socket.") else None)
from searchengine.extractors import ExtractorRecipe, load_extractor
assert not {"openvino", "tensorflow", "keras"} & sys.modules.keys()
from tests.extractors.tiny import SPEC
extractor = ExtractorRecipe(SPEC).load()
extractor.embed(np.zeros((1, 8, 8, 3), np.uint8))
print(sorted({"tensorflow", "keras", "torch"} & sys.modules.keys()), talk, sys.modules.get("openvino_telemetry"))
with open("/proc/self/maps") as maps:
    print([line for line in maps if "libtensorflow_framework" in line])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[] [] None\n[]\n", "")


def test_bfloat16_without_support_is_refused(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_has_bfloat16", lambda: False)
    with pytest.raises(ExtractorError, match="natively"):
        ExtractorRecipe(SPEC, precision="bfloat16").load()
    assert ExtractorRecipe(SPEC).load().precision == "float32"
    monkeypatch.setattr(runtimes, "_has_bfloat16", lambda: True)
    assert ExtractorRecipe(SPEC).load().precision == "bfloat16"


def test_a_model_that_was_cleared_is_exported_again(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(task: str, request: dict[str, str], say: Say, *, doing: str) -> None:
        write_tiny_model(Path(request["folder"]))

    monkeypatch.setattr(frameworks, "run_task", export)
    monkeypatch.setattr(PublishedSource, "locate", lambda source, spec, given, say: Path("vgg16.h5"))
    assert cache.clear()
    np.testing.assert_allclose(extractor.embed(noise(2)), means(noise(2)), rtol=1e-5)


def test_a_model_that_cannot_be_read(extractor: Extractor) -> None:
    folder = cache.entry_folder(SPEC)
    (folder / "model.xml").write_text("<net/>")
    cache.write_manifest(folder, SPEC, (3,))
    with pytest.raises(ExtractorError, match=r"OpenVINO cannot load .*model\.xml"):
        extractor.embed(noise(1))


@pytest.mark.parametrize(
    ("visible", "usable", "runtime", "chosen"),
    [
        (False, False, "auto", "openvino"),
        (True, False, "auto", "openvino"),  # there is a driver, but TensorFlow cannot use the GPU
        (True, True, "auto", "keras"),
        (True, True, "openvino", "openvino"),
        (False, False, "keras", "keras"),
    ],
)
def test_which_runtime(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch, visible: bool, usable: bool, runtime: str, chosen: str
) -> None:
    monkeypatch.setattr(runtimes, "gpu_in_sight", lambda: visible)
    monkeypatch.setattr(runtimes, "gpu_found", lambda: usable)
    monkeypatch.setattr(ExtractorRecipe, "_on_keras", lambda *arguments: "keras")
    monkeypatch.setattr(runtimes, "OpenVINOExtractor", lambda *arguments, **options: "openvino")
    loaded: object = ExtractorRecipe(SPEC, runtime=runtime, gpu=True).load()
    assert loaded == chosen
    if runtime == "auto":
        served: object = ExtractorRecipe(SPEC).load()
        assert served == "openvino"


def test_no_gpu_in_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not runtimes.gpu_in_sight()


def test_without_openvino(extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ExtractorError, match="pip install openvino"):
        ExtractorRecipe(SPEC, runtime="openvino", precision="float32").load().embed(noise(1))
