"""Custom models: a ``.keras`` file, its layers and pooling give the same features as plain Keras on both runtimes."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, UnknownNameError, WeightsNotFoundError
from searchengine.extractors import (
    ExtractorRecipe,
    ExtractorSpec,
    custom,
    frameworks,
    load_extractor,
    make_spec,
)
from searchengine.extractors.cache import file_hashes
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.loading import source_of
from searchengine.extractors.networks import LayerInfo
from tests.extractors.networks_by_keras import noise, relative_error

# Keras 3.15 saves with an array protocol that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = (16, 24)


@dataclass(frozen=True)
class Own:
    """A network and its file: blocks (a nested Sequential) of 4 x 6 x 8, their mean, and 5 numbers."""

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


# A Python process started with this in its path records that it started, and each connection that it attempts.
_WATCH = """
import os, sys
def note(text):
    with open(os.environ["CONNECTIONS"], "a") as log:
        log.write(text + "\\n")
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        note(f"{event} {arguments[:2]}")
note("started")
sys.addaudithook(watch)
"""


@pytest.fixture
def connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Record the connections of subprocesses, in a working folder that contains a trap: a file named like a library."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(_WATCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"), prepend=os.pathsep)
    monkeypatch.setenv("CONNECTIONS", str(tmp_path / "connections"))
    (tmp_path / "working").mkdir()
    (tmp_path / "working" / "h5py.py").write_text("raise SystemExit('it ran')")
    monkeypatch.chdir(tmp_path / "working")
    return tmp_path / "connections"


@pytest.mark.slow
def test_end_to_end(mine: Own, connections: Path, cache_dir: Path) -> None:
    """Two layers, one of them pooled, described and exported by subprocesses; then used without the file.

    The subprocesses connect to nothing, and import nothing from the working folder.
    """
    extractor = load_extractor(
        mine.file,
        layer=["blocks", "code"],
        pooling="gem",
        normalize="none",
        precision="float32",
        runtime="openvino",
        progress=lambda text: None,
    )
    assert connections.read_text().split("\n") == ["started", "started", ""]
    spec = extractor.spec
    assert (spec.model, spec.layer, spec.input_size, spec.preprocessing) == ("own", "blocks+code", SIZE, "none")
    assert extractor.dimension == 8 + 5
    pixels = noise(SIZE, 5)
    powers = np.maximum(mine.plain("blocks", pixels).astype(np.float64), 1e-6) ** 3
    expected = np.concatenate([powers.mean(axis=(1, 2)) ** (1 / 3), mine.plain("code", pixels)], axis=1)
    raw = extractor.embed(pixels)
    assert relative_error(raw, expected.astype(np.float32)) <= 1e-4

    unit = ExtractorRecipe(replace(spec, normalize="l2"), runtime="openvino", precision="float32").load()
    parts = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (expected[:, :8], expected[:, 8:])]
    assert relative_error(unit.embed(pixels), np.concatenate(parts, axis=1).astype(np.float32) / np.sqrt(2)) <= 1e-4

    keras = ExtractorRecipe(spec, weights_file=mine.file, runtime="keras").load()
    assert relative_error(keras.embed(pixels), raw) <= 1e-4
    with pytest.raises(ExtractorError, match="as it was saved"):
        ExtractorRecipe(spec, weights_file=mine.file, runtime="keras", precision="bfloat16").load()


@pytest.mark.slow
def test_description(mine: Own, described_in_process: None, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("own")
    network_info = source.describe(mine.file)
    assert network_info.input_size == SIZE
    assert network_info.parameters == mine.network.count_params()
    assert network_info.output == LayerInfo("", "output", (5,))
    assert list(network_info.layers) == ["blocks", "mean", "drop", "code"]
    assert network_info.layers["blocks"] == LayerInfo("blocks", "Sequential", (4, 6, 8))

    monkeypatch.setattr(frameworks, "run_task", None)  # the description is cached
    key = f"custom-{file_hashes(mine.file)['sha256']}"
    assert source.describe(mine.file) == network_info
    note = cache_dir / "layers" / f"{key}.json"
    text = note.read_text()
    note.write_text("{}")
    with pytest.raises(TypeError):  # the subprocess is started again
        source.describe(mine.file)
    note.write_text(text)


@pytest.mark.slow
def test_specs(mine: Own, described_in_process: None, tmp_path: Path) -> None:
    spec = make_spec(mine.file)
    assert spec.layer is None
    assert spec.title == f"custom model, file {spec.weights[7:15]}, L2-normalised"
    assert ExtractorSpec.from_json(spec.to_json()) == spec
    copy = tmp_path / "other name.KERAS"
    copy.write_bytes(mine.file.read_bytes())
    assert make_spec(copy) == spec

    tf = make_spec(mine.file, preprocessing="tf")
    assert tf.fingerprint != spec.fingerprint
    assert "tf preprocessing" in tf.title

    with pytest.raises(UnknownNameError, match=r"no layer of mine.keras 'block'. Choose one of: blocks"):
        make_spec(mine.file, layer="block")
    with pytest.raises(UnknownNameError, match=r"no preprocessing 'tff'. Choose one of: tf"):
        make_spec(mine.file, preprocessing="tff")
    with pytest.raises(ExtractorError, match=r"nothing to pool: the output of mine\.keras has no spatial"):
        make_spec(mine.file, pooling="avg")
    with pytest.raises(ExtractorError, match="contains its weights"):
        make_spec(mine.file, weights="any.h5")
    with pytest.raises(ExtractorError, match="only takes pictures of 16 x 24 pixels"):
        make_spec(mine.file, input_size=32)


@pytest.mark.slow
def test_preprocessing(mine: Own, described_in_process: None) -> None:
    spec = make_spec(mine.file, preprocessing="unit", normalize="none")
    extractor = ExtractorRecipe(spec, weights_file=mine.file, runtime="keras").load()
    pixels = noise(SIZE)
    assert relative_error(extractor.embed(pixels), np.asarray(mine.network(pixels / np.float32(255)))) <= 1e-4


@pytest.mark.slow
def test_any_size(described_in_process: None, tmp_path: Path) -> None:
    network((None, None)).save(tmp_path / "any.keras")
    with pytest.raises(ExtractorError, match="--input-size"):
        make_spec(tmp_path / "any.keras")
    spec = make_spec(tmp_path / "any.keras", layer="mean", input_size=40)
    assert spec.input_size == (40, 40)
    extractor = ExtractorRecipe(spec, weights_file=tmp_path / "any.keras", runtime="keras").load()
    assert extractor.embed(noise((40, 40))).shape == (2, 8)


@pytest.mark.slow
def test_what_is_refused(mine: Own, described_in_process: None, tmp_path: Path) -> None:
    keras = import_keras()
    layers = keras.layers

    def saved(model: Any) -> Path:
        model.save(tmp_path / "it.keras")
        return tmp_path / "it.keras"

    program = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(lambda x: x), layers.Flatten()])
    with pytest.raises(ExtractorError, match=r"contains the layer 'lambda[_0-9]*' \(Lambda\): a program"):
        make_spec(saved(program))
    with pytest.raises(ExtractorError, match="must take one batch of RGB pictures"):
        make_spec(saved(keras.Sequential([keras.Input((8, 8, 1)), layers.Flatten()])))
    two = keras.Input((8, 8, 3))
    with pytest.raises(ExtractorError, match=r"several outputs. Choose a layer with --layer: one, two"):
        make_spec(saved(keras.Model(two, [layers.Flatten(name="one")(two), layers.Flatten(name="two")(two)])))

    @keras.saving.register_keras_serializable("test")
    class Homemade(layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x

    homemade = saved(keras.Sequential([keras.Input((8, 8, 3)), Homemade(), layers.Flatten()]))
    keras.saving.get_custom_objects().clear()
    with pytest.raises(ExtractorError, match=r"the layer 'homemade[_0-9]*' \(Homemade\), whose code is neither"):
        make_spec(homemade)

    whole = mine.file.read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExtractorError, match="damaged or cut short"):
        make_spec(tmp_path / "half.keras")


def rewritten(file: Path, target: Path, **changes: Any) -> Path:
    """Copy a ``.keras`` file with other values in its JSON members, given by their names without extension."""
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            data = archive.read(name)
            if name.partition(".")[0] in changes:
                data = json.dumps({**json.loads(data), **changes[name.partition(".")[0]]}).encode()
            copy.writestr(name, data)
    return target


def test_files_of_keras_2_say_how_to_save_them_again(mine: Own, tmp_path: Path) -> None:
    old = rewritten(mine.file, tmp_path / "old.keras", metadata={"keras_version": "2.21.0"})
    with pytest.raises(ExtractorError, match=r"saved by Keras 2 \(2\.21\.0\).*model\.save\('mine\.keras'\)"):
        custom.load(old)
    module = rewritten(mine.file, tmp_path / "tf.keras", config={"module": "tf_keras.src.engine.functional"})
    with pytest.raises(ExtractorError, match="saved by Keras 2"):
        custom.load(module)
    mine.network.save(tmp_path / "whole.h5")
    with pytest.raises(ExtractorError, match=r"HDF5 \(\.h5\).*Keras 2.*model\.save\('mine\.keras'\).*--weights"):
        make_spec(tmp_path / "whole.h5")


_HOSTILE: dict[str, dict[str, Any]] = {
    "a Lambda layer": {
        "module": "keras.layers",
        "class_name": "Lambda",
        "registered_name": None,
        "config": {"name": "trap", "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}},
    },
    "a function of Python": {"module": "builtins", "class_name": "function", "config": "eval"},
    "a function of a module": {"module": "os", "class_name": "function", "config": "system"},
    "a class of a module": {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "MARKER"]}},
    "a name with dots": {"module": "keras", "class_name": "layers.TFSMLayer", "config": {"filepath": "x"}},
    "a pickled module": {
        "module": "keras.layers",
        "class_name": "TorchModuleWrapper",
        "registered_name": None,
        "config": {"name": "trap", "module": "gASVAAAA"},
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", _HOSTILE)
def test_a_hostile_file_runs_nothing(kind: str, mine: Own, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"
    text = json.dumps(_HOSTILE[kind]).replace("MARKER", str(marker))
    with zipfile.ZipFile(mine.file) as archive:
        config = json.loads(archive.read("config.json"))
    for place in (0, 1):  # as a layer of the network, and as what a layer is made with
        layers_ = config["config"]["layers"]
        changed = [*layers_]
        if place == 0:
            changed[1] = {**json.loads(text), "name": "trap", "inbound_nodes": layers_[1]["inbound_nodes"]}
        else:
            changed[1] = {**layers_[1], "config": {**layers_[1]["config"], "scale": json.loads(text)}}
        hostile = rewritten(
            mine.file, tmp_path / f"{place}.keras", config={"config": {**config["config"], "layers": changed}}
        )
        with pytest.raises(ExtractorError):
            custom.load(hostile)
        assert not marker.exists()


@pytest.mark.slow
def test_custom_losses_are_ignored(tmp_path: Path, described_in_process: None) -> None:
    keras = import_keras()

    class Margin(keras.losses.Loss):  # type: ignore[misc, name-defined]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return y_pred - y_true

    trained = network()
    trained.compile(loss=Margin())
    trained.save(tmp_path / "trained.keras")
    assert make_spec(tmp_path / "trained.keras").layer is None


@pytest.mark.slow
def test_hdf5_behind_a_zip_signature_is_not_opened_as_hdf5(mine: Own, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "both.h5", "w", userblock_size=512) as stream:
        stream.attrs["model_config"] = "{}"
    data = bytearray((tmp_path / "both.h5").read_bytes())
    data[:2] = b"PK"
    with zipfile.ZipFile(mine.file) as archive:
        config, metadata = archive.read("config.json"), archive.read("metadata.json")
    (tmp_path / "both.h5").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "both.h5", "a") as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", metadata)
    with pytest.raises(ExtractorError, match=r"cannot be loaded by Keras"):
        custom.load(tmp_path / "both.h5")


@pytest.mark.slow
def test_a_pickle_in_place_of_the_weights_is_not_opened(mine: Own, tmp_path: Path) -> None:
    marker = tmp_path / "it ran"

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    hostile = tmp_path / "hostile.keras"
    with zipfile.ZipFile(mine.file) as archive, zipfile.ZipFile(hostile, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, pickle.dumps(Touch()) if name.endswith(".h5") else archive.read(name))
    with pytest.raises(ExtractorError):
        custom.load(hostile)
    (tmp_path / "pickle.keras").write_bytes(pickle.dumps(Touch()))
    with pytest.raises(ExtractorError, match="not a model file"):
        make_spec(tmp_path / "pickle.keras")
    assert not marker.exists()


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="cannot be read: No such file"):
        make_spec(tmp_path / "gone.keras")
    (tmp_path / "weights.keras").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ExtractorError, match=r"is HDF5 .*model\.save\('mine\.keras'\)"):
        make_spec(tmp_path / "weights.keras")


def test_a_deleted_file(tmp_path: Path) -> None:
    spec = ExtractorSpec("own", None, "none", "l2", f"sha256:{'0' * 64}", SIZE, True, "none")
    with pytest.raises(WeightsNotFoundError, match="--model"):
        ExtractorRecipe(spec).export()
    other = tmp_path / "other.keras"
    other.write_bytes(b"PK")
    with pytest.raises(WeightsNotFoundError, match="holds the wrong weights"):
        ExtractorRecipe(spec, other).export()
    assert json.loads(spec.to_json())["preprocessing"] == "none"
