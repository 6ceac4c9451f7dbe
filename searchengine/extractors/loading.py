"""Options as people give them -> spec -> extractor."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

from searchengine.errors import ExtractorError, QueryError, UnknownNameError
from searchengine.extractors import backbones, own, shipped
from searchengine.extractors.extractor import PRECISIONS, RUNTIMES, Extractor
from searchengine.extractors.names import check_name
from searchengine.extractors.preparing import exported_model, say_on_stderr
from searchengine.extractors.spec import NORMALIZATIONS, SEVERAL, ExtractorSpec
from searchengine.extractors.weights import IMAGENET, identify, locate

Progress = Callable[[str], None]


def make_spec(
    model: str | Path = "vgg16",
    *,
    layer: str | Sequence[str] | None = None,
    pooling: str = "none",
    normalize: str = "l2",
    weights: str | Path = IMAGENET,
    preprocessing: str | None = None,
    input_size: int | None = None,
    full_decode: bool = True,
) -> ExtractorSpec:
    """The spec of what is asked for.

    ``model`` is a name or a ``.keras`` file, ``layer`` one or several, ``weights`` "imagenet" or a file.
    ``preprocessing`` (one of ``backbones.PREPROCESSINGS``) and ``input_size`` (pixels, of a model that takes any) are
    for a ``.keras`` file only, into which a process of its own looks the first time; no model is loaded here.
    ``full_decode`` False has large JPEGs decoded at a reduced scale, as the compact model always does.

    UnknownNameError for a wrong name, WeightsNotFoundError if there is no such file, ExtractorError for a file that
    is none, and for flags that do not go together.
    """
    check_name("normalisation", normalize, NORMALIZATIONS)
    check_name("pooling", pooling, backbones.POOLINGS)
    layers = [layer] if isinstance(layer, str) else list(layer or ())
    for name in layers:
        if layers.count(name) > 1:
            raise ExtractorError(f"The layer {name} is asked for twice.")
    if own.is_model_file(str(model)):
        if weights != IMAGENET:
            raise ExtractorError(f"{model} holds its own weights: leave out --weights.")
        return _spec_of_own(
            Path(model).expanduser(), layers, pooling, normalize, preprocessing, input_size, full_decode
        )
    model = str(model).lower()
    try:
        check_name("model", model, backbones.model_names())
    except UnknownNameError as error:
        raise UnknownNameError(f"{error} Or give the path of a .keras file of your own.") from None
    if preprocessing is not None or input_size is not None:
        raise ExtractorError(
            f"{backbones.display_name(model)} has its own preprocessing and input size: --preprocessing and "
            "--input-size are for .keras files."
        )
    file = weights_file(weights)
    if model == backbones.COMPACT:
        if layers or pooling != "none" or file is not None:
            raise ExtractorError(
                "The compact model has its own weights and a single output: leave out --weights, --layer and "
                "--pooling, or choose another --model."
            )
        return shipped.shipped_spec(normalize)
    backbone = backbones.BACKBONES[model]
    layers = layers or [backbone.default_layer]
    known = backbone.layers
    for name in layers:
        check_name(f"layer of {backbone.title}", name, known)
    _check_pooling(pooling, [known[name] for name in layers])
    named = IMAGENET if file is None else identify(file, model)
    return ExtractorSpec(model, SEVERAL.join(layers), pooling, normalize, named, backbone.input_size, full_decode)


def _spec_of_own(
    file: Path,
    layers: list[str],
    pooling: str,
    normalize: str,
    preprocessing: str | None,
    side: int | None,
    full_decode: bool,
) -> ExtractorSpec:
    check_name("preprocessing", preprocessing or "none", backbones.PREPROCESSINGS)
    found = own.describe(file)
    for name in layers:
        check_name(f"layer of {file.name}", name, found.layers)
    if not layers and found.output is None:
        raise ExtractorError(
            f"{file} has several outputs: choose a layer with --layer. It has: {', '.join(found.layers)}."
        )
    chosen = [found.layers[name] for name in layers] or [one for one in (found.output,) if one is not None]
    _check_pooling(pooling, chosen)
    if found.input_size is None and side is None:
        raise ExtractorError(
            f"{file} takes pictures of any size: say with --input-size (pixels) to which they are to be brought, best "
            "that of its training."
        )
    if found.input_size is not None and side is not None and found.input_size != (side, side):
        height, width = found.input_size
        raise ExtractorError(f"{file} takes pictures of {height} x {width} pixels only: leave out --input-size.")
    return ExtractorSpec(
        backbones.OWN,
        SEVERAL.join(layers) or None,
        pooling,
        normalize,
        f"sha256:{found.sha256}",
        found.input_size or (side or 0, side or 0),
        full_decode,
        preprocessing=preprocessing or "none",
    )


def _check_pooling(pooling: str, layers: Sequence[backbones.LayerInfo]) -> None:
    if pooling != "none" and not any(layer.is_spatial for layer in layers):
        names = " and ".join(layer.name or "the output" for layer in layers)
        raise ExtractorError(
            f"There is nothing to pool: {names}: no places in the picture, only numbers. Leave out --pooling, or "
            "choose a convolutional layer."
        )


def feature_size(spec: ExtractorSpec) -> int | None:
    """Numbers in a feature of a spec, without loading the model; None where only the built model tells."""
    if spec.model == backbones.COMPACT:
        return shipped.dimension()
    known = None
    if spec.model == backbones.OWN:
        model = own.known(spec.weights.partition(":")[2])
        if model is not None and model.input_size is not None:
            known = model.layers if spec.layers else {"": model.output}
    elif spec.model in backbones.BACKBONES:
        known = dict(backbones.BACKBONES[spec.model].layers)
    layers = [(known or {}).get(name) for name in spec.layers or ("",)]
    parts = [None if layer is None else layer.numbers(spec.pooling) for layer in layers]
    return None if None in parts else sum(part for part in parts if part is not None)


def weights_file(weights: str | Path, model: str | Path = "") -> Path | None:
    """The file that holds the weights, ``--weights FILE`` or a ``.keras`` file; None for "imagenet"."""
    if own.is_model_file(str(model)):
        return Path(model).expanduser()
    return None if weights == IMAGENET else Path(weights).expanduser()


def load_extractor(
    model: str | Path = "vgg16",
    *,
    layer: str | Sequence[str] | None = None,
    pooling: str = "none",
    normalize: str = "l2",
    weights: str | Path = IMAGENET,
    preprocessing: str | None = None,
    input_size: int | None = None,
    full_decode: bool = True,
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
    spec = make_spec(
        model,
        layer=layer,
        pooling=pooling,
        normalize=normalize,
        weights=weights,
        preprocessing=preprocessing,
        input_size=input_size,
        full_decode=full_decode,
    )
    return extractor_from_spec(
        spec,
        weights_file=weights_file(weights, model),
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
        return KerasExtractor(spec, lambda policy: shipped.built(spec, policy=policy), precision=precision)
    if spec.model == backbones.OWN:
        if precision == "bfloat16":
            raise ExtractorError("A model of one's own runs on Keras as it was saved: leave out --precision.")
        precision = "float32"
    else:
        check_name("model", spec.model, backbones.BACKBONES)
    found = locate(spec, file)  # before TensorFlow, which takes seconds to load
    say = progress or say_on_stderr
    return KerasExtractor(spec, lambda policy: load_model(spec, found, say, policy=policy), precision=precision)
