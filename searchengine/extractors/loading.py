"""Options as users give them -> spec -> exported model -> extractor; and the models that there are.

``source_of`` alone chooses the ``ModelSource`` of a model.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from searchengine.errors import ExtractorError, QueryError, UnknownNameError, check_name, closest_first
from searchengine.extractors import cache, models, runtimes, worker
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.custom import CustomSource
from searchengine.extractors.extractor import PRECISIONS, RUNTIMES, Extractor
from searchengine.extractors.networks import LayerInfo
from searchengine.extractors.packaged import PackagedSource
from searchengine.extractors.presets import PresetSource
from searchengine.extractors.published import PublishedSource
from searchengine.extractors.source import ExtractorOptions, ModelLine, ModelSource, is_model_file, is_preset_folder
from searchengine.extractors.spec import NORMALIZATIONS, POOLINGS, ExtractorSpec
from searchengine.files import file_size, path_from_text
from searchengine.progress import Say

# -- which models there are -------------------------------------------------------------------------------------------


@functools.cache
def source_of(model: str) -> ModelSource:
    """The source of a model by the name in its spec; ExtractorError says why there is none."""
    if model in models.PACKAGED:
        return PackagedSource()
    if model in models.backbones():
        return PublishedSource()
    if model == models.CUSTOM:
        return CustomSource()
    if models.is_preset(model):
        return PresetSource()
    unknown = f"This version has no model {model!r}: update the program, or rebuild the index with another --model."
    raise ExtractorError(models.facts(model).missing or unknown)


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


# -- options -> spec -> extractor -------------------------------------------------------------------------------------


def make_spec(model: str | Path = "vgg16", **options: Any) -> ExtractorSpec:
    """``spec_of`` for options by their names in ``ExtractorOptions``."""
    return spec_of(ExtractorOptions(model, **options))


def spec_of(options: ExtractorOptions) -> ExtractorSpec:
    """The spec of the options.

    If the layers of the model must be known and are not cached, a subprocess looks into it; no model is loaded here.

    Raises:
        UnknownNameError: no such model, layer or option.
        WeightsNotFoundError: there is no such file.
        ExtractorError: a file of the wrong kind, or options that do not go together.
    """
    check_name("normalisation", options.normalize, NORMALIZATIONS)
    check_name("pooling", options.pooling, POOLINGS)
    for name in options.layers:
        if options.layers.count(name) > 1:
            raise ExtractorError(f"The layer {name} is asked for twice.")
    name = str(options.model).lower()
    model = name if name in models.names() else options.model
    return source_asked_for(model).spec(replace(options, model=model))


def load_extractor(
    model: str | Path = "vgg16",
    *,
    precision: str = "auto",
    runtime: str = "auto",
    progress: Say | None = None,
    **options: Any,
) -> Extractor:
    """The extractor of the options, ready to ``embed``; a model that is used for the first time is prepared.

    Args:
        model: and ``options``: as ``make_spec`` takes them.
        precision: and ``runtime``: as ``ExtractorRecipe`` takes them; "auto" is Keras where it finds a GPU.
        progress: gets a line now and then while something takes long; None writes them to stderr.

    Raises:
        ExtractorError: the errors of ``spec_of``; and the model cannot be made or run.
        WeightsNotFoundError: the published weights are neither cached nor can be downloaded.
    """
    asked = ExtractorOptions(model, **options)
    recipe = ExtractorRecipe(spec_of(asked), asked.weights_file, precision, runtime, gpu=True)
    return recipe.load(progress)


@dataclass(frozen=True, slots=True)
class ExtractorRecipe:
    """How to load an extractor, in this process or, pickled, in another.

    Attributes:
        spec: what it is.
        weights_file: where its weights are, if they are the user's own; needed only where it was not exported yet.
        precision: "float32", "bfloat16", or "auto" for what the device does best.
        runtime: "openvino", "keras", or "auto": OpenVINO if it is installed, so that TensorFlow is not loaded into this
            process.
        gpu: whether "auto" is Keras if there is a GPU, which pays when a whole folder is embedded.
    """

    spec: ExtractorSpec
    weights_file: Path | None = None
    precision: str = "auto"
    runtime: str = "auto"
    gpu: bool = False

    @classmethod
    def of_manifest(
        cls, spec: str, weights_file: str | None, precision: str = "auto", runtime: str = "auto"
    ) -> ExtractorRecipe:
        """Of what the manifest of an index says: the spec as JSON, and the path of the weights as text."""
        file = path_from_text(weights_file) if weights_file else None
        return cls(ExtractorSpec.from_json(spec), file, precision, runtime)

    @property
    def needs_export(self) -> bool:
        """Whether OpenVINO certainly runs it, which needs the exported model."""
        return self.runtime != "keras" and not self.gpu

    def load(self, say: Say | None = None) -> Extractor:
        """The extractor; a missing model is prepared in a subprocess. Without ``say``, progress is on stderr.

        Errors as ``load_extractor``; QueryError for features that no model here makes.
        """
        if not self.spec.embeds:
            raise QueryError(self.spec.missing)
        check_name("precision", self.precision, PRECISIONS)
        check_name("runtime", self.runtime, RUNTIMES)
        if self.runtime == "keras" or (self.runtime == "auto" and not self._prefers_openvino()):
            return self._on_keras(say or say_on_stderr)
        remake = functools.partial(self.export, say, suspect=True)
        return runtimes.OpenVINOExtractor(self.spec, self.export(say), precision=self.precision, remake=remake)

    def _prefers_openvino(self) -> bool:
        has_gpu = self.gpu and runtimes.gpu_in_sight() and runtimes.gpu_found()
        return importlib.util.find_spec("openvino") is not None and not has_gpu

    def _on_keras(self, say: Say) -> Extractor:
        source, precision = source_of(self.spec.model), self.precision
        if source.has_own_precision:
            if precision == "bfloat16":
                raise ExtractorError("A custom model runs on Keras as it was saved: leave out --precision.")
            precision = "float32"
        weights = source.locate(self.spec, self.weights_file, say)  # before TensorFlow, which takes seconds to load
        return runtimes.KerasExtractor(
            self.spec, lambda policy: source.build(self.spec, weights, policy), precision=precision
        )

    def export(self, say: Say | None = None, *, suspect: bool = False) -> ExportedModel:
        """The model as OpenVINO reads it; exported first if it is missing or damaged.

        ``suspect``: it could not be loaded, so check its files. The errors of ``ModelSource.locate``, and
        ExtractorError if the export fails.
        """
        model = cache.lookup(self.spec, thorough=suspect)
        if model is not None:
            return model
        say = say or say_on_stderr
        file = source_of(self.spec.model).locate(self.spec, self.weights_file, say)
        with cache.export_lock(say):
            model = cache.lookup(self.spec, thorough=suspect)  # another process may have made it meanwhile
            if model is None:
                model = _exported_now(self.spec, file, say)
        for entry in cache.shrink(self.spec):
            say(f"cleared {entry.title} from the model cache, which no index uses ({file_size(entry.size)})")
        return model


def _exported_now(spec: ExtractorSpec, file: Path, say: Say) -> ExportedModel:
    """Export a model in a subprocess; the caller holds the lock."""
    title, place = spec.network.title.rpartition(",")[0], cache.entry_folder(spec)
    say(f"preparing {title}: the first time only, about half a minute; it is kept in {place}")
    with cache.new_entry(spec) as folder:
        _export_in_subprocess(spec, file, folder, say)
    model = cache.lookup(spec)
    if model is None:
        raise ExtractorError(f"The model that was just written to {place} is damaged.")
    size = sum((model.xml.parent / name).stat().st_size for name in cache.MODEL_FILES)
    say(f"prepared: {file_size(size)} on disk, {model.dimension} numbers a feature")
    return model


def prepare(spec: ExtractorSpec, *, weights_file: Path | None = None, progress: Say | None = None) -> Path:
    """Make the exported model of a spec ahead of its first use; gives its folder. Errors as of its ``export``."""
    return ExtractorRecipe(spec, weights_file).export(progress).xml.parent


def say_on_stderr(text: str) -> None:
    """Progress on stderr, the default."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _export_in_subprocess(spec: ExtractorSpec, file: Path, folder: Path, say: Say) -> None:
    request = {"spec": spec.to_json(), "folder": str(folder), "file": str(file.absolute())}
    worker.run("export", request, say, doing=f"Preparing {spec.title}")
