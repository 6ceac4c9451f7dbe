"""The networks that features are taken from, as a table; ``building.py`` makes a model of a line of it.

The table is data (``table/models.json``, and a file a model with its layers), written from the installed Keras by
``python -m searchengine.extractors.tabulating`` and compared with it by a test: reading it loads no TensorFlow.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("table")
COMPACT = "compact"
OWN = "own"  # stands in a spec for a model file of one's own, which its hash names
POOLINGS = ("none", "avg", "max", "gem")
# How pixels of 0 to 255 become what a network was trained on. The names but "none" and "unit" are those of
# keras.applications: caffe is BGR less the mean of ImageNet, tf is -1 to 1, torch is 0 to 1 less the mean and divided
# by the deviation of ImageNet; unit is 0 to 1, and none is left to the network itself.
PREPROCESSINGS = ("none", "unit", "tf", "torch", "caffe")


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A weights file as its publisher offers it.

    ``file_name`` is the one under which Keras caches it, ``digest`` its MD5 or SHA-256 in hexadecimal, or None where
    the publisher gives none; ``megabytes`` is for messages, computed from the number of parameters.
    """

    url: str
    file_name: str
    digest: str | None
    megabytes: int

    def is_one_of(self, hashes: Mapping[str, str]) -> bool:
        """Whether a file with these hashes ("md5", "sha256") is this very one; never, where no digest is known."""
        return self.digest is not None and self.digest in hashes.values()


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
class Backbone:
    """One network of keras.applications.

    ``module`` is where it lives there. ``head`` names the layers that exist only with the classification head; the
    others can do with the smaller ``without_head`` file. ``preprocessing`` is one of PREPROCESSINGS.
    """

    name: str
    title: str
    module: str
    input_size: tuple[int, int]
    preprocessing: str
    default_layer: str
    parameters: int
    head: frozenset[str]
    with_head: PublishedWeights
    without_head: PublishedWeights

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """All layers that can be chosen, in the order of the network."""
        return _layers(self.name)

    def published_for(self, layers: Iterable[str]) -> list[PublishedWeights]:
        """The files that will do for these layers, the smallest first."""
        return [self.with_head] if self.head.intersection(layers) else [self.without_head, self.with_head]


@functools.cache
def _layers(model: str) -> dict[str, LayerInfo]:
    found = {}
    for line in (TABLE / f"{model}.tsv").read_text(encoding="utf-8").splitlines():
        name, kind, shape = line.split("\t")
        found[name] = LayerInfo(name, kind, tuple(int(side) for side in shape.split("x")))
    return found


def _read_table() -> dict[str, Backbone]:
    lines = json.loads((TABLE / "models.json").read_text(encoding="utf-8"))["models"]
    return {
        name: Backbone(
            name,
            line["title"],
            line["module"],
            (line["input_size"][0], line["input_size"][1]),
            line["preprocessing"],
            line["default_layer"],
            line["parameters"],
            frozenset(line["head"]),
            PublishedWeights(**line["with_head"]),
            PublishedWeights(**line["without_head"]),
        )
        for name, line in lines.items()
    }


BACKBONES: dict[str, Backbone] = _read_table()


def model_names() -> list[str]:
    """Every model that can be asked for by name."""
    return [COMPACT, *BACKBONES]


def display_name(model: str) -> str:
    """As people write it; a name that is not in the table stays as it is."""
    if model in BACKBONES:
        return BACKBONES[model].title
    return {COMPACT: "compact model", OWN: "own model"}.get(model, model)
