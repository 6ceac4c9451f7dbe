"""A model of one's own, in a ``.keras`` file: what it is, and loading it without running what it may carry.

What is to be known of it before it runs, its input size and layers, takes a process with TensorFlow and some seconds;
it is kept in ``<cache>/own-models/<sha256>.json``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import building, cache
from searchengine.extractors.asking import Say, ask, serve
from searchengine.extractors.backbones import LayerInfo
from searchengine.extractors.building import Built
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.spec import SEVERAL, ExtractorSpec
from searchengine.files import replace_text

if TYPE_CHECKING:
    import keras

_ZIP_SIGNATURE = b"PK"
_COMMAND = ("-m", "searchengine.extractors.own")


@dataclass(frozen=True, slots=True)
class OwnModel:
    """What is known of a file. ``input_size`` is None where the model takes pictures of any size.

    ``output`` is the whole network's, None where it has several; ``layers`` are those that can be chosen.
    """

    sha256: str
    input_size: tuple[int, int] | None
    parameters: int
    output: LayerInfo | None
    layers: dict[str, LayerInfo]


def is_model_file(model: str) -> bool:
    """Whether what was given as a model names a file and not a line of the table."""
    return Path(model).suffix.lower() == ".keras"


def identify(file: Path) -> str:
    """Its SHA-256. WeightsNotFoundError if there is no such file, ExtractorError if it is no ``.keras`` file."""
    try:
        with file.open("rb") as stream:
            signature = stream.read(len(_ZIP_SIGNATURE))
    except OSError as error:
        raise WeightsNotFoundError(
            f"The model file {file} cannot be read: {error.strerror}. Check the path given to --model."
        ) from error
    if signature != _ZIP_SIGNATURE:
        raise ExtractorError(
            f"{file} is not a model file as Keras 3 saves it: model.save('mine.keras') writes one. A weights file goes "
            "with --weights and the --model that it belongs to."
        )
    return cache.remembered_hashes(file)["sha256"]


def describe(file: Path) -> OwnModel:
    """What the file holds; some seconds the first time. The errors of ``identify``, ExtractorError as ``load``."""
    sha256 = identify(file)
    note = cache.cache_root() / "own-models" / f"{sha256}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _described(sha256, json.loads(note.read_text(encoding="utf-8")))
    told = ask(_COMMAND, {"file": str(file.absolute())}, lambda text: None, doing=f"Looking into {file}")
    with contextlib.suppress(OSError):
        replace_text(note, json.dumps(told))
    return _described(sha256, told)


def known(sha256: str) -> OwnModel | None:
    """As ``describe``, of a file that was seen before and may be gone."""
    note = cache.cache_root() / "own-models" / f"{sha256}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _described(sha256, json.loads(note.read_text(encoding="utf-8")))
    return None


def _described(sha256: str, told: Mapping[str, Any]) -> OwnModel:
    layers = [LayerInfo(one["name"], one["kind"], tuple(one["shape"])) for one in told["layers"]]
    output, size = told["output"], told["input_size"]
    return OwnModel(
        sha256,
        None if size is None else (int(size[0]), int(size[1])),
        int(told["parameters"]),
        None if output is None else LayerInfo(output["name"], output["kind"], tuple(output["shape"])),
        {layer.name: layer for layer in layers},
    )


def build(spec: ExtractorSpec, file: Path) -> Built:
    """The model of a spec, its weights loaded, computing in what it was saved to compute in. Errors as ``load``."""
    return building.truncate(load(file), spec, spec.preprocessing or "none", f"the model {file.name}")


def load(file: Path) -> keras.Model:
    """The network in a file; nothing that it carries is run.

    ExtractorError where it needs code that is not in the file, and for a network that takes no RGB pictures.
    """
    keras = import_keras()
    try:
        network = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # of many kinds, from many depths
        if "Lambda" in str(error) or "lambda" in str(error):
            raise ExtractorError(
                f"{file} holds a Lambda layer: a program, which would be run unseen. Save the model without it; most "
                "are a layer that exists (Rescaling, Normalization, UnitNormalization) or a keras.ops call."
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExtractorError(
            f"{file} cannot be loaded as a Keras model of layers that Keras itself has: {reason}"
        ) from error
    inputs = getattr(network, "inputs", None)
    if not inputs or not getattr(network, "outputs", None):
        raise ExtractorError(f"{file} is not a model with fixed inputs: save a functional or Sequential one.")
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3:
        shapes = ", ".join(str(tuple(one.shape)) for one in inputs)
        raise ExtractorError(f"{file} takes {shapes}; wanted is one batch of RGB pictures, (n, height, width, 3).")
    return network


def _look_into(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    from searchengine.extractors.tabulating import layers_of

    network = load(Path(request["file"]))
    layers = [layer for layer in layers_of(network) if SEVERAL not in layer.name]
    height, width = network.inputs[0].shape[1:3]
    output = network.outputs[0] if len(network.outputs) == 1 else None
    return {
        "input_size": None if height is None or width is None else [height, width],
        "parameters": network.count_params(),
        "output": None if output is None else asdict(LayerInfo("", "output", tuple(output.shape[1:]))),
        "layers": [asdict(layer) for layer in layers],
    }


if __name__ == "__main__":
    sys.exit(serve(_look_into))
