"""From a trained distiller to the files that the package ships.

Averaged weights, the statistics of batch normalisation measured afresh for them, both folded into the convolutions,
float16, an OpenVINO graph, and a card with the hash of each file.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from searchengine.extractors.compact import (
    CARD,
    GRAPH,
    GRAPH_WEIGHTS,
    KERAS_WEIGHTS,
    CompactShape,
    build_compact,
    fold_batch_norm,
    named_weights,
    set_named_weights,
)
from searchengine.learning.photos import Augmentation, Photos, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Weights = Mapping[str, npt.NDArray[np.float32]]

WHITENING = 0.25


def recalibrated(
    student: Any, photos: Photos, *, size: int, images: int = 4096, batch: int = 128, seed: int = 0
) -> Weights:
    """The student's weights with moving means and variances measured for these very weights, at this size.

    Running averages kept while weights move fit neither their average nor another picture size. Each batch is passed
    in training mode with the moving statistics of one batch, and the batches are averaged in float64.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(photos.pixels))[:images]
    mild = Augmentation(least_area=0.7, tilt=0.0, blur=0.0, grey=0.02, colour=0.1)
    norms = [layer for layer in student.layers if hasattr(layer, "moving_mean")]
    kept = [layer.momentum for layer in norms]
    sums: dict[str, npt.NDArray[np.float64]] = {}
    batches = [rows[start : start + batch] for start in range(0, len(rows) - batch + 1, batch)] or [rows]
    for layer in norms:
        layer.momentum = 0.0
    for chosen in batches:
        pictures = mild.batch([photos.pixels[row] for row in chosen], size, rng)
        student(pictures, training=True)  # momentum 0: the moving statistics become those of this batch
        for layer in norms:
            for part in ("moving_mean", "moving_variance"):
                name = f"{layer.name}/{part}"
                value = np.asarray(getattr(layer, part), dtype=np.float64)
                sums[name] = sums.get(name, np.zeros_like(value)) + value / len(batches)
    for layer, momentum in zip(norms, kept, strict=True):
        layer.momentum = momentum
    return named_weights(student) | {name: value.astype(np.float32) for name, value in sums.items()}


def whitening(
    features: npt.NDArray[np.float32], power: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Kernel (d, d) and bias (d,) of the linear map that centres features and evens out their directions.

    With covariance V diag(e) V^T the kernel is V diag(e^(-power / 2)) V^T, scaled to keep the mean variance: power 0
    only centres, power 1 whitens in full, which also raises the noise of the weakest directions. Axes below a
    thousandth of the strongest are treated as being of that strength.
    """
    wide = features.astype(np.float64)
    mean = wide.mean(axis=0)
    strengths, axes = np.linalg.eigh(np.cov(wide, rowvar=False))
    strengths = np.maximum(strengths, strengths.max() * 1e-3)
    kernel = (axes * strengths ** (-power / 2)) @ axes.T
    kernel *= np.sqrt(strengths.sum() / (strengths ** (1 - power)).sum())
    return kernel.astype(np.float32), (-mean @ kernel).astype(np.float32)


def with_whitening(
    folded: Weights, photos: Photos, shape: CompactShape, *, size: int, power: float, images: int = 4096
) -> Weights:
    """Folded weights and, measured on photos, those of the layer "whitening"."""
    model = build_compact(size, shape, folded=True)
    set_named_weights(model, folded)
    rows = np.random.default_rng(1).permutation(len(photos.pixels))[:images]
    features = []
    for start in range(0, len(rows), 128):
        plain = [Image.fromarray(photos.pixels[row]) for row in rows[start : start + 128]]
        squares = [np.asarray(p.resize((size, size), Image.Resampling.BICUBIC)) for p in plain]
        features.append(np.asarray(model(np.stack(squares))))
    kernel, bias = whitening(np.concatenate(features), power)
    return {**folded, "whitening/kernel": kernel, "whitening/bias": bias}


def half_precision(weights: Weights) -> dict[str, npt.NDArray[np.float16]]:
    """Float16, as shipped; raises ValueError if a weight does not fit."""
    halves = {name: value.astype(np.float16) for name, value in weights.items()}
    for name, value in halves.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} does not fit float16")
    return halves


def openvino_files(model: Any) -> tuple[bytes, bytes]:
    """The Keras model as an OpenVINO graph with float16 weights: (contents of .xml, contents of .bin).

    The number of pictures stays open; the size is fixed.
    """
    from searchengine.extractors.frameworks import export_openvino, import_openvino

    ov = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / GRAPH
        export_openvino(model, graph)
        read = ov.Core().read_model(graph)
        read.inputs[0].get_tensor().set_names({"pictures"})
        read.outputs[0].get_tensor().set_names({"feature"})
        half = Path(folder) / "half.xml"
        ov.save_model(read, half, compress_to_fp16=True)
        return half.read_bytes(), half.with_suffix(".bin").read_bytes()


def write_package(
    weights: Weights, shape: CompactShape, folder: Path, *, size: int, summary: Mapping[str, Any]
) -> None:
    """Write the shipped form of folded and whitened weights to `folder`; each file is replaced whole, the card last."""
    halves = half_precision(weights)
    model = build_compact(size, shape, folded=True, whitened=True)
    set_named_weights(model, halves)
    graph, graph_weights = openvino_files(model)
    stream = io.BytesIO()
    np.savez_compressed(stream, **halves)  # type: ignore[arg-type]
    files = {GRAPH_WEIGHTS: graph_weights, GRAPH: graph, KERAS_WEIGHTS: stream.getvalue()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomically(folder / name, data)
    card = {
        "name": "compact",
        "size": size,
        "dimension": shape.dimension,
        "shape": asdict(shape),
        "input": "uint8 RGB (n, size, size, 3); the whole picture squashed to size x size, bicubic",
        "output": f"float32 (n, {shape.dimension}), not L2-normalised",
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        "training": dict(summary),
    }
    write_atomically(folder / CARD, (json.dumps(card, indent=2) + "\n").encode())


def package(
    distiller: Any, photos: Photos, shape: CompactShape, folder: Path, *, size: int, summary: Mapping[str, Any]
) -> None:
    """Export a trained distiller. Its weights are replaced by their running average."""
    distiller.optimizer.finalize_variable_values(distiller.trainable_variables)
    folded = fold_batch_norm(recalibrated(distiller.student, photos, size=size))
    weights = with_whitening(folded, photos, shape, size=size, power=WHITENING)
    write_package(weights, shape, folder, size=size, summary={**summary, "whitening": WHITENING})
