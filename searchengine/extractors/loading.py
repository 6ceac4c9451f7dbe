"""From user options to a spec, an exported model and an extractor; and the list of available models.

``source_of`` is the only place that chooses the ``ModelSource`` of a model.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from searchengine.errors import ExtractorError, QueryError, UnknownNameError, check_name, closest_first
from searchengine.extractors import cache, frameworks, models, runtimes
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.custom import CustomSource
from searchengine.extractors.extractor import PRECISIONS, RUNTIMES, Extractor
from searchengine.extractors.networks import LayerInfo
from searchengine.extractors.packaged import PackagedSource
from searchengine.extractors.presets import PresetSource
from searchengine.extractors.published import PublishedSource
from searchengine.extractors.source import ExtractorOptions, ModelSource, is_model_file, is_preset_folder
from searchengine.extractors.spec import NORMALIZATIONS, POOLINGS, ExtractorSpec
from searchengine.files import file_size, path_from_text
from searchengine.progress import Say

# -- available models --------------------------------------------------------------------------------------------------


@functools.cache
def source_of(model: str) -> ModelSource:
    """Return the source of a model by its name in a spec. Raises ExtractorError if this version has no such model."""
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


def find_source(model: str | Path) -> ModelSource:
    """Return the source of a model as a user names it: a name, a file, a folder or an address.

    Raises UnknownNameError if there is no such model.
    """
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
        f"There is no model {name!r}. Choose one of: {choice}. Or give the path of your own .keras file or "
        "KerasHub preset."
    )


@dataclass(frozen=True, slots=True)
class ModelLayers:
    """A model with all of its layers; ``default`` is the layer used unless another is chosen."""

    title: str
    input_size: tuple[int, int] | None
    preprocessing: str
    parameters: int
    default: str
    layers: list[LayerInfo]


def list_models() -> list[tuple[models.Network, str]]:
    """Return every named model (packaged, of keras.applications, of KerasHub), and where its weights are."""
    return [line for source in (PackagedSource(), PublishedSource(), PresetSource()) for line in source.list_models()]


def layers_of(model: str) -> ModelLayers:
    """Return the layers of a named model or a ``.keras`` file. Takes some seconds the first time.

    Raises UnknownNameError, and for a file WeightsNotFoundError or ExtractorError.
    """
    name = model if is_model_file(model) else model.lower()
    source = find_source(name)
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
    """Call ``spec_of`` with options given by their names in ``ExtractorOptions``."""
    return spec_of(ExtractorOptions(model, **options))


def spec_of(options: ExtractorOptions) -> ExtractorSpec:
    """Return the spec of some options.

    If the layers of the model are needed and not cached, a subprocess inspects the model; none is loaded in this
    process.

    Raises:
        UnknownNameError: no such model, layer or option.
        WeightsNotFoundError: no such file.
        ExtractorError: a file of the wrong kind, or options that do not go together.
    """
    check_name("normalisation", options.normalize, NORMALIZATIONS)
    check_name("pooling", options.pooling, POOLINGS)
    for name in options.layers:
        if options.layers.count(name) > 1:
            raise ExtractorError(f"The layer {name} is given twice. Name each layer once.")
    name = str(options.model).lower()
    model = name if name in models.names() else options.model
    return find_source(model).spec(replace(options, model=model))


def load_extractor(
    model: str | Path = "vgg16",
    *,
    precision: str = "auto",
    runtime: str = "auto",
    progress: Say | None = None,
    **options: Any,
) -> Extractor:
    """Return an extractor that is ready to ``embed``. A model that is used for the first time is prepared.

    Args:
        model: and ``options``: as ``make_spec`` takes them.
        precision: as ``ExtractorRecipe`` takes it.
        runtime: as ``ExtractorRecipe`` takes it, except that "auto" selects Keras if there is a GPU.
        progress: called with a line of text now and then during long work; None writes the lines to stderr.

    Raises:
        ExtractorError: as for ``spec_of``, or the model cannot be exported or run.
        WeightsNotFoundError: the published weights are neither cached nor downloadable.
    """
    chosen = ExtractorOptions(model, **options)
    return ExtractorRecipe(spec_of(chosen), chosen.weights_file, precision, runtime, gpu=True).load(progress)


@dataclass(frozen=True, slots=True)
class ExtractorRecipe:
    """How to load an extractor, in this process or, pickled, in another one.

    Attributes:
        spec: the extractor.
        weights_file: the user's own weights file, if any; needed only if the model is not exported yet.
        precision: "float32", "bfloat16", or "auto" for the best that the device offers.
        runtime: "openvino", "keras", or "auto", which selects OpenVINO if it is installed, so that TensorFlow is not
            loaded into this process.
        gpu: whether "auto" selects Keras if there is a GPU, which pays off when a whole folder is embedded.
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
        """Create a recipe from an index's manifest: the spec as JSON and the path of the weights as text."""
        file = path_from_text(weights_file) if weights_file else None
        return cls(ExtractorSpec.from_json(spec), file, precision, runtime)

    @property
    def needs_export(self) -> bool:
        """Whether the extractor is certain to run on OpenVINO, which needs an exported model."""
        return self.runtime != "keras" and not self.gpu

    def load(self, say: Say | None = None) -> Extractor:
        """Return the extractor, preparing a missing model in a subprocess. Without ``say``, progress goes to stderr.

        Raises the errors of ``load_extractor``, and QueryError if no model can compute such features.
        """
        if not self.spec.embeds:
            raise QueryError(self.spec.missing)
        check_name("precision", self.precision, PRECISIONS)
        check_name("runtime", self.runtime, RUNTIMES)
        if self.runtime == "keras" or (self.runtime == "auto" and not self._prefers_openvino()):
            return self._on_keras(say or say_on_stderr)
        export = functools.partial(self.export, say)
        return runtimes.OpenVINOExtractor(self.spec, export(), export, precision=self.precision)

    def _prefers_openvino(self) -> bool:
        has_gpu = self.gpu and runtimes.gpu_in_sight() and runtimes.gpu_found()
        return importlib.util.find_spec("openvino") is not None and not has_gpu

    def _on_keras(self, say: Say) -> Extractor:
        source, precision = source_of(self.spec.model), self.precision
        if source.has_own_precision:
            if precision == "bfloat16":
                raise ExtractorError("On Keras, a custom model runs as it was saved. Leave out --precision.")
            precision = "float32"
        weights = source.locate(self.spec, self.weights_file, say)  # first, because TensorFlow takes seconds to load
        return runtimes.KerasExtractor(
            self.spec, lambda policy: source.build(self.spec, weights, policy), precision=precision
        )

    def export(self, say: Say | None = None) -> ExportedModel:
        """Return the model as OpenVINO reads it, exporting it first if it is missing or damaged.

        Raises the errors of ``ModelSource.locate``, and ExtractorError if the export fails.
        """
        model = cache.lookup(self.spec)
        if model is not None:
            return model
        say = say or say_on_stderr
        file = source_of(self.spec.model).locate(self.spec, self.weights_file, say)
        with cache.export_lock(say):
            model = cache.lookup(self.spec)  # another process may have exported it meanwhile
            if model is None:
                model = _export_now(self.spec, file, say)
        for entry in cache.shrink(self.spec):
            say(f"removed {entry.title} from the model cache: no index uses it ({file_size(entry.size)})")
        return model


def _export_now(spec: ExtractorSpec, file: Path, say: Say) -> ExportedModel:
    """Export a model in a subprocess. The caller holds the export lock."""
    title, path = spec.network.title.rpartition(",")[0], cache.entry_folder(spec)
    say(f"preparing {title}: the first time only, about half a minute; the result is kept in {path}")
    with cache.new_entry(spec) as folder:
        request = {"spec": spec.to_json(), "folder": str(folder), "file": str(file.absolute())}
        frameworks.run_task("export", request, say, doing=f"Preparing {spec.title}")
    model = cache.lookup(spec)
    if model is None:
        raise ExtractorError(f"The model just written to {path} is damaged. Check the disk, then try again.")
    size = sum((model.xml.parent / name).stat().st_size for name in cache.MODEL_FILES)
    say(f"prepared: {file_size(size)} on disk, {model.dimension} numbers per feature")
    return model


def say_on_stderr(text: str) -> None:
    """Write a line of progress to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
