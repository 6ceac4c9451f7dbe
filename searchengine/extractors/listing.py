"""What can be asked for, as a list: the models, and the layers of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from searchengine.extractors.layers import LayerInfo
from searchengine.extractors.models import facts
from searchengine.extractors.source import ModelLine, is_model_file
from searchengine.extractors.sources import listed, source_asked_for


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """A model and all of its layers; ``default`` is the layer that it takes by default."""

    title: str
    input_size: tuple[int, int] | None
    preprocessing: str
    parameters: int
    default: str
    layers: list[LayerInfo]


def models() -> list[ModelLine]:
    """Every model that has a name: the packaged ones, then those of keras.applications, family by family."""
    return listed()


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
        Path(name).name if is_model_file(name) else facts(name).title,
        network.input_size,
        source.preprocessing(name),
        network.parameters,
        default or "",
        [*network.layers.values(), *output],
    )
