"""Weights files: which one is wanted, where it is, what it is, and how it gets into a network."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import own
from searchengine.extractors.backbones import BACKBONES, OWN, Backbone, PublishedWeights
from searchengine.extractors.cache import find_by_hash, remembered_hashes

if TYPE_CHECKING:
    import keras

    from searchengine.extractors.spec import ExtractorSpec

IMAGENET = "imagenet"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_REACH_SECONDS = 10
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def identify(file: Path, model: str) -> str:
    """How a spec names the weights in a file: ``"imagenet"`` for the published one, else ``"sha256:<hex>"``.

    ``model`` "own" takes a ``.keras`` file, the others a weights file.
    WeightsNotFoundError if there is no such file, ExtractorError if it is no weights file.
    """
    if model == OWN:
        return f"sha256:{own.identify(file)}"
    try:
        with file.open("rb") as stream:
            signature = stream.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError as error:
        raise WeightsNotFoundError(f"There is no weights file {file}. Check the path given to --weights.") from error
    except OSError as error:
        raise WeightsNotFoundError(
            f"The weights file {file} cannot be read: {error.strerror}. Check the path given to --weights."
        ) from error
    if signature != _HDF5_SIGNATURE:
        raise ExtractorError(
            f"{file} is not a weights file: it is not HDF5. --weights takes a file as Keras saves it, .weights.h5 "
            "or .h5."
        )
    hashes = remembered_hashes(file)
    if any(published.is_one_of(hashes) for published in (BACKBONES[model].with_head, BACKBONES[model].without_head)):
        return IMAGENET
    return f"sha256:{hashes['sha256']}"


def locate(spec: ExtractorSpec, given: Path | None) -> Path | PublishedWeights:
    """The file that holds the weights of a spec, or what is to be downloaded because it is nowhere yet.

    ``given`` is a file that the user named. WeightsNotFoundError if it holds other weights than the spec says, and
    where nothing can be had at all.
    """
    flag = "--model" if spec.model == OWN else "--weights"
    if given is not None:
        found = identify(given, spec.model)
        if found != spec.weights:
            raise WeightsNotFoundError(
                f"{given} holds other weights than those asked for: it is {_short(found)}, wanted is "
                f"{_short(spec.weights)}. Give the very file that the index was made with to {flag}."
            )
        return given
    if spec.weights == IMAGENET:
        return _published(BACKBONES[spec.model], spec)
    known = find_by_hash(spec.weights.partition(":")[2])
    if known is None:
        raise WeightsNotFoundError(
            f"The weights of {spec.title} ({_short(spec.weights)}) are not at hand. Give the file that the index was "
            f"made with to {flag}."
        )
    return known


def _short(weights: str) -> str:
    kind, _, digest = weights.partition(":")
    return f"{kind} {digest[:12]}" if digest else kind


def keras_folder() -> Path:
    """Where Keras keeps the weights that it downloads (as keras.utils.get_file decides)."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        home = Path("/tmp/.keras")  # noqa: S108  (Keras's own choice)
    return home / "models"


def _published(backbone: Backbone, spec: ExtractorSpec) -> Path | PublishedWeights:
    files = backbone.published_for(spec.layers)
    for file in files:
        cached = at_hand(file)
        if cached is not None:
            return cached
    wanted = files[0]
    reason = _why_unreachable(wanted.url)
    if reason is not None:
        raise not_found(backbone, wanted, reason)
    return wanted


def at_hand(file: PublishedWeights) -> Path | None:
    """Where Keras has a published file already, whole; None if it has not."""
    cached = keras_folder() / file.file_name
    if not cached.is_file():
        return None
    # A download that broke off lies there under the same name, so that Keras compares hashes, and so do we.
    return cached if file.digest is None or file.is_one_of(remembered_hashes(cached)) else None


def not_found(backbone: Backbone, wanted: PublishedWeights, reason: str) -> WeightsNotFoundError:
    """What to say where the published file is not there and does not come."""
    place = keras_folder() / wanted.file_name
    state = "there is only an incomplete or altered copy at" if place.exists() else "it is not at"
    return WeightsNotFoundError(
        f"The ImageNet weights of {backbone.title} are not at hand. Wanted is {wanted.file_name} ({wanted.megabytes} "
        f"MB); {state} {place}, and {wanted.url} could not be had ({reason}). Download that file on "
        "another machine and put it there, or give it with --weights FILE. Or use --model compact, which needs no "
        "download."
    )


def _why_unreachable(url: str) -> str | None:
    """None if the address answers, else the reason. Asked before TensorFlow is loaded, which takes seconds."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        # The addresses are those of the table, all https.
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_REACH_SECONDS):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"HTTP {error.code}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__


def mend_published(network: keras.Model, backbone: Backbone) -> None:
    """What keras.applications adds to a network itself where it loads the published weights.

    EfficientNet was trained on pixels divided by the deviation of ImageNet; the published files hold that deviation
    where Keras expects its square, and weights="imagenet" puts in another division by its root. Here it is squared.
    """
    if backbone.module != "efficientnet":
        return
    layer = network.get_layer("normalization")
    layer.adapt_variance.assign(layer.adapt_variance * _IMAGENET_DEVIATION)
    layer.finalize_state()


def load_into(network: keras.Model, file: Path, title: str, *, count: bool = True) -> None:
    """Load a weights file of either format into a network that it fits exactly.

    ``count`` False leaves it to Keras to see whether it does, as is right for published files.
    ExtractorError if it does not: another model, another input, with or without the head, damaged.
    """
    try:
        legacy, held = _contents(file)
        wanted = len(network.weights)
        if count and held != wanted:
            raise ValueError(f"it holds {held} arrays, and the model has {wanted}")
        with _named(file, ".h5" if legacy else ".weights.h5") as named:
            network.load_weights(named)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ExtractorError(f"{file} does not fit {title}: {_first_line(error)}.") from error


def _contents(file: Path) -> tuple[bool, int]:
    """(is it the legacy layout, how many arrays of weights it holds)."""
    import h5py

    with h5py.File(file, "r") as root:
        group = root.get("model_weights", root)
        legacy = any(name.startswith("layer_names") for name in group.attrs)
        arrays = 0

        def count(name: str, node: object) -> None:
            nonlocal arrays
            aside = "optimizer" in name or "seed_generator" in name or "top_level_model_weights" in name
            arrays += isinstance(node, h5py.Dataset) and not aside

        group.visititems(count)
    return legacy, arrays


@contextlib.contextmanager
def _named(file: Path, suffix: str) -> Iterator[str]:
    """The file under a name from whose end Keras tells the format."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"weights{suffix}"
        link.symlink_to(file.resolve())
        yield str(link)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
