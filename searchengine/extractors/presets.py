"""CLIP, SigLIP and DINOv2 as KerasHub publishes them: presets by name, by address, or in a folder.

A preset is a folder: the weights, and how pictures and words are prepared for them. KerasHub downloads it once, in the
subprocess. CLIP and SigLIP have two towers, whose vectors lie close for a picture and a text that fits it: both are
exported, and the feature of a picture is that of the image tower. DINOv2 has one; the feature is its class token.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from searchengine.errors import ExtractorError, MissingPackageError, WeightsNotFoundError
from searchengine.extractors import cache, worker
from searchengine.extractors.custom import foreign_objects
from searchengine.extractors.extractor import pixel_type
from searchengine.extractors.frameworks import first_line, import_keras
from searchengine.extractors.models import FAMILIES, presets
from searchengine.extractors.networks import BuiltModel, NetworkInfo, TextModel, dtype_policy
from searchengine.extractors.source import (
    PRESET_CONFIG,
    PRESET_WEIGHTS,
    ExtractorOptions,
    Head,
    ModelLine,
    ModelSource,
    is_preset_folder,
)
from searchengine.extractors.spec import IMAGENET, ExtractorSpec
from searchengine.extractors.text_tower import read_rules
from searchengine.files import parse_json, replace_text
from searchengine.images import FILTERS, Resizing
from searchengine.progress import Say

_FAMILY = {"CLIPBackbone": "clip", "SigLIPBackbone": "siglip", "DINOV2Backbone": "dinov2"}
_CONVERTER = "image_converter.json"
_FILES = (PRESET_CONFIG, _CONVERTER)  # that every preset has, besides the weights
_MORE_FILES = (
    "tokenizer.json",
    "preprocessor.json",
    *(f"assets/tokenizer/{name}" for name in ("vocabulary.json", "merges.txt", "vocabulary.spm")),
)
_INSTALL = 'pip install "searchengine[clip]"'


@dataclass(frozen=True, slots=True)
class Preset:
    """What is known of a preset in a folder without loading it.

    Pixels of 0 to 255 are multiplied by ``scale`` and ``offset`` is added, a number or three each. ``image_shape`` is
    what the weights were made for; DINOv2 takes others too.
    """

    folder: Path
    family: str
    input_size: tuple[int, int]
    image_shape: tuple[int, int]
    resizing: Resizing
    scale: Any
    offset: Any


class PresetSource(ModelSource):
    """See ``ModelSource``. The spec names the weights by their hash, wherever they came from."""

    has_text_tower = True

    def listed(self) -> list[ModelLine]:
        kept = _downloaded()
        return [
            ModelLine.of(preset, "downloaded" if preset.name in kept else "to download")
            for preset in presets().values()
        ]

    def describe(self, model: str | Path, input_size: int | None = None) -> NetworkInfo:
        raise ExtractorError(f"{model} has one output, the vector of a picture: there are no layers to choose from.")

    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        name = str(options.model)
        chosen = (options.layer, options.preprocessing, options.input_size)
        if any(choice not in (None, ()) for choice in chosen) or options.pooling != "none":
            raise ExtractorError(
                f"{name} has its own output, preprocessing and input size: leave out --layer, --pooling, "
                "--preprocessing and --input-size."
            )
        if options.weights != IMAGENET:
            raise ExtractorError(f"{name} comes with its weights: leave out --weights.")
        preset = read_preset(_folder_of(name))
        weights = cache.remembered_hashes(preset.folder / PRESET_WEIGHTS)["sha256"]
        return ExtractorSpec(
            preset.family if is_preset_folder(name) else name,
            None,
            "none",
            options.normalize,
            f"sha256:{weights}",
            preset.input_size,
            options.full_decode is not False,
            resizing=str(preset.resizing),
        )

    def options(self, spec: ExtractorSpec, weights_file: Path | None) -> ExtractorOptions:
        model = self.locate(spec, weights_file, lambda text: None).parent if spec.model in FAMILIES else spec.model
        return ExtractorOptions(model, normalize=spec.normalize, full_decode=spec.full_decode)

    def locate(self, spec: ExtractorSpec, given: Path | None, say: Say) -> Path:
        if given is None and spec.model not in FAMILIES:
            given = _folder_of(spec.model, say) / PRESET_WEIGHTS
        if given is None or not given.is_file():
            return cache.find_weights(spec, flag="--model")
        cache.check_weights(given, f"sha256:{cache.remembered_hashes(given)['sha256']}", spec, flag="--model")
        return given

    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        keras = import_keras()
        keras_hub = import_keras_hub()
        preset = read_preset(weights.parent)
        resized = preset.image_shape != preset.input_size
        with dtype_policy(policy):
            try:
                shape = {"image_shape": (*preset.input_size, 3)} if resized else {}
                backbone = keras_hub.models.Backbone.from_preset(str(preset.folder), **shape)
            except Exception as error:  # of many kinds, from many depths
                raise ExtractorError(
                    f"The preset in {preset.folder} cannot be loaded by KerasHub {keras_hub.__version__}: "
                    f"{first_line(error)}."
                ) from error
            pixels = keras.Input((*preset.input_size, 3), dtype=pixel_type(spec), name="pixels")
            # (n, h, w, 3) RGB of 0 to 255 -> (n, h, w, 3) float32 as the network was trained -> (n, d)
            images = keras.ops.cast(pixels, "float32") * keras.ops.array(preset.scale) + keras.ops.array(preset.offset)
            if preset.family == "dinov2":
                feature, text = backbone({"images": images})[:, 0], None
            else:
                feature, text = backbone.get_vision_embeddings(images), _text_model(backbone, preset.folder)
            feature = keras.ops.cast(feature, "float32")
            return BuiltModel(keras.Model(pixels, feature), backbone, (int(feature.shape[-1]),), text)

    def head(self, spec: ExtractorSpec, given: Path | None, say: Say | None) -> Head:
        raise ExtractorError(
            f"{spec.title.partition(',')[0]} knows no fixed classes, so there are no tags for its images."
        )


def _text_model(backbone: Any, folder: Path) -> TextModel:
    import keras

    rules = read_rules(folder, backbone.text_encoder.max_sequence_length)
    tokens = keras.Input((rules.length,), dtype="int32", name="token_ids")
    # (n, length) int32 -> (n, d) float32
    vectors = keras.ops.cast(backbone.get_text_embeddings(tokens), "float32")
    return TextModel(keras.Model(tokens, vectors), rules)


def read_preset(folder: Path) -> Preset:
    """The preset in a folder; ExtractorError for one that is incomplete, of another family, or would run a program."""
    for name in (*_FILES, PRESET_WEIGHTS):
        if not (folder / name).is_file():
            raise ExtractorError(f"The preset in {folder} has no {name}: save it again with save_to_preset().")
    try:
        config, converter = (parse_json((folder / name).read_text(encoding="utf-8")) for name in _FILES)
        backbone = config["config"]
        family = _FAMILY.get(config["class_name"])
        if family is None or not str(config.get("registered_name")).startswith("keras_hub>"):
            raise ExtractorError(
                f"The preset in {folder} is a {config['class_name']}. There is support for "
                f"{', '.join(FAMILIES.values())}."
            )
        for which in foreign_objects(config, ("keras", "keras_hub", "builtins")):
            raise ExtractorError(f"The preset in {folder} holds {which}, whose code is not that of KerasHub.")
        shape = (backbone if family == "dinov2" else backbone["vision_encoder"]["config"])["image_shape"]
        preparing = converter["config"]
        size = preparing.get("image_size") or shape
        preset = Preset(
            folder,
            family,
            (int(size[0]), int(size[1])),
            (int(shape[0]), int(shape[1])),
            _resizing(folder, preparing),
            1.0 if preparing.get("scale") is None else preparing["scale"],
            0.0 if preparing.get("offset") is None else preparing["offset"],
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ExtractorError(f"The preset in {folder} cannot be read ({error}): save it again.") from error
    if preset.input_size != preset.image_shape and family != "dinov2":
        raise ExtractorError(
            f"The preset in {folder} contradicts itself: its weights are for pictures of {preset.image_shape}, and its "
            f"preprocessing makes {preset.input_size}."
        )
    return preset


def _resizing(folder: Path, config: Mapping[str, Any]) -> Resizing:
    filter = next((known for known in FILTERS if known == config.get("interpolation", "bilinear")), None)
    if filter is None or config.get("pad_to_aspect_ratio"):
        raise ExtractorError(
            f"The preset in {folder} resizes pictures in a way that is not supported: {config.get('interpolation')}, "
            f"padded: {bool(config.get('pad_to_aspect_ratio'))}. Supported are {' and '.join(FILTERS)}, not padded."
        )
    antialias, crop = config.get("antialias", False), config.get("crop_to_aspect_ratio", True)
    return Resizing(filter, bool(antialias), bool(crop), exact=True)


# -- downloads --------------------------------------------------------------------------------------------------------


def _folder_of(model: str, say: Say | None = None) -> Path:
    """The folder of a preset, downloaded if need be. MissingPackageError, WeightsNotFoundError."""
    if is_preset_folder(model):
        return Path(model).expanduser().absolute()
    kept = _downloaded()
    if model in kept:
        return kept[model]
    import_keras_hub(load=False)
    if model.startswith("hf://") and importlib.util.find_spec("huggingface_hub") is None:
        raise MissingPackageError(f"To download {model}: pip install huggingface-hub")
    answer = worker.run("download", {"model": model}, say or (lambda text: None), doing=f"Downloading {model}")
    folder = Path(answer["folder"])
    replace_text(_note(), json.dumps({**{name: str(place) for name, place in kept.items()}, model: str(folder)}))
    return folder


def _downloaded() -> dict[str, Path]:
    """The presets that were downloaded before and are still there."""
    try:
        note = parse_json(_note().read_text(encoding="utf-8"))
        return {name: Path(place) for name, place in note.items() if (Path(place) / PRESET_WEIGHTS).is_file()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _note() -> Path:
    return cache.cache_root() / "presets.json"


def import_keras_hub(*, load: bool = True) -> Any:
    """KerasHub; MissingPackageError where it is not installed. Without ``load`` it is only looked for."""
    if importlib.util.find_spec("keras_hub") is None:
        raise MissingPackageError(f"CLIP, SigLIP and DINOv2 need KerasHub, which is not installed: {_INSTALL}")
    if not load:
        return None
    import keras_hub

    return keras_hub


def download(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """The folder of the preset ``{"model": name or address}``, in the cache of whoever offers it; in the subprocess."""
    import_keras()
    import_keras_hub()
    from keras_hub.src.utils.preset_utils import get_file

    model = request["model"]
    say(f"downloading {model}, once ...")
    try:
        for name in _FILES:
            folder = Path(get_file(model, name)).parent
        for name in _MORE_FILES:
            try:
                get_file(model, name)
            except FileNotFoundError:
                continue  # DINOv2 has none, and each tokenizer its own
        get_file(model, PRESET_WEIGHTS)
    except Exception as error:  # of whichever library downloads
        raise WeightsNotFoundError(
            f"The preset {model} cannot be downloaded: {_reason(error)}. Check the name and the network. Or "
            "download it on another machine and give the folder with --model. Or use --model efficientnet-lite0, which "
            "needs no download and has words too."
        ) from error
    return {"folder": str(folder)}


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.ConnectionError) and error.request is not None and error.request.url:
        return f"{urlsplit(error.request.url).hostname} cannot be reached"
    return first_line(error)
