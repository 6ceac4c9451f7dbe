"""Write the table of backbones from the installed Keras: ``python -m searchengine.extractors.tabulating [NAME ...]``.

Every network of keras.applications is built with and without its head, under the question where its ImageNet weights
are, so that the addresses and hashes are those that Keras itself would fetch. No weights are downloaded, and none are
even made: a stateless scope leaves the variables empty. Without a NAME the whole table is written, in a few minutes.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from searchengine.extractors.backbones import PREPROCESSINGS, TABLE, LayerInfo
from searchengine.extractors.frameworks import import_keras

_WEIGHTS_PATH = Path("weights-that-nobody-reads.h5")
_SIZE_FOR_ANY = (224, 224)  # MobileNetV3 takes any size even with its head; its weights are of this one
_PREPARE_PIXELS = {"Rescaling", "Normalization", "InputLayer"}  # nobody searches by these


def titles() -> list[str]:
    """The networks of keras.applications, as Keras writes their names, those of a family together."""
    keras = import_keras()
    constructors = {name: one for name, one in vars(keras.applications).items() if name[0].isupper() and callable(one)}
    return sorted(constructors, key=lambda name: (constructors[name].__module__, constructors[name].__code__.co_name))


def tabulate(title: str) -> tuple[dict[str, Any], list[LayerInfo]]:
    """The line of one network, and its layers."""
    keras = import_keras()
    constructor = getattr(keras.applications, title)
    full, with_head = _built(constructor, True)
    bare, without_head = _built(constructor, False)
    layers = layers_of(full)
    shared = {layer.name for layer in layers_of(bare)}
    module = constructor.__module__.rpartition(".")[2]
    line = {
        "title": title,
        "module": module,
        "input_size": list(full.input_shape[1:3]),
        "preprocessing": _preprocessing(importlib.import_module(f"keras.applications.{module}").preprocess_input),
        "default_layer": _default_layer(full),
        "parameters": full.count_params(),
        "head": [layer.name for layer in layers if layer.name not in shared],
        "with_head": with_head,
        "without_head": without_head,
    }
    return line, layers


def layers_of(network: Any) -> list[LayerInfo]:
    """The layers of a Keras model whose output can be a feature, in its order."""
    keras = import_keras()
    found = []
    for layer in network.layers:
        # For a model within the model, its place in the outer one: Model.output would be that of its own graph.
        output = keras.Operation.output.fget(layer)
        shape = getattr(output, "shape", ())
        if len(shape) >= 2 and type(layer).__name__ not in _PREPARE_PIXELS:
            found.append(LayerInfo(layer.name, type(layer).__name__, tuple(shape[1:])))
    return found


def _built(constructor: Any, head: bool) -> tuple[Any, dict[str, Any]]:
    keras = import_keras()
    keras.utils.clear_session()
    with _asked_for() as asked, keras.StatelessScope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras, on the size that it assumes
        network = constructor(weights="imagenet", include_top=head)
        if network.input_shape[1] is None:  # without its head it takes any size
            size = constructor(weights=None, include_top=True).input_shape[1:3]
            asked.clear()
            keras.utils.clear_session()
            network = constructor(
                weights="imagenet", include_top=head, input_shape=(*(size if all(size) else _SIZE_FOR_ANY), 3)
            )
    (published,) = asked
    return network, {**published, "megabytes": round(network.count_params() * 4 / 1e6)}


@contextmanager
def _asked_for() -> Iterator[list[dict[str, Any]]]:
    """The files that Keras asks for, in place of fetching them."""
    keras = import_keras()
    asked: list[dict[str, Any]] = []

    def get_file(
        fname: str, origin: str, cache_subdir: str = "models", file_hash: str | None = None, **others: object
    ) -> str:
        if others or cache_subdir != "models":
            raise ValueError(f"{fname} is fetched in a way that is new to this program: {cache_subdir}, {others}")
        asked.append({"url": origin, "file_name": fname, "digest": file_hash})
        return str(_WEIGHTS_PATH)

    files = importlib.import_module("keras.src.utils.file_utils")
    with mock.patch.object(files, "get_file", get_file), mock.patch.object(keras.Model, "load_weights"):
        yield asked


def _preprocessing(function: Any) -> str:
    """Which of PREPROCESSINGS a family's ``preprocess_input`` is."""
    import numpy as np

    from searchengine.extractors.building import preprocessed

    pixels = np.random.default_rng(0).uniform(0, 255, (1, 4, 4, 3)).astype(np.float32)
    wanted = np.asarray(function(pixels.copy()))
    (mode,) = [mode for mode in PREPROCESSINGS if np.allclose(preprocessed(pixels.copy(), mode), wanted, atol=1e-4)]
    return mode


def _default_layer(network: Any) -> str:
    """What stands right before the classification: fc2, or the average over the picture, normalised where it is."""
    kinds = [type(layer).__name__ for layer in network.layers]
    if "GlobalAveragePooling2D" not in kinds:
        return "fc2"
    at = len(kinds) - 1 - kinds[::-1].index("GlobalAveragePooling2D")
    if kinds[at + 1] == "LayerNormalization":
        at += 1
    return str(network.layers[at].name)


def write_layers(name: str, layers: list[LayerInfo]) -> None:
    """The file of one model's layers: name, kind and shape in columns."""
    lines = [f"{layer.name}\t{layer.kind}\t{'x'.join(map(str, layer.shape))}\n" for layer in layers]
    (TABLE / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


def main(names: list[str]) -> int:
    """Write the lines of these models, all without a name."""
    keras = import_keras()
    TABLE.mkdir(exist_ok=True)
    file = TABLE / "models.json"
    known = json.loads(file.read_text(encoding="utf-8"))["models"] if file.exists() else {}
    order = [title.lower() for title in titles()]
    for title in titles():
        name = title.lower()
        if names and name not in names:
            continue
        known[name], layers = tabulate(title)
        write_layers(name, layers)
        print(f"{name}: {len(layers)} layers", file=sys.stderr, flush=True)  # noqa: T201
    models = {name: known[name] for name in order if name in known}
    table = {"written_by": __spec__.name, "keras": keras.__version__, "models": models}
    file.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
