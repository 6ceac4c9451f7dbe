"""What can be asked for, as a list: the models, and the layers of one. Loads no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from searchengine.extractors import backbones, cache, own, shipped
from searchengine.extractors.backbones import LayerInfo
from searchengine.extractors.loading import make_spec
from searchengine.extractors.names import check_name
from searchengine.extractors.weights import at_hand, keras_folder

SHIPPED, PREPARED, FETCHED, ABSENT = "shipped", "prepared", "downloaded", "to download"


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A model with what it does unless told otherwise. ``megabytes`` is the size of its weights, as a file.

    ``weights`` is "shipped"; "prepared" where the default layer is exported already; "downloaded" where Keras has the
    published file; else "to download". A file that has the right name but not the right content counts as absent.
    """

    name: str
    title: str
    layer: str
    dimension: int
    input_size: tuple[int, int]
    parameters: int
    megabytes: int
    weights: str


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """A model and all of its layers; ``default`` is the layer that it takes unless told otherwise."""

    title: str
    input_size: tuple[int, int] | None
    preprocessing: str
    parameters: int
    default: str
    layers: list[LayerInfo]


def models() -> list[ModelLine]:
    """Every model that has a name: the shipped one, then those of keras.applications, family by family."""
    return [_compact(), *(_line(backbone) for backbone in backbones.BACKBONES.values())]


def _compact() -> ModelLine:
    spec = shipped.shipped_spec()
    exported = shipped.exported(spec)
    size = exported.xml.with_suffix(".bin").stat().st_size  # float16 weights
    return ModelLine(
        spec.model, "compact model", "", exported.dimension, spec.input_size, size // 2, round(size / 1e6), SHIPPED
    )


def _line(backbone: backbones.Backbone) -> ModelLine:
    layer = backbone.layers[backbone.default_layer]
    wanted = backbone.published_for([layer.name])[0]
    return ModelLine(
        backbone.name,
        backbone.title,
        layer.name,
        layer.numbers("none") or 0,
        backbone.input_size,
        backbone.parameters,
        wanted.megabytes,
        _state(backbone, wanted),
    )


def _state(backbone: backbones.Backbone, wanted: backbones.PublishedWeights) -> str:
    # A folder's name first: to hash what was exported or downloaded is only worth it where something was.
    if cache.lookup(make_spec(backbone.name)) is not None:
        return PREPARED
    return FETCHED if (keras_folder() / wanted.file_name).is_file() and at_hand(wanted) is not None else ABSENT


def layers_of(model: str) -> ModelLayers:
    """The layers of a model by its name or of a ``.keras`` file. UnknownNameError; the errors of ``own.describe``."""
    if own.is_model_file(model):
        found = own.describe(Path(model).expanduser())
        output = [found.output] if found.output is not None else []
        return ModelLayers(
            Path(model).name,
            found.input_size,
            "its own, or --preprocessing",
            found.parameters,
            "",
            [*found.layers.values(), *output],
        )
    name = check_name("model", model.lower(), backbones.model_names())
    if name == backbones.COMPACT:
        line = _compact()
        layer = LayerInfo("", "output", (line.dimension,))
        return ModelLayers(line.title, line.input_size, "its own", line.parameters, "", [layer])
    backbone = backbones.BACKBONES[name]
    inside = "its own" if backbone.preprocessing == "none" else backbone.preprocessing
    return ModelLayers(
        backbone.title,
        backbone.input_size,
        inside,
        backbone.parameters,
        backbone.default_layer,
        list(backbone.layers.values()),
    )
