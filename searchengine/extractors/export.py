"""The tasks of the TensorFlow subprocess: describe a network, download a preset, or export a model to OpenVINO.

With OpenVINO, searching and serving load TensorFlow nowhere else. ``frameworks.run_task`` starts the subprocess:
``python -m searchengine.extractors.export TASK``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.extractors import cache, frameworks, presets
from searchengine.extractors.frameworks import compile_openvino, export_openvino, import_openvino
from searchengine.extractors.loading import source_of
from searchengine.extractors.networks import BuiltModel, TextModel, describe_network
from searchengine.extractors.spec import ExtractorSpec
from searchengine.extractors.text_tower import Tokenizer
from searchengine.progress import Say

_TOLERANCE = 1e-4  # largest accepted difference between OpenVINO and Keras, relative to the length of a feature


def describe(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """Describe the layers of a model.

    ``request`` is ``{"model": name or file, "input_size": pixels or absent, "source": the name in a spec, or absent}``.
    """
    source = source_of(request.get("source", request["model"]))
    return describe_network(source.network(request["model"], request.get("input_size")))


def export(request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """Export the model of ``{"spec", "folder", "file"}`` into the folder; the result is ``{"dimension": d}``.

    The exported model is run once beside the Keras model. Raises ExtractorError if they differ.
    """
    spec, folder = ExtractorSpec.from_json(request["spec"]), Path(request["folder"])
    import_openvino()  # before Keras does it, and lets its telemetry in
    built = source_of(spec.model).build(spec, Path(request["file"]), "float32")
    say("exporting ...")
    export_openvino(built.model, folder / cache.MODEL_FILES[0])
    compare(built, folder / cache.MODEL_FILES[0])
    if built.text is not None:
        export_text(built.text, folder)
    cache.write_manifest(folder, spec.network, built.parts)
    return {"dimension": sum(built.parts)}


def compare(built: BuiltModel, xml: Path) -> None:
    """Run the exported and the Keras model on noise. Raises ExtractorError if they differ."""
    height, width, _ = built.model.input_shape[1:]
    probe = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    _compare(built.model, xml, probe.astype(built.model.inputs[0].dtype), built.parts)


def export_text(text: TextModel, folder: Path) -> None:
    """Export a text tower and run it once beside the Keras model. Raises ExtractorError if they differ."""
    xml, _, rules = (folder / name for name in cache.TEXT_FILES)
    export_openvino(text.model, xml)
    probe = Tokenizer(text.rules)(["a photo of a cat", "two dogs in the snow, far away"])
    _compare(text.model, xml, probe, (int(text.model.output_shape[1]),))
    rules.write_text(text.rules.to_json(), encoding="utf-8")


def _compare(model: Any, xml: Path, probe: NDArray[Any], parts: tuple[int, ...]) -> None:
    expected = np.asarray(model(probe, training=False))
    if not np.isfinite(expected).all():
        raise ExtractorError("The model computes NaN or infinite features: its weights are damaged.")
    exported = compile_openvino(xml)({0: probe})[0]
    ends = np.cumsum(parts)[:-1]
    for ours, keras in zip(np.split(exported, ends, axis=1), np.split(expected, ends, axis=1), strict=True):
        error = np.linalg.norm(ours - keras) / max(float(np.linalg.norm(keras)), 1e-12)
        if not error <= _TOLERANCE:
            raise ExtractorError(
                f"OpenVINO and Keras disagree on this model (relative error {error:.1e}): use --runtime keras."
            )


TASKS: dict[str, frameworks.Task] = {"describe": describe, "export": export, "download": presets.download}

if __name__ == "__main__":
    sys.exit(frameworks.serve_task(TASKS[sys.argv[1]]))
