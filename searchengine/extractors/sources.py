"""Chooses the ``ModelSource`` of a model, and nothing else does; lists of the models and of their layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from searchengine.errors import UnknownNameError
from searchengine.extractors import models
from searchengine.extractors.custom import CustomSource
from searchengine.extractors.layers import LayerInfo
from searchengine.extractors.packaged import PackagedSource
from searchengine.extractors.presets import PresetSource
from searchengine.extractors.published import PublishedSource
from searchengine.extractors.source import ModelLine, ModelSource, is_model_file, is_preset_folder
from searchengine.extractors.spec import closest_first


@cache
def source_of(model: str) -> ModelSource:
    """The source of a model by the name in its spec; for an unknown name, a source that says so."""
    if model in models.PACKAGED:
        return PackagedSource()
    if model in models.backbones():
        return PublishedSource()
    if model == models.CUSTOM:
        return CustomSource()
    if models.is_preset(model):
        return PresetSource()
    unknown = f"This version has no model {model!r}: update the program, or rebuild the index with another --model."
    return ModelSource(models.facts(model).missing or unknown)


def source_asked_for(model: str | Path) -> ModelSource:
    """The source of the model that a user named, or its file. UnknownNameError if there is no such model."""
    if is_model_file(model):
        return source_of(models.CUSTOM)
    name, known = str(model), models.names()
    if is_preset_folder(name):
        return PresetSource()
    if name in known or "://" in name:
        return source_of(name)
    if name != models.IMPORTED and (missing := models.facts(name).missing):
        raise UnknownNameError(missing)
    choice = ", ".join(closest_first(name, known))
    raise UnknownNameError(
        f"There is no model {name!r}. Choose one of: {choice}. Or give the path of your own .keras file or of "
        "a preset of KerasHub."
    )


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """A model and all of its layers; ``default`` is the layer that it takes by default."""

    title: str
    input_size: tuple[int, int] | None
    preprocessing: str
    parameters: int
    default: str
    layers: list[LayerInfo]


def listed_models() -> list[ModelLine]:
    """Every model that has a name: the packaged ones, those of keras.applications, and those of KerasHub."""
    return [line for source in (PackagedSource(), PublishedSource(), PresetSource()) for line in source.listed()]


def layers_of(model: str) -> ModelLayers:
    """The layers of a model by its name or of a ``.keras`` file; takes some seconds the first time.

    UnknownNameError; WeightsNotFoundError and ExtractorError for a file.
    """
    name = model if is_model_file(model) else model.lower()
    source = source_asked_for(name)
    network = source.describe(name)
    default = source.default_layer(name)
    output = [network.output] if default is None and network.output is not None else []
    return ModelLayers(
        Path(name).name if is_model_file(name) else models.facts(name).title,
        network.input_size,
        source.preprocessing(name),
        network.parameters,
        default or "",
        [*network.layers.values(), *output],
    )
