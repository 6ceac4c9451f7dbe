"""A model of one's own: a ``.keras`` file, its layers, its pooling; on both runtimes equal to plain Keras."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, UnknownNameError, WeightsNotFoundError
from searchengine.extractors import (
    ExtractorSpec,
    extractor_from_spec,
    feature_size,
    load_extractor,
    make_spec,
    own,
    preparing,
)
from searchengine.extractors.backbones import LayerInfo
from searchengine.extractors.frameworks import import_keras
from tests.extractors.networks_by_keras import noise, relative_error

# Keras 3.15 saves by an array protocol that NumPy 2 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (16, 24)


@dataclass(frozen=True)
class Own:
    """A network with another one in it: blocks (a Sequential) of 4 x 6 x 8, its mean, and 5 numbers; and its file."""

    file: Path
    network: Any

    def plain(self, layer: str, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        keras = import_keras()
        cut = keras.Model(self.network.inputs[0], keras.Operation.output.fget(self.network.get_layer(layer)))
        return np.asarray(cut(pixels.astype(np.float32)))


def network(size: tuple[int | None, int | None] = SIZE) -> Any:
    keras = import_keras()
    layers = keras.layers
    keras.utils.set_random_seed(3)
    pixels = keras.Input((*size, 3))
    inner = keras.Sequential(
        [
            keras.Input((*size, 3)),
            layers.Conv2D(4, 3, 2, "same", activation="relu"),
            layers.Conv2D(8, 3, 2, "same", activation="relu"),
        ],
        name="blocks",
    )
    mean = layers.GlobalAveragePooling2D(name="mean")(inner(layers.Rescaling(1 / 255, name="scale")(pixels)))
    return keras.Model(pixels, layers.Dense(5, name="code")(layers.Dropout(0.5, name="drop")(mean)))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Own:
    model = network()
    file = tmp_path_factory.mktemp("own") / "mine.keras"
    model.save(file)
    return Own(file, model)


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked into within this process: a process of its own takes seconds."""
    monkeypatch.setattr(own, "ask", lambda command, request, say, doing: own._look_into(request, say))


@pytest.mark.slow
def test_end_to_end(mine: Own, cache_dir: Path) -> None:
    """Two layers, one of them pooled, through the processes that look into and export it; then without the file."""
    extractor = load_extractor(
        mine.file,
        layer=["blocks", "code"],
        pooling="gem",
        normalize="none",
        precision="float32",
        runtime="openvino",
        progress=lambda text: None,
    )
    spec = extractor.spec
    assert (spec.model, spec.layer, spec.input_size, spec.preprocessing) == ("own", "blocks+code", SIZE, "none")
    assert extractor.dimension == feature_size(spec) == 8 + 5
    pixels = noise(SIZE, 5)
    powers = np.maximum(mine.plain("blocks", pixels).astype(np.float64), 1e-6) ** 3
    expected = np.concatenate([powers.mean(axis=(1, 2)) ** (1 / 3), mine.plain("code", pixels)], axis=1)
    raw = extractor.embed(pixels)
    assert relative_error(raw, expected.astype(np.float32)) <= 1e-4

    unit = extractor_from_spec(replace(spec, normalize="l2"), runtime="openvino", precision="float32", export=False)
    parts = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (expected[:, :8], expected[:, 8:])]
    assert relative_error(unit.embed(pixels), np.concatenate(parts, axis=1).astype(np.float32) / np.sqrt(2)) <= 1e-4

    keras = extractor_from_spec(spec, weights_file=mine.file, runtime="keras")
    assert relative_error(keras.embed(pixels), raw) <= 1e-4
    with pytest.raises(ExtractorError, match="as it was saved"):
        extractor_from_spec(spec, weights_file=mine.file, runtime="keras", precision="bfloat16")


@pytest.mark.slow
def test_what_is_found_in_it(mine: Own, described: None, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = own.describe(mine.file)
    assert found.input_size == SIZE
    assert found.parameters == mine.network.count_params()
    assert found.output == LayerInfo("", "output", (5,))
    assert list(found.layers) == ["blocks", "mean", "drop", "code"]
    assert found.layers["blocks"] == LayerInfo("blocks", "Sequential", (4, 6, 8))

    monkeypatch.setattr(own, "ask", None)  # it is remembered
    assert own.describe(mine.file) == own.known(found.sha256) == found
    (note,) = (cache_dir / "own-models").iterdir()
    note.write_text("{}")
    assert own.known(found.sha256) is None


@pytest.mark.slow
def test_specs_of_it(mine: Own, described: None, tmp_path: Path) -> None:
    spec = make_spec(mine.file)
    assert spec.layer is None
    assert spec.title == f"own model, file {spec.weights[7:15]}, L2-normalised"
    assert ExtractorSpec.from_json(spec.to_json()) == spec
    copy = tmp_path / "other name.KERAS"
    copy.write_bytes(mine.file.read_bytes())
    assert make_spec(copy) == spec

    tf = make_spec(mine.file, preprocessing="tf")
    assert tf.fingerprint != spec.fingerprint
    assert "tf preprocessing" in tf.title
    assert feature_size(make_spec(mine.file, layer="blocks")) == 4 * 6 * 8
    assert feature_size(make_spec(mine.file, layer="blocks", pooling="max")) == 8

    with pytest.raises(UnknownNameError, match=r"no layer of mine.keras 'block'. Choose one of: blocks"):
        make_spec(mine.file, layer="block")
    with pytest.raises(UnknownNameError, match=r"no preprocessing 'tff'. Choose one of: tf"):
        make_spec(mine.file, preprocessing="tff")
    with pytest.raises(ExtractorError, match="nothing to pool: the output: no places"):
        make_spec(mine.file, pooling="avg")
    with pytest.raises(ExtractorError, match="its own weights"):
        make_spec(mine.file, weights="any.h5")
    with pytest.raises(ExtractorError, match="16 x 24 pixels only"):
        make_spec(mine.file, input_size=32)


@pytest.mark.slow
def test_preprocessing(mine: Own, described: None) -> None:
    spec = make_spec(mine.file, preprocessing="unit", normalize="none")
    extractor = extractor_from_spec(spec, weights_file=mine.file, runtime="keras")
    pixels = noise(SIZE)
    assert relative_error(extractor.embed(pixels), np.asarray(mine.network(pixels / np.float32(255)))) <= 1e-4


@pytest.mark.slow
def test_any_size(described: None, tmp_path: Path) -> None:
    network((None, None)).save(tmp_path / "any.keras")
    with pytest.raises(ExtractorError, match="--input-size"):
        make_spec(tmp_path / "any.keras")
    spec = make_spec(tmp_path / "any.keras", layer="mean", input_size=40)
    assert spec.input_size == (40, 40)
    extractor = extractor_from_spec(spec, weights_file=tmp_path / "any.keras", runtime="keras")
    assert extractor.embed(noise((40, 40))).shape == (2, 8)


@pytest.mark.slow
def test_what_is_refused(mine: Own, described: None, tmp_path: Path) -> None:
    keras = import_keras()
    layers = keras.layers

    def saved(model: Any) -> Path:
        model.save(tmp_path / "it.keras")
        return tmp_path / "it.keras"

    program = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(lambda x: x), layers.Flatten()])
    with pytest.raises(ExtractorError, match="holds a Lambda layer: a program"):
        make_spec(saved(program))
    with pytest.raises(ExtractorError, match="wanted is one batch of RGB pictures"):
        make_spec(saved(keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten()])))
    two = keras.Input((8, 8, 3))
    with pytest.raises(ExtractorError, match=r"several outputs: choose a layer with --layer. It has: one, two"):
        make_spec(saved(keras.Model(two, [layers.Flatten(name="one")(two), layers.Flatten(name="two")(two)])))

    @keras.saving.register_keras_serializable("test")
    class Homemade(layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x

    homemade = saved(keras.Sequential([keras.Input((8, 8, 3)), Homemade(), layers.Flatten()]))
    keras.saving.get_custom_objects().clear()
    with pytest.raises(ExtractorError, match="layers that Keras itself has"):
        make_spec(homemade)

    whole = mine.file.read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExtractorError, match="cannot be loaded"):
        make_spec(tmp_path / "half.keras")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="cannot be read: No such file"):
        make_spec(tmp_path / "gone.keras")
    (tmp_path / "weights.keras").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ExtractorError, match=r"model\.save\('mine\.keras'\) writes one"):
        make_spec(tmp_path / "weights.keras")


def test_gone_since(tmp_path: Path) -> None:
    spec = ExtractorSpec("own", None, "none", "l2", f"sha256:{'0' * 64}", SIZE, True, "none")
    with pytest.raises(WeightsNotFoundError, match="--model"):
        preparing.prepare(spec)
    other = tmp_path / "other.keras"
    other.write_bytes(b"PK")
    with pytest.raises(WeightsNotFoundError, match="other weights than those asked for"):
        preparing.prepare(spec, weights_file=other)
    assert json.loads(spec.to_json())["preprocessing"] == "none"
    assert feature_size(spec) is None
