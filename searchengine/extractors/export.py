"""Export one model to OpenVINO. Runs as a process of its own, so that TensorFlow is loaded nowhere else.

``python -m searchengine.extractors.export`` reads one JSON object from stdin, and answers on stdout with one JSON
object a line: any number of ``{"progress": text}``, then ``{"dimension": d}`` or ``{"error": class, "message": text}``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from searchengine.errors import ExtractorError
from searchengine.extractors import backbones, building, cache, own, weights
from searchengine.extractors.asking import Say, serve
from searchengine.extractors.backbones import Backbone, PublishedWeights
from searchengine.extractors.building import Built
from searchengine.extractors.frameworks import export_openvino, import_keras, import_openvino
from searchengine.extractors.spec import ExtractorSpec

# The exported model may differ from Keras by this much of the length of a feature, or it is not used.
_TOLERANCE = 1e-4
_REPORT_SECONDS = 5.0
_SILENCE_SECONDS = 60.0


def load_model(spec: ExtractorSpec, file: Path | PublishedWeights, say: Say, *, policy: str = "float32") -> Built:
    """The model of a spec with the weights of ``file``, which is downloaded first if it is yet to be had.

    ``policy`` does not reach a model of one's own. ExtractorError, UnknownNameError, WeightsNotFoundError.
    """
    import_keras()
    if isinstance(file, PublishedWeights):
        file = _download(spec, file, say)
    if spec.model == backbones.OWN:
        return own.build(spec, file)
    line = backbones.BACKBONES[spec.model]
    if spec.weights == weights.IMAGENET:
        return _with_published(spec, line, file, policy)
    return _with_own_weights(spec, line, file, policy)


def _with_published(spec: ExtractorSpec, line: Backbone, file: Path, policy: str) -> Built:
    # Without a digest it can only be the file that Keras cached under this name.
    head = line.with_head.is_one_of(cache.remembered_hashes(file)) or file.name == line.with_head.file_name
    built = building.build(spec, head=head, policy=policy)
    weights.load_into(built.network, file, line.title, count=False)
    weights.mend_published(built.network, line)
    return built


def _with_own_weights(spec: ExtractorSpec, line: Backbone, file: Path, policy: str) -> Built:
    # Whether the file comes with the classification head is seen only when it is tried.
    needed = bool(line.head.intersection(spec.layers))
    tries = [True] if needed else [False, True] if "notop" in file.name else [True, False]
    failures: list[ExtractorError] = []
    for head in tries:
        built = building.build(spec, head=head, policy=policy)
        try:
            weights.load_into(built.network, file, line.title if head else f"{line.title} without its head")
        except ExtractorError as error:
            failures.append(error)
        else:
            return built
    if needed and "notop" in file.name:
        raise ExtractorError(
            f"{failures[0]} It seems to be the file without the classification head, which the layer {spec.layer} "
            "belongs to: give the file with the head."
        )
    raise failures[0]


def _download(spec: ExtractorSpec, wanted: PublishedWeights, say: Say) -> Path:
    import socket

    import keras

    place = weights.keras_folder() / wanted.file_name
    place.parent.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_SECONDS)  # Keras itself would wait for ever
    say(f"downloading {wanted.url} ({wanted.megabytes} MB), once ...")
    with _reporting_growth(place, wanted, say):
        try:
            return Path(
                keras.utils.get_file(
                    place.name,
                    wanted.url,
                    file_hash=wanted.digest,
                    cache_subdir="models",
                    cache_dir=str(place.parents[1]),
                )
            )
        except Exception as error:  # that is what get_file raises
            backbone = backbones.BACKBONES[spec.model]
            raise weights.not_found(backbone, wanted, str(error)) from error
        finally:
            socket.setdefaulttimeout(before)


@contextmanager
def _reporting_growth(place: Path, wanted: PublishedWeights, say: Say) -> Iterator[None]:
    done = threading.Event()

    def report() -> None:
        while not done.wait(_REPORT_SECONDS):
            with suppress(OSError):
                say(f"downloaded {place.stat().st_size // 10**6} of {wanted.megabytes} MB")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def export(spec: ExtractorSpec, file: Path | PublishedWeights, folder: Path, say: Say) -> int:
    """Write model.xml, model.bin and export.json into ``folder``; gives the dimension.

    The exported model is run once beside the Keras model: ExtractorError where they differ.
    """
    import_openvino()  # before Keras does it, and lets its telemetry in
    built = load_model(spec, file, say)
    say("exporting ...")
    export_openvino(built.model, folder / cache.MODEL_FILES[0])
    _compare(built, folder / cache.MODEL_FILES[0])
    cache.write_manifest(folder, spec.network, built.parts)
    return sum(built.parts)


def _compare(built: Built, xml: Path) -> None:
    import numpy as np

    height, width, _ = built.model.input_shape[1:]
    probe = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    expected = np.asarray(built.model(probe, training=False))
    if not np.isfinite(expected).all():
        raise ExtractorError("The model gives features that are not numbers: its weights are damaged.")
    compiled = import_openvino().Core().compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({0: probe})[0]
    ends = np.cumsum(built.parts)[:-1]
    for one, other in zip(np.split(found, ends, axis=1), np.split(expected, ends, axis=1), strict=True):
        error = np.linalg.norm(one - other) / max(float(np.linalg.norm(other)), 1e-12)
        if not error <= _TOLERANCE:
            raise ExtractorError(
                f"The model runs otherwise on OpenVINO than on Keras (relative error {error:.1e}): use --runtime keras."
            )


def _answer(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    spec = ExtractorSpec.from_json(request["spec"])
    file = PublishedWeights(**request["download"]) if request["file"] is None else Path(request["file"])
    return {"dimension": export(spec, file, Path(request["folder"]), say)}


if __name__ == "__main__":
    sys.exit(serve(_answer))
