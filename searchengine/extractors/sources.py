"""Which ``ModelSource`` a model has: the one place that knows."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from searchengine.errors import UnknownNameError
from searchengine.extractors import models
from searchengine.extractors.custom import CustomSource
from searchengine.extractors.packaged import PackagedSource
from searchengine.extractors.published import PublishedSource
from searchengine.extractors.source import ModelLine, ModelSource, is_model_file
from searchengine.extractors.spec import closest_first


@cache
def source_of(model: str) -> ModelSource:
    """The source of a model by the name in its spec; of a name that is not known, a source that says so."""
    if model in models.PACKAGED:
        return PackagedSource()
    if model in models.backbones():
        return PublishedSource()
    if model == models.CUSTOM:
        return CustomSource()
    unknown = f"This version has no model {model!r}: update the program, or rebuild the index with another --model."
    return ModelSource(models.facts(model).missing or unknown)


def source_asked_for(model: str | Path) -> ModelSource:
    """The source of what a user asks for, a name or a file. UnknownNameError where there is no such model."""
    if is_model_file(model):
        return source_of(models.CUSTOM)
    name, known = str(model), models.names()
    if name in known:
        return source_of(name)
    if name != models.IMPORTED and (missing := models.facts(name).missing):
        raise UnknownNameError(missing)
    choice = ", ".join(closest_first(name, known))
    raise UnknownNameError(
        f"There is no model {name!r}. Choose one of: {choice}. Or give the path of your own .keras file."
    )


def listed() -> list[ModelLine]:
    """Every model that has a name, with its defaults: the packaged ones first."""
    return [line for source in (PackagedSource(), PublishedSource()) for line in source.listed()]
