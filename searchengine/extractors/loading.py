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

from searchengine.errors import ExtractorError, QueryError, UnknownNameError
from searchengine.extractors import cache, models, worker
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.custom import CustomSource
from searchengine.extractors.extractor import PRECISIONS, RUNTIMES, Extractor
from searchengine.extractors.layers import LayerInfo
from searchengine.extractors.packaged import PackagedSource
from searchengine.extractors.presets import PresetSource
from searchengine.extractors.published import PublishedSource
from searchengine.extractors.source import ExtractorOptions, ModelLine, ModelSource, is_model_file, is_preset_folder
from searchengine.extractors.spec import NORMALIZATIONS, POOLINGS, ExtractorSpec, check_name, closest_first
from searchengine.files import file_size
from searchengine.progress import Say

# -- which models there are -------------------------------------------------------------------------------------------


@functools.cache
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
        precision: "float32", "bfloat16", or "auto" for what the device does best.
        runtime: "openvino", "keras", or "auto": Keras where it finds a GPU, else OpenVINO.
        progress: gets a line now and then while something takes long; None writes them to stderr.

    Raises:
        ExtractorError: the errors of ``spec_of``; and the model cannot be made or run.
        WeightsNotFoundError: the published weights are neither cached nor can be downloaded.
    """
    asked = ExtractorOptions(model, **options)
    return extractor_from_spec(
        spec_of(asked),
        weights_file=asked.weights_file,
        precision=precision,
        runtime=runtime,
        gpu=True,
        progress=progress,
    )


def extractor_from_spec(
    spec: ExtractorSpec,
    *,
    weights_file: Path | None = None,
    precision: str = "auto",
    runtime: str = "auto",
    gpu: bool = False,
    progress: Say | None = None,
) -> Extractor:
    """The extractor of a spec; the defaults are those of a server.

    ``runtime`` "auto" is OpenVINO if it is installed, so that TensorFlow is not loaded into this process; with ``gpu``
    it is Keras if there is a GPU, which pays when a whole folder is embedded. A missing model is prepared in a
    subprocess. The weights are needed only for that; ``weights_file`` is their place if they are the user's own. Errors
    as ``load_extractor``; QueryError for features that no model here makes.
    """
    if not spec.embeds:
        raise QueryError(spec.missing)
    check_name("precision", precision, PRECISIONS)
    check_name("runtime", runtime, RUNTIMES)
    if runtime == "auto":
        installed = importlib.util.find_spec("openvino") is not None
        runtime = "openvino" if installed and not (gpu and _finds_gpu()) else "keras"
    if runtime == "keras":
        return _on_keras(spec, weights_file, precision, progress)
    from searchengine.extractors.openvino_runtime import OpenVINOExtractor

    def exported(*, suspect: bool = False) -> ExportedModel:
        return exported_model(spec, weights_file=weights_file, suspect=suspect, progress=progress)

    return OpenVINOExtractor(spec, exported(), precision=precision, remake=lambda: exported(suspect=True))


def _finds_gpu() -> bool:
    from searchengine.extractors import keras_runtime

    return keras_runtime.gpu_in_sight() and keras_runtime.gpu_found()


def _on_keras(spec: ExtractorSpec, file: Path | None, precision: str, progress: Say | None) -> Extractor:
    from searchengine.extractors.keras_runtime import KerasExtractor

    source = source_of(spec.model)
    if source.has_own_precision:
        if precision == "bfloat16":
            raise ExtractorError("A custom model runs on Keras as it was saved: leave out --precision.")
        precision = "float32"
    weights = source.locate(spec, file, progress or say_on_stderr)  # before TensorFlow, which takes seconds to load
    return KerasExtractor(spec, lambda policy: source.build(spec, weights, policy), precision=precision)


# -- exporting --------------------------------------------------------------------------------------------------------


def exported_model(
    spec: ExtractorSpec,
    *,
    weights_file: Path | None = None,
    suspect: bool = False,
    progress: Say | None = None,
) -> ExportedModel:
    """The model as OpenVINO reads it; exported first if it is missing or damaged.

    ``suspect``: it could not be loaded, so check its files. The errors of ``ModelSource.locate``, and ExtractorError if
    the export fails.
    """
    model = cache.lookup(spec, thorough=suspect)
    if model is not None:
        return model
    say = progress or say_on_stderr
    file = source_of(spec.model).locate(spec, weights_file, say)
    with cache.export_lock(say):
        model = cache.lookup(spec, thorough=suspect)  # another process may have made it meanwhile
        if model is None:
            title = spec.network.title.rpartition(",")[0]
            say(
                f"preparing {title}: the first time only, about half a minute; it is kept in {cache.entry_folder(spec)}"
            )
            with cache.new_entry(spec) as folder:
                _export_in_subprocess(spec, file, folder, say)
            model = cache.lookup(spec)
            if model is None:
                raise ExtractorError(f"The model that was just written to {cache.entry_folder(spec)} is damaged.")
            size = sum((model.xml.parent / name).stat().st_size for name in cache.MODEL_FILES)
            say(f"prepared: {file_size(size)} on disk, {model.dimension} numbers a feature")
    for entry in cache.shrink(spec):
        say(f"cleared {entry.title} from the model cache, which no index uses ({file_size(entry.size)})")
    return model


def prepare(spec: ExtractorSpec, *, weights_file: Path | None = None, progress: Say | None = None) -> Path:
    """Make the exported model of a spec ahead of its first use; gives its folder. Errors as ``exported_model``."""
    return exported_model(spec, weights_file=weights_file, progress=progress).xml.parent


def say_on_stderr(text: str) -> None:
    """Progress on stderr, the default."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _export_in_subprocess(spec: ExtractorSpec, file: Path, folder: Path, say: Say) -> None:
    request = {"spec": spec.to_json(), "folder": str(folder), "file": str(file.absolute())}
    worker.run("export", request, say, doing=f"Preparing {spec.title}")
