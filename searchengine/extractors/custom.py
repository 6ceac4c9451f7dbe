"""Models in ``.keras`` files, described and loaded without running any code they contain.

A ``.keras`` file is a ZIP archive whose ``config.json`` names the layers. The configuration is read first: layers that
are not part of Keras, or that would run a program, are refused by name before TensorFlow is loaded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.errors import ExtractorError, check_name
from searchengine.extractors import cache, networks
from searchengine.extractors.frameworks import first_line, import_keras, linked
from searchengine.extractors.models import CUSTOM
from searchengine.extractors.networks import PREPROCESSINGS, BuiltModel, NetworkInfo, check_pooling, cut
from searchengine.extractors.source import HDF5_SIGNATURE, ExtractorOptions, Head, ModelSource
from searchengine.extractors.spec import IMAGENET, SEVERAL, ExtractorSpec
from searchengine.files import parse_json
from searchengine.progress import Say

if TYPE_CHECKING:
    import keras

_ZIP_SIGNATURE = b"PK"
_MAX_CONFIG = 64 << 20  # bytes; NASNetLarge, the largest network of keras.applications, has 2 MB
# Keras layers that run a program from the file, or fetch one from elsewhere.
_PROGRAMS = {"Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"}
_SAVE_AGAIN = "Load it where it was made, and save it again with Keras 3: model.save('mine.keras')."


class CustomSource(ModelSource):
    """See ``ModelSource``. A spec identifies the file by its hash."""

    has_own_precision = True

    def preprocessing(self, model: str) -> str:
        return "its own, or --preprocessing"

    def head(self, spec: ExtractorSpec, weights_file: Path | None, say: Say | None) -> Head:
        raise ExtractorError(
            "This index was made with a custom model, whose classes are unknown, so it cannot be searched by words."
        )

    def describe(self, model: str | Path, input_size: int | None = None) -> NetworkInfo:
        file = Path(model).expanduser()
        key = f"custom-{identify(file)}"
        return networks.describe(key, {"model": str(file.absolute()), "source": CUSTOM}, title=file.name)

    def network(self, model: str, input_size: int | None) -> keras.Model:
        return load(Path(model))

    def options(self, spec: ExtractorSpec, weights_file: Path | None) -> ExtractorOptions:
        file = weights_file or cache.find_weights(spec, flag="--model")
        return replace(super().options(spec, file), model=file, weights=IMAGENET)

    def spec(self, options: ExtractorOptions) -> ExtractorSpec:
        file = Path(options.model).expanduser()
        if options.weights != IMAGENET:
            raise ExtractorError(f"{file} contains its weights. Leave out --weights.")
        check_name("preprocessing", options.preprocessing or "none", PREPROCESSINGS)
        network = self.describe(file)
        for name in options.layers:
            check_name(f"layer of {file.name}", name, network.layers)
        if not options.layers and network.output is None:
            raise ExtractorError(
                f"{file} has several outputs. Choose a layer with --layer: {', '.join(network.layers)}."
            )
        outputs = [network.output] if network.output is not None else []
        check_pooling(options.pooling, [network.layers[name] for name in options.layers] or outputs, file.name)
        return ExtractorSpec(
            CUSTOM,
            SEVERAL.join(options.layers) or None,
            options.pooling,
            options.normalize,
            f"sha256:{identify(file)}",
            _input_size(file, network, options.input_size),
            options.full_decode is not False,
            preprocessing=options.preprocessing or "none",
        )

    def locate(self, spec: ExtractorSpec, weights_file: Path | None, say: Say) -> Path:
        if weights_file is None:
            return cache.find_weights(spec, flag="--model")
        cache.check_weights(weights_file, f"sha256:{identify(weights_file)}", spec, flag="--model")
        return weights_file

    def build(self, spec: ExtractorSpec, weights: Path, policy: str) -> BuiltModel:
        """See ``ModelSource.build``. The model computes in the dtypes it was saved with, whatever the policy."""
        return cut(load(weights), spec, spec.preprocessing or "none", f"the model {weights.name}")


def _input_size(file: Path, network: NetworkInfo, side: int | None) -> tuple[int, int]:
    if network.input_size is None:
        if side is None:
            raise ExtractorError(
                f"{file} takes pictures of any size. Choose one with --input-size PIXELS, preferably the size that it "
                "was trained on."
            )
        return side, side
    if side is not None and network.input_size != (side, side):
        height, width = network.input_size
        raise ExtractorError(f"{file} only takes pictures of {height} x {width} pixels. Leave out --input-size.")
    return network.input_size


def identify(file: Path) -> str:
    """Return the SHA-256 of a ``.keras`` file.

    Raises WeightsNotFoundError if there is no such file, ExtractorError if it is not a ``.keras`` file.
    """
    signature = cache.read_signature(file, flag="--model")
    if signature == HDF5_SIGNATURE:
        raise ExtractorError(
            f"{file} is HDF5 (.h5). If it is a whole model, it was saved in the format of Keras 2, which can contain "
            f"programs and is not opened. {_SAVE_AGAIN} If it contains weights only, give it with --weights, and name "
            "the network that they belong to with --model."
        )
    if not signature.startswith(_ZIP_SIGNATURE):
        raise ExtractorError(
            f"{file} is not a model file of Keras 3, as model.save('mine.keras') writes it. Give a weights file with "
            "--weights, and name the network that it belongs to with --model."
        )
    return cache.remembered_hashes(file)["sha256"]


def load(file: Path) -> keras.Model:
    """Load the network in a file without running any code from it.

    Raises ExtractorError if the file needs code that is not part of Keras, or if the network does not take RGB
    pictures.
    """
    check_config(file)
    keras = import_keras()
    try:
        with linked(file, ".keras") as link:  # not .h5, which Keras trusts more
            network = keras.saving.load_model(link, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds
        raise ExtractorError(f"{file} cannot be loaded by Keras {keras.__version__}: {first_line(error)}.") from error
    inputs = getattr(network, "inputs", None)
    if not inputs or not getattr(network, "outputs", None):
        raise ExtractorError(f"{file} has no fixed inputs. Save a functional or Sequential model instead.")
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ExtractorError(
            f"{file} takes inputs of shape {shapes}. It must take one batch of RGB pictures: (n, height, width, 3)."
        )
    return network


def check_config(file: Path) -> None:
    """Check the configuration in a file. Raises ExtractorError, naming the layer, if one is not part of Keras 3."""
    try:
        with zipfile.ZipFile(file) as archive:
            metadata, config = (_read_json(archive, name) for name in ("metadata.json", "config.json"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ExtractorError(f"{file} cannot be read as a .keras file: it is damaged or cut short.") from error
    version = str(metadata.get("keras_version", ""))
    if version.startswith("2.") or str(config.get("module", "")).startswith("tf_keras"):
        raise ExtractorError(f"{file} was saved by Keras 2 ({version}), which Keras 3 does not load. {_SAVE_AGAIN}")
    # The compile configuration may hold custom losses; it is not loaded (compile=False).
    for entry in _objects({**config, "compile_config": None}):
        if _runs_a_program(entry):
            raise ExtractorError(
                f"{file} contains {_title(entry)}: a program, which would be run unseen. Save the model without it; "
                "most can be replaced by a layer (Rescaling, Normalization, UnitNormalization) or a keras.ops call."
            )
        if not _is_of(entry, ("keras", "builtins")):
            raise ExtractorError(
                f"{file} contains {_title(entry)}, whose code is neither part of Keras nor in the file. Build the "
                "model without it, copy the weights over, and save it again: model.save('mine.keras')."
            )


def foreign_objects(config: Any, packages: Sequence[str]) -> list[str]:
    """List the objects of a saved configuration that are not from these packages or would run a program."""
    return [_title(entry) for entry in _objects(config) if _runs_a_program(entry) or not _is_of(entry, packages)]


def _title(entry: Mapping[str, Any]) -> str:
    kind, inner = str(entry["class_name"]), entry.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    return f"the layer {name!r} ({kind})" if name else kind


def _runs_a_program(entry: Mapping[str, Any]) -> bool:
    return str(entry["class_name"]).rpartition(".")[2] in _PROGRAMS


def _is_of(entry: Mapping[str, Any], packages: Sequence[str]) -> bool:
    module = str(entry.get("module") or "keras").partition(".")[0]
    registered = str(entry.get("registered_name") or "").rpartition(">")[0]  # "package>class"
    return module in packages and (not registered or registered in packages)


def _read_json(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if archive.getinfo(name).file_size > _MAX_CONFIG:
        raise ValueError(f"{name} is too large")
    values = parse_json(archive.read(name))
    if not isinstance(values, dict):
        raise ValueError(f"{name} is not an object")
    return values


def _objects(config: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object of a saved model at any depth, which is every dict with a class name."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
