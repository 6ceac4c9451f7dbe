"""CLIP, SigLIP and DINOv2 as KerasHub publishes them: presets by name, by address, or in a folder.

A preset is a folder that contains the weights and the rules for preparing pictures and words. KerasHub downloads it
once, in the subprocess. CLIP and SigLIP have two towers, which give similar vectors to a picture and a text that
describes it. Both towers are exported; the feature of a picture comes from the image tower. DINOv2 has a single tower,
whose class token is the feature.
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
from searchengine.extractors import cache, frameworks
from searchengine.extractors.custom import foreign_objects
from searchengine.extractors.extractor import pixel_type
from searchengine.extractors.frameworks import first_line, import_keras
from searchengine.extractors.models import FAMILIES, Network, presets
from searchengine.extractors.networks import BuiltModel, NetworkInfo, TextModel, dtype_policy
from searchengine.extractors.source import (
    PRESET_CONFIG,
    PRESET_WEIGHTS,
    ExtractorOptions,
    Head,
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
_FILES = (PRESET_CONFIG, _CONVERTER)  # in every preset, besides the weights
_MORE_FILES = (
    "tokenizer.json",
    "preprocessor.json",
    *(f"assets/tokenizer/{name}" for name in ("vocabulary.json", "merges.txt", "vocabulary.spm")),
)
_INSTALL = 'pip install "searchengine[clip]"'


@dataclass(frozen=True, slots=True)
class Preset:
    """The description of a preset in a folder, read without loading the model.

    Pixels of 0 to 255 are multiplied by ``scale``, then ``offset`` is added; each is one number or three.
    ``image_shape`` is the size that the weights were made for; DINOv2 accepts others too.
    """

    folder: Path
    family: str
    input_size: tuple[int, int]
    image_shape: tuple[int, int]
    resizing: Resizing
    scale: Any
    offset: Any


class PresetSource(ModelSource):
    """See ``ModelSource``. A spec identifies the weights by their hash, wherever they came from."""

    has_text_tower = True

    def list_models(self) -> list[tuple[Network, str]]:
        downloaded = _downloaded()
        return [(preset, "downloaded" if preset.name in downloaded else "to download") for preset in presets().values()]

    def describe(self, model: str | Path, input_size: int | None = None) -> NetworkInfo:
        raise ExtractorError(f"{model} has a single output, so there are no layers to choose from.")

    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        name = str(options.model)
        chosen = (options.layer, options.preprocessing, options.input_size)
        if any(choice not in (None, ()) for choice in chosen) or options.pooling != "none":
            raise ExtractorError(
                f"{name} has its own output, preprocessing and input size. Leave out --layer, --pooling, "
                "--preprocessing and --input-size."
            )
        if options.weights != IMAGENET:
            raise ExtractorError(f"{name} includes its weights. Leave out --weights.")
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

    def locate(self, spec: ExtractorSpec, weights_file: Path | None, say: Say) -> Path:
        if weights_file is None and spec.model not in FAMILIES:
            weights_file = _folder_of(spec.model, say) / PRESET_WEIGHTS
        if weights_file is None or not weights_file.is_file():
            return cache.find_weights(spec, flag="--model")
        cache.check_weights(
            weights_file, f"sha256:{cache.remembered_hashes(weights_file)['sha256']}", spec, flag="--model"
        )
        return weights_file

    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        keras = import_keras()
        keras_hub = import_keras_hub()
        preset = read_preset(weights.parent)
        resized = preset.image_shape != preset.input_size
        with dtype_policy(policy):
            try:
                shape = {"image_shape": (*preset.input_size, 3)} if resized else {}
                backbone = keras_hub.models.Backbone.from_preset(str(preset.folder), **shape)
            except Exception as error:  # KerasHub raises many kinds
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

    def head(self, spec: ExtractorSpec, weights_file: Path | None, say: Say | None) -> Head:
        raise ExtractorError(f"{spec.title.partition(',')[0]} has no fixed classes, so its images have no tags.")


def _text_model(backbone: Any, folder: Path) -> TextModel:
    import keras

    rules = read_rules(folder, backbone.text_encoder.max_sequence_length)
    tokens = keras.Input((rules.length,), dtype="int32", name="token_ids")
    # (n, length) int32 -> (n, d) float32
    vectors = keras.ops.cast(backbone.get_text_embeddings(tokens), "float32")
    return TextModel(keras.Model(tokens, vectors), rules)


def read_preset(folder: Path) -> Preset:
    """Read the preset in a folder. Raises ExtractorError if it is incomplete, unsupported, or would run a program."""
    for name in (*_FILES, PRESET_WEIGHTS):
        if not (folder / name).is_file():
            raise ExtractorError(f"The preset in {folder} has no {name}. Save it again with save_to_preset().")
    try:
        config, converter = (parse_json((folder / name).read_text(encoding="utf-8")) for name in _FILES)
        backbone = config["config"]
        family = _FAMILY.get(config["class_name"])
        if family is None or not str(config.get("registered_name")).startswith("keras_hub>"):
            raise ExtractorError(
                f"The preset in {folder} is a {config['class_name']}, which is not supported. Use one of "
                f"{', '.join(FAMILIES.values())}."
            )
        for name in foreign_objects(config, ("keras", "keras_hub", "builtins")):
            raise ExtractorError(f"The preset in {folder} contains {name}, whose code is not part of KerasHub.")
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
        raise ExtractorError(f"The preset in {folder} cannot be read ({error}). Save it again.") from error
    if preset.input_size != preset.image_shape and family != "dinov2":
        raise ExtractorError(
            f"The preset in {folder} contradicts itself: its weights need pictures of {preset.image_shape}, but its "
            f"preprocessing resizes them to {preset.input_size}."
        )
    return preset


def _resizing(folder: Path, config: Mapping[str, Any]) -> Resizing:
    filter = next((known for known in FILTERS if known == config.get("interpolation", "bilinear")), None)
    if filter is None or config.get("pad_to_aspect_ratio"):
        raise ExtractorError(
            f"The preset in {folder} resizes pictures in an unsupported way: {config.get('interpolation')}, padded: "
            f"{bool(config.get('pad_to_aspect_ratio'))}. Supported are {' and '.join(FILTERS)}, without padding."
        )
    antialias, crop = config.get("antialias", False), config.get("crop_to_aspect_ratio", True)
    return Resizing(filter, bool(antialias), bool(crop), exact=True)


# -- downloads --------------------------------------------------------------------------------------------------------


def _folder_of(model: str, say: Say | None = None) -> Path:
    """Return the folder of a preset, downloading it if necessary.

    Raises MissingPackageError or WeightsNotFoundError.
    """
    if is_preset_folder(model):
        return Path(model).expanduser().absolute()
    downloaded = _downloaded()
    if model in downloaded:
        return downloaded[model]
    import_keras_hub(load=False)
    if model.startswith("hf://") and importlib.util.find_spec("huggingface_hub") is None:
        raise MissingPackageError(f"To download {model}: pip install huggingface-hub")
    answer = frameworks.run_task("download", {"model": model}, say or (lambda text: None), doing=f"Downloading {model}")
    folder = Path(answer["folder"])
    replace_text(_note(), json.dumps({name: str(path) for name, path in {**downloaded, model: folder}.items()}))
    return folder


def _downloaded() -> dict[str, Path]:
    """Return the presets that were downloaded before and still exist."""
    try:
        note = parse_json(_note().read_text(encoding="utf-8"))
        return {name: Path(path) for name, path in note.items() if (Path(path) / PRESET_WEIGHTS).is_file()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _note() -> Path:
    return cache.cache_root() / "presets.json"


def import_keras_hub(*, load: bool = True) -> Any:
    """Import KerasHub, or only check that it is installed if not ``load``. Raises MissingPackageError."""
    if importlib.util.find_spec("keras_hub") is None:
        raise MissingPackageError(f"CLIP, SigLIP and DINOv2 need KerasHub, which is not installed: {_INSTALL}")
    if not load:
        return None
    import keras_hub

    return keras_hub


def download(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """Download the preset ``{"model": name or address}`` and return its folder in the downloading library's cache.

    Runs in the subprocess.
    """
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
                continue  # each tokenizer has its own files, and DINOv2 has no tokenizer
        get_file(model, PRESET_WEIGHTS)
    except Exception as error:  # the kind depends on the library that downloads
        raise WeightsNotFoundError(
            f"The preset {model} cannot be downloaded: {_reason(error)}. Check the name and the network. Or "
            "download it on another machine and give the folder with --model. Or use --model efficientnet-lite0, which "
            "needs no download and can be searched by words too."
        ) from error
    return {"folder": str(folder)}


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.ConnectionError) and error.request is not None and error.request.url:
        return f"{urlsplit(error.request.url).hostname} cannot be reached"
    return first_line(error)
