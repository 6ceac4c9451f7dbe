"""The layers of a model: read from the model once, in a subprocess with TensorFlow, and cached as JSON.

They are in ``<cache>/layers/<key>.json``; the key names the model and, if it matters, the version of Keras.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.errors import ExtractorError
from searchengine.extractors import cache, worker
from searchengine.extractors.building import output_of
from searchengine.extractors.spec import SEVERAL
from searchengine.files import replace_text

if TYPE_CHECKING:
    import keras
    from pydantic import TypeAdapter

_NO_FEATURES = {"Rescaling", "Normalization", "InputLayer"}  # they only prepare pixels


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """A layer whose output can be the feature. ``shape`` is without the batch: (h, w, c), (d,); None where open."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    @property
    def is_spatial(self) -> bool:
        """Whether its output has several places, so that pooling makes a difference."""
        return any(side != 1 for side in self.shape[:-1])

    def numbers(self, pooling: str) -> int | None:
        """Numbers that it adds to a feature; None where its shape is open."""
        counted = self.shape if pooling == "none" else self.shape[-1:]
        return None if None in counted else math.prod(side for side in counted if side is not None)


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    """A network as it is known before it runs.

    ``input_size`` is (height, width) in pixels, or None where the network takes pictures of any size. ``output`` is
    that of the whole network, None where it has several; ``layers`` are those that can be chosen, in its order.
    """

    input_size: tuple[int, int] | None
    parameters: int
    output: LayerInfo | None
    layers: dict[str, LayerInfo]


def describe(key: str, request: Mapping[str, Any], *, title: str) -> NetworkInfo:
    """The cached description under a key; made by the subprocess from ``request`` where there is none yet.

    ``request`` names the model as ``export.describe`` takes it. ExtractorError where the model cannot be built.
    """
    with contextlib.suppress(OSError, ValueError):
        return _adapter().validate_json(_note(key).read_bytes())
    answer = worker.run("describe", request, lambda text: None, doing=f"Listing the layers of {title}")
    with contextlib.suppress(OSError):
        replace_text(_note(key), json.dumps(answer))
    return _adapter().validate_python(answer)


def _note(key: str) -> Path:
    return cache.cache_root() / "layers" / f"{key}.json"


@functools.cache
def _adapter() -> TypeAdapter[NetworkInfo]:
    from pydantic import TypeAdapter

    return TypeAdapter(NetworkInfo)


def describe_network(network: keras.Model) -> dict[str, Any]:
    """A ``NetworkInfo`` as JSON has it; in the subprocess."""
    height, width = network.inputs[0].shape[1:3]
    output = network.outputs[0] if len(network.outputs) == 1 else None
    info = NetworkInfo(
        None if height is None or width is None else (height, width),
        network.count_params(),
        None if output is None else LayerInfo("", "output", tuple(output.shape[1:])),
        {layer.name: layer for layer in layers_of(network) if SEVERAL not in layer.name},
    )
    values: dict[str, Any] = _adapter().dump_python(info, mode="json")
    return values


def layers_of(network: keras.Model) -> list[LayerInfo]:
    """The layers of a Keras model whose output can be a feature, in its order."""
    layers = []
    for layer in network.layers:
        shape = getattr(output_of(layer), "shape", ())
        if len(shape) >= 2 and type(layer).__name__ not in _NO_FEATURES:
            layers.append(LayerInfo(layer.name, type(layer).__name__, tuple(shape[1:])))
    return layers


def check_pooling(pooling: str, layers: Sequence[LayerInfo], title: str) -> None:
    """ExtractorError where there is nothing to pool."""
    if pooling != "none" and not any(layer.is_spatial for layer in layers):
        names = " and ".join(layer.name or "the output" for layer in layers)
        raise ExtractorError(
            f"There is nothing to pool: {names} of {title} gives one vector without places in the picture. Leave out "
            "--pooling, or choose a convolutional layer."
        )
