"""Options as people give them -> spec -> extractor."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from searchengine.errors import ExtractorError, QueryError
from searchengine.extractors import backbones, shipped
from searchengine.extractors.extractor import PRECISIONS, RUNTIMES, Extractor
from searchengine.extractors.names import check_name
from searchengine.extractors.preparing import exported_model, say_on_stderr
from searchengine.extractors.spec import NORMALIZATIONS, ExtractorSpec
from searchengine.extractors.weights import IMAGENET, identify, locate

Progress = Callable[[str], None]


def make_spec(
    model: str = "vgg16",
    *,
    layer: str | None = None,
    pooling: str = "none",
    normalize: str = "l2",
    weights: str | Path = IMAGENET,
) -> ExtractorSpec:
    """The spec of what is asked for; loads no model. ``weights`` is "imagenet" or a file.

    UnknownNameError for a wrong name, WeightsNotFoundError if there is no such file, ExtractorError for a file that
    is no weights file.
    """
    model = check_name("model", model.lower(), backbones.model_names())
    check_name("normalisation", normalize, NORMALIZATIONS)
    check_name("pooling", pooling, backbones.POOLINGS)
    file = weights_file(weights)
    if model == backbones.COMPACT:
        if layer is not None or pooling != "none" or file is not None:
            raise ExtractorError(
                "The compact model has its own weights and a single output: leave out --weights, --layer and "
                "--pooling, or choose another --model."
            )
        return shipped.shipped_spec(normalize)
    backbone = backbones.BACKBONES[model]
    layer = layer or backbone.default_layer
    if backbone.layers:
        check_name(f"layer of {backbone.title}", layer, backbone.layers)
    named = IMAGENET if file is None else identify(file, model)
    return ExtractorSpec(model, layer, pooling, normalize, named, backbone.input_size, full_decode=True)


def weights_file(weights: str | Path) -> Path | None:
    """The file that ``--weights`` names, or None for "imagenet"."""
    return None if weights == IMAGENET else Path(weights).expanduser()


def load_extractor(
    model: str = "vgg16",
    *,
    layer: str | None = None,
    pooling: str = "none",
    normalize: str = "l2",
    weights: str | Path = IMAGENET,
    precision: str = "auto",
    runtime: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Extractor:
    """The extractor that is asked for, ready to ``embed``; the model is prepared first if this is its first time.

    ``runtime`` "auto" is Keras where it finds a GPU, else OpenVINO. ``progress`` gets a line now and then while
    something takes long; None writes them to stderr.

    The errors of ``make_spec``; WeightsNotFoundError if the published weights are neither here nor to be had;
    ExtractorError if the model cannot be made or run.
    """
    spec = make_spec(model, layer=layer, pooling=pooling, normalize=normalize, weights=weights)
    return extractor_from_spec(
        spec,
        weights_file=weights_file(weights),
        precision=precision,
        runtime=runtime,
        threads=threads,
        gpu=True,
        progress=progress,
    )


def extractor_from_spec(
    spec: ExtractorSpec,
    *,
    weights_file: Path | None = None,
    precision: str = "auto",
    runtime: str = "auto",
    threads: int | None = None,
    export: bool = True,
    gpu: bool = False,
    progress: Progress | None = None,
) -> Extractor:
    """The extractor of a spec; by default as a server wants it.

    ``runtime`` "auto" is OpenVINO wherever that is installed, and TensorFlow is not loaded into this process; ``gpu``
    lets it be Keras where a GPU is found, worth its start when there is a whole folder to embed. A missing model is
    prepared in a process of its own, unless ``export`` is False. The weights are needed only for that, and
    ``weights_file`` says where they are if they are one's own. Errors as ``load_extractor``; QueryError for imported
    features, behind which there is no model.
    """
    if not spec.embeds:
        raise QueryError(
            "The features of this index were imported, and no model is known that would turn a picture into such a "
            "feature. Search by an image of the index (search --id) or by a vector (search --vector)."
        )
    check_name("precision", precision, PRECISIONS)
    check_name("runtime", runtime, RUNTIMES)
    if runtime == "auto":
        installed = importlib.util.find_spec("openvino") is not None
        runtime = "openvino" if installed and not (gpu and _gpu_found(spec)) else "keras"
    if runtime == "keras":
        return _on_keras(spec, weights_file, precision, progress)
    return _on_openvino(spec, weights_file, precision, threads=threads, export=export, progress=progress)


def _gpu_found(spec: ExtractorSpec) -> bool:
    from searchengine.extractors import keras_runtime

    # The compact model is quicker on the processor than TensorFlow starts.
    return spec.model != backbones.COMPACT and keras_runtime.gpu_in_sight() and keras_runtime.gpu_found()


def _on_openvino(
    spec: ExtractorSpec,
    file: Path | None,
    precision: str,
    *,
    threads: int | None,
    export: bool,
    progress: Progress | None,
) -> Extractor:
    from searchengine.extractors.openvino_runtime import OpenVINOExtractor

    model = exported_model(spec, weights_file=file, export=export, progress=progress)
    return OpenVINOExtractor(
        spec,
        model,
        precision=precision,
        threads=threads,
        remake=lambda: exported_model(spec, weights_file=file, export=export, suspect=True, progress=progress),
    )


def _on_keras(spec: ExtractorSpec, file: Path | None, precision: str, progress: Progress | None) -> Extractor:
    from searchengine.extractors.export import load_model
    from searchengine.extractors.keras_runtime import KerasExtractor

    if spec.model == backbones.COMPACT:
        return KerasExtractor(spec, lambda policy: shipped.keras_model(spec, policy=policy), precision=precision)
    check_name("model", spec.model, backbones.BACKBONES)
    found = locate(spec, file)  # before TensorFlow, which takes seconds to load
    say = progress or say_on_stderr
    return KerasExtractor(spec, lambda policy: load_model(spec, found, say, policy=policy), precision=precision)
