"""The networks of keras.applications, with the ImageNet weights that Keras publishes or with custom weights."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from searchengine.download import Client, DownloadError, Resource
from searchengine.errors import ExtractorError, WeightsNotFoundError, file_error
from searchengine.extractors import cache
from searchengine.extractors.frameworks import check_keras, first_line, import_keras, linked
from searchengine.extractors.models import Backbone, PublishedWeights, backbones
from searchengine.extractors.networks import BuiltModel, cut, dtype_policy
from searchengine.extractors.source import CLASSES, HDF5_SIGNATURE, ExtractorOptions, Head, NamedSource
from searchengine.extractors.spec import IMAGENET, ExtractorSpec
from searchengine.files import locked
from searchengine.progress import Progress, Say

if TYPE_CHECKING:
    import keras

_REPORT_SECONDS = 5.0
_PAUSE = 0.2  # seconds before the first retry: short, so that a missing network is reported soon
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class PublishedSource(NamedSource[Backbone]):
    """See ``ModelSource``."""

    def networks(self) -> dict[str, Backbone]:
        return backbones()

    def availability(self, network: Backbone) -> str:
        wanted = network.files_for([network.default_layer])[0]
        # Check the name first, because hashing half a gigabyte takes seconds.
        return "downloaded" if (keras_folder() / wanted.file_name).is_file() and cached(wanted) else "to download"

    def layers_key(self, model: str, side: int) -> str:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{model}-keras-{importlib.metadata.version('keras')}"
        return model

    def preprocessing(self, model: str) -> str:
        inside = backbones()[model].preprocessing
        return "its own" if inside == "none" else inside

    def network(self, model: str, input_size: int | None) -> keras.Model:
        keras = import_keras()
        backbone = backbones()[model]
        with keras.StatelessScope():  # quick, because the variables stay empty
            return getattr(keras.applications, backbone.title)(weights=None, input_shape=(*backbone.input_size, 3))

    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        backbone = backbones()[str(options.model)]
        if options.preprocessing is not None or options.input_size not in (None, backbone.input_size[0]):
            raise ExtractorError(
                f"{backbone.title} has its own preprocessing and input size. Leave out --preprocessing, which is for "
                ".keras files, and --input-size, which is for these and EfficientNet-Lite."
            )
        file = options.weights_file
        return self.spec_of(options, IMAGENET if file is None else identify(file, backbone), backbone.input_size)

    def locate(self, spec: ExtractorSpec, weights_file: Path | None, say: Say) -> Path:
        backbone = backbones()[spec.model]
        if weights_file is not None:
            cache.check_weights(weights_file, identify(weights_file, backbone), spec, flag="--weights")
            return weights_file
        if spec.weights != IMAGENET:
            return cache.find_weights(spec, flag="--weights")
        files = backbone.files_for(spec.layers)
        for file in files:
            if (path := cached(file)) is not None:
                return path
        return download(backbone, files[0], say)

    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        backbone = backbones()[spec.model]
        if spec.weights != IMAGENET:
            return _build_with_own_weights(spec, backbone, weights, policy)
        # A file without a published digest is recognised by the name that Keras caches it under.
        head = backbone.with_head.matches(cache.remembered_hashes(weights))
        built = _build(spec, backbone, head=head or weights.name == backbone.with_head.file_name, policy=policy)
        load_weights(built.network, weights, backbone.title, count=False)
        correct_published(built.network, backbone)
        return built

    def head(self, spec: ExtractorSpec, weights_file: Path | None, say: Say | None) -> Head:
        self.check_head(spec)
        backbone = backbones()[spec.model]
        if spec.weights != IMAGENET:
            return read_head(weights_file or cache.find_weights(spec, flag="--weights"), backbone.dimension)
        # The user's file may be the published one without the head, which gives the same features.
        has_head = weights_file is not None and backbone.with_head.matches(cache.remembered_hashes(weights_file))
        file = weights_file if has_head else cached(backbone.with_head)
        if file is None:
            if say is None:
                raise WeightsNotFoundError(
                    f"The classes of {backbone.title} are in its weights file with the classification head "
                    f"({backbone.with_head.megabytes} MB), which is missing. Download it: searchengine words"
                )
            file = download(backbone, backbone.with_head, say)
        return read_head(file, backbone.dimension)


def _build(spec: ExtractorSpec, backbone: Backbone, *, head: bool, policy: str) -> BuiltModel:
    """Build the model of a spec with random weights, with or without the classification layers."""
    keras = import_keras()
    keras.utils.clear_session()  # automatic layer names would otherwise change on a second build
    with dtype_policy(policy):
        constructor = getattr(keras.applications, backbone.title)
        network = constructor(weights=None, include_top=head, input_shape=(*spec.input_size, 3))
        return cut(network, spec, backbone.preprocessing, backbone.title)


def _build_with_own_weights(spec: ExtractorSpec, backbone: Backbone, file: Path, policy: str) -> BuiltModel:
    # The only way to learn whether the file includes the classification head is to try.
    needs_head = bool(backbone.head.intersection(spec.layers))
    tries = [True] if needs_head else [False, True] if "notop" in file.name else [True, False]
    failures: list[ExtractorError] = []
    for head in tries:
        built = _build(spec, backbone, head=head, policy=policy)
        try:
            load_weights(built.network, file, backbone.title if head else f"{backbone.title} without its head")
        except ExtractorError as error:
            failures.append(error)
        else:
            return built
    if needs_head and "notop" in file.name:
        raise ExtractorError(
            f"{failures[0]} It seems to be the file without the classification head, but the layer {spec.layer} "
            "belongs to the head. Use the file with the head."
        )
    raise failures[0]


# -- weights files ----------------------------------------------------------------------------------------------------


def identify(file: Path, backbone: Backbone) -> str:
    """Return the ``weights`` field of a spec: ``"imagenet"`` for the published file, else ``"sha256:<hex>"``.

    Raises WeightsNotFoundError if there is no such file and ExtractorError if it is not a weights file.
    """
    if cache.read_signature(file, flag="--weights") != HDF5_SIGNATURE:
        raise ExtractorError(
            f"{file} is not a weights file: it is not HDF5. --weights takes a file saved by Keras, .weights.h5 or .h5."
        )
    hashes = cache.remembered_hashes(file)
    if any(published.matches(hashes) for published in (backbone.with_head, backbone.without_head)):
        return IMAGENET
    return f"sha256:{hashes['sha256']}"


def keras_folder() -> Path:
    """Return the folder where Keras caches downloaded weights, chosen as ``keras.utils.get_file`` does."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        home = Path("/tmp/.keras")  # noqa: S108  (as Keras does)
    return home / "models"


def cached(file: PublishedWeights) -> Path | None:
    """Return the path of a published file in Keras's cache, or None if it is not there in full."""
    path = keras_folder() / file.file_name
    if not path.is_file():
        return None
    # An interrupted download has the same name, so the hash decides, as in Keras.
    return path if file.digest is None or file.matches(cache.remembered_hashes(path)) else None


def download(backbone: Backbone, file: PublishedWeights, say: Say) -> Path:
    """Download a published file into Keras's cache. Raises WeightsNotFoundError if that fails."""
    check_keras()  # before downloading half a gigabyte for nothing
    path = keras_folder() / file.file_name
    state = "there is only an incomplete or altered copy at" if path.exists() else "it is not at"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = "waiting for another process that is downloading it ..."
        with locked(path.with_name(f".{path.name}.lock"), on_wait=lambda: say(waiting)), Client(_PAUSE) as client:
            if cached(file) is None:
                say(f"downloading {file.url} ({file.megabytes} MB), once ...")
                new = Resource(file.url, file.digest, f"{path.name}.new")
                client.fetch(new, path.parent, progress=_Sentences(say)).replace(path)
    except (OSError, DownloadError) as error:
        reason = file_error(error) if isinstance(error, OSError) else str(error)
        raise WeightsNotFoundError(
            f"The ImageNet weights of {backbone.title} are missing. {file.file_name} ({file.megabytes} MB) is "
            f"needed; {state} {path}. {reason} Or download {file.url} on another machine and put it into that "
            "folder, or give it with --weights FILE. Or use --model efficientnet-lite0, which needs no download."
        ) from error
    return path


class _Sentences(Progress):
    """Reports a download as an occasional sentence."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def start(self, total: int | None, done: int = 0, *, what: str = "", unit: str = "images") -> None:
        """Begin a file of ``total`` bytes; ``what`` says whether it is downloaded or checked."""
        self._what, self._total, self._done, self._reported = what, total or 0, done, time.monotonic()

    def advance(self, amount: int = 1) -> None:
        """Count the bytes, and report them every few seconds."""
        self._done += amount
        if time.monotonic() - self._reported > _REPORT_SECONDS:
            self._reported = time.monotonic()
            self._say(f"{self._what}: {self._done // 10**6} of {self._total // 10**6} MB")

    def say(self, sentence: str) -> None:
        """Pass the sentence on."""
        self._say(sentence)


def correct_published(network: keras.Model, backbone: Backbone) -> None:
    """Apply the correction that keras.applications makes when it loads published weights.

    EfficientNet was trained on pixels divided by the standard deviation of ImageNet. The published files hold that
    deviation where Keras expects its square, and weights="imagenet" inserts another division by its root. Here the
    value is squared instead.
    """
    if backbone.module != "efficientnet":
        return
    layer = network.get_layer("normalization")
    layer.adapt_variance.assign(layer.adapt_variance * _IMAGENET_DEVIATION)
    layer.finalize_state()


def load_weights(network: keras.Model, file: Path, title: str, *, count: bool = True) -> None:
    """Load a weights file of either format into a network that it fits exactly.

    ``count`` False skips the comparison of the numbers of arrays, as is right for published files. Raises
    ExtractorError if the file does not fit: another model, another input size, with or without the head, or damaged.
    """
    try:
        legacy, held = _contents(file)
        wanted = len(network.weights)
        if count and held != wanted:
            raise ValueError(f"it holds {held} arrays, and the model has {wanted}")
        with linked(file, ".h5" if legacy else ".weights.h5") as link:
            network.load_weights(str(link))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ExtractorError(f"{file} does not fit {title}: {first_line(error)}.") from error


def _contents(file: Path) -> tuple[bool, int]:
    """Return whether a file has the legacy layout, and how many arrays of weights it holds."""
    import h5py

    with h5py.File(file, "r") as root:
        group = root.get("model_weights", root)
        legacy = any(name.startswith("layer_names") for name in group.attrs)
        arrays = 0

        def count(name: str, node: object) -> None:
            nonlocal arrays
            is_other = "optimizer" in name or "seed_generator" in name or "top_level_model_weights" in name
            arrays += isinstance(node, h5py.Dataset) and not is_other

        group.visititems(count)
    return legacy, arrays


def read_head(file: Path, dimension: int) -> Head:
    """Read the classification head from a Keras weights file of either format.

    The head is recognised by its shape (d numbers in, 1000 out), because the two formats name layers differently. It
    can be a dense layer or an equivalent 1x1 convolution. Raises ExtractorError if the file has no such layer.
    """
    import h5py

    kernels: list[Any] = []

    def collect(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and tuple(side for side in node.shape if side != 1) == (dimension, CLASSES):
            kernels.append(node)

    try:
        with h5py.File(file, "r") as root:
            root.visititems(collect)
            if len(kernels) != 1:
                raise ExtractorError(
                    f"{file} does not contain the classification head of 1000 ImageNet classes, which a search by "
                    "words needs."
                )
            (bias,) = (node for node in kernels[0].parent.values() if node.shape == (CLASSES,))
            kernel = np.asarray(kernels[0], dtype=np.float32).reshape(dimension, CLASSES)
            return Head(np.ascontiguousarray(kernel.T), np.asarray(bias, dtype=np.float32))
    except (OSError, ValueError, KeyError) as error:
        raise ExtractorError(f"The classification head in {file} cannot be read: {error}.") from error
