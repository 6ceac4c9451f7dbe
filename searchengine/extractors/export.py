"""Export one model to OpenVINO. Runs as a process of its own, so that TensorFlow is loaded nowhere else.

``python -m searchengine.extractors.export`` reads one JSON object from stdin, and answers on stdout with one JSON
object a line: any number of ``{"progress": text}``, then ``{"dimension": d}`` or ``{"error": class, "message": text}``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.errors import ExtractorError
from searchengine.extractors import backbones, cache, weights
from searchengine.extractors.backbones import PublishedWeights
from searchengine.extractors.frameworks import export_openvino, import_keras, import_openvino
from searchengine.extractors.spec import ExtractorSpec

if TYPE_CHECKING:
    import keras

# The exported model may differ from Keras by this much of the length of a feature, or it is not used.
_TOLERANCE = 1e-4
_REPORT_SECONDS = 5.0
_SILENCE_SECONDS = 60.0


def load_model(
    spec: ExtractorSpec, file: Path | PublishedWeights, say: Callable[[str], None], *, policy: str = "float32"
) -> keras.Model:
    """(n, h, w, 3) uint8 RGB -> (n, d) float32, not normalised, with the weights of ``file``.

    Downloads the file first if it is yet to be had. ExtractorError, UnknownNameError, WeightsNotFoundError.
    """
    import_keras()
    if isinstance(file, PublishedWeights):
        file = _download(spec, file, say)
    title = backbones.display_name(spec.model)
    line = backbones.BACKBONES[spec.model]
    # Whether the file comes with the classification head is seen only when it is tried.
    tries = [True] if spec.layer in line.head else [False, True] if "notop" in file.name else [True, False]
    failures: list[ExtractorError] = []
    for head in tries:
        model, network = backbones.build(spec, head=head, policy=policy)
        try:
            weights.load_into(network, file, title if head else f"{title} without its head")
        except ExtractorError as error:
            failures.append(error)
        else:
            return model
    if spec.layer in line.head and "notop" in file.name:
        raise ExtractorError(
            f"{failures[0]} It seems to be the file without the classification head, which the layer {spec.layer} "
            "belongs to: give the file with the head."
        )
    raise failures[0]


def _download(spec: ExtractorSpec, wanted: PublishedWeights, say: Callable[[str], None]) -> Path:
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
                    place.name, wanted.url, file_hash=wanted.md5, cache_subdir="models", cache_dir=str(place.parents[1])
                )
            )
        except Exception as error:  # that is what get_file raises
            backbone = backbones.BACKBONES[spec.model]
            raise weights.not_found(backbone, wanted, str(error)) from error
        finally:
            socket.setdefaulttimeout(before)


@contextmanager
def _reporting_growth(place: Path, wanted: PublishedWeights, say: Callable[[str], None]) -> Iterator[None]:
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


def export(spec: ExtractorSpec, file: Path | PublishedWeights, folder: Path, say: Callable[[str], None]) -> int:
    """Write model.xml, model.bin and export.json into ``folder``; gives the dimension.

    The exported model is run once beside the Keras model: ExtractorError where they differ.
    """
    import_openvino()  # before Keras does it, and lets its telemetry in
    model = load_model(spec, file, say)
    say("exporting ...")
    export_openvino(model, folder / cache.MODEL_FILES[0])
    _compare(model, folder / cache.MODEL_FILES[0])
    dimension = int(model.output_shape[-1])
    cache.write_manifest(folder, spec.unnormalized, dimension)
    return dimension


def _compare(model: keras.Model, xml: Path) -> None:
    import numpy as np

    height, width, _ = model.input_shape[1:]
    probe = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    expected = np.asarray(model(probe, training=False))
    if not np.isfinite(expected).all():
        raise ExtractorError("The model gives features that are not numbers: its weights are damaged.")
    compiled = import_openvino().Core().compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({0: probe})[0]
    error = np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12)
    if not error <= _TOLERANCE:
        raise ExtractorError(
            f"The model runs otherwise on OpenVINO than on Keras (relative error {error:.1e}): use --runtime keras."
        )


def main() -> int:
    """Serve the one request on stdin."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no answer

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        request = json.load(sys.stdin)
        spec = ExtractorSpec.from_json(request["spec"])
        file = PublishedWeights(**request["download"]) if request["file"] is None else Path(request["file"])
        answer(dimension=export(spec, file, Path(request["folder"]), lambda text: answer(progress=text)))
    except ExtractorError as error:
        answer(error=type(error).__name__, message=str(error))
        return 1
    except Exception as error:  # whatever it is, the person who waits for it wants a sentence
        answer(error="ExtractorError", message=f"The model could not be exported: {type(error).__name__}: {error}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
