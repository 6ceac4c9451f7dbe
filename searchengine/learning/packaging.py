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

from searchengine.errors import SearchEngineError
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

    from searchengine.learning.photos import Pixels

    Weights = Mapping[str, npt.NDArray[np.float32]]

WHITENING = 0.5


def recalibrated(
    student: Any, pictures: Pixels, *, size: int, images: int = 4096, batch: int = 128, seed: int = 0
) -> Weights:
    """The student's weights with moving means and variances measured for these very weights, at this size.

    Running averages kept while weights move fit neither their average nor another picture size. Each batch is passed
    in training mode with the moving statistics of one batch, and the batches are averaged in float64.
    """
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(pictures))[:images]
    mild = Augmentation(least_area=0.7, tilt=0.0, blur=0.0, grey=0.02, colour=0.1)
    norms = [layer for layer in student.layers if hasattr(layer, "moving_mean")]
    kept = [layer.momentum for layer in norms]
    sums: dict[str, npt.NDArray[np.float64]] = {}
    batches = [rows[start : start + batch] for start in range(0, len(rows) - batch + 1, batch)] or [rows]
    for layer in norms:
        layer.momentum = 0.0
    for chosen in batches:
        drawn = mild.batch([pictures[row] for row in chosen], size, rng)
        student(drawn, training=True)  # momentum 0: the moving statistics become those of this batch
        for layer in norms:
            for part in ("moving_mean", "moving_variance"):
                name = f"{layer.name}/{part}"
                value = np.asarray(getattr(layer, part), dtype=np.float64)
                sums[name] = sums.get(name, np.zeros_like(value)) + value / len(batches)
    for layer, momentum in zip(norms, kept, strict=True):
        layer.momentum = momentum
    return named_weights(student) | {name: value.astype(np.float32) for name, value in sums.items()}


def whitening(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], power: float, *, shrinkage: float = 0.1
) -> npt.NDArray[np.float32]:
    """Kernel (d, d) of the linear map that evens out how features (n, d) vary within classes.

    With the within-class covariance V diag(e) V^T the kernel is V diag(e^(-power / 2)) V^T, scaled to keep the mean
    variance: power 0 changes nothing, power 1 whitens in full (as in Mikolajczyk and Matas 2007,
    https://doi.org/10.1109/ICCV.2007.4408871, who find it by matching pairs), which also raises the noise of the
    weakest directions. The covariance is shrunk by `shrinkage` towards a multiple of the identity. Raises
    SearchEngineError where no class has two features that differ.
    """
    wide = features.astype(np.float64)
    _, group = np.unique(labels, return_inverse=True)
    centres = np.zeros((group.max() + 1, wide.shape[1]))
    np.add.at(centres, group, wide)
    centres /= np.bincount(group)[:, None]
    within = wide - centres[group]  # (n, d)
    strengths, axes = np.linalg.eigh(within.T @ within / len(within))
    strengths = (1 - shrinkage) * np.maximum(strengths, 0) + shrinkage * strengths.mean()
    if strengths.max() <= 0:
        raise SearchEngineError("no class has two photos that differ: there is nothing to whiten the features by")
    kernel = (axes * strengths ** (-power / 2)) @ axes.T
    kernel *= np.sqrt(strengths.sum() / (strengths ** (1 - power)).sum())
    return np.asarray(kernel, np.float32)


def principal_axes(features: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Orthonormal axes (d, count) of the largest variance of features (n, d), the largest first."""
    centred = features.astype(np.float64) - features.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return np.asarray(axes[:, : -count - 1 : -1], np.float32)


def with_whitening(
    folded: Weights,
    photos: Photos,
    shape: CompactShape,
    *,
    power: float,
    images: int = 8192,
    centre: Pixels | None = None,
) -> Weights:
    """Folded weights and, measured on photos of their own size, those of the layer "whitening".

    Features of more dimensions than the shape is to ship are brought down to the directions of their largest variance.
    `centre` are pictures (n, s, s, 3) uint8 whose mean feature becomes the origin, in the place of the photos'.
    """
    model = build_compact(None, shape, folded=True)
    set_named_weights(model, folded)

    def features_of(pictures: Pixels) -> npt.NDArray[np.float32]:
        return np.concatenate([np.asarray(model(pictures[i : i + 128])) for i in range(0, len(pictures), 128)])

    rows = np.sort(np.random.default_rng(1).permutation(len(photos.pixels))[:images])
    features = features_of(photos.pixels[rows])
    kernel = whitening(features, photos.labels[rows], power)
    if kernel.shape[1] > shape.dimension:
        kernel = kernel @ principal_axes(features @ kernel, shape.dimension)  # (d, d) @ (d, k)
    mean = (features if centre is None else features_of(centre)).mean(axis=0)
    return {**folded, "whitening/kernel": kernel, "whitening/bias": -mean @ kernel}


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
    distiller: Any,
    photos: Photos,
    shape: CompactShape,
    folder: Path,
    *,
    size: int,
    summary: Mapping[str, Any],
    sharp: Pixels | None = None,
) -> None:
    """Export a trained distiller. Its weights are replaced by their running average.

    `sharp` are pictures (n, size, size, 3) uint8 with all the detail that the size can show: on them the statistics of
    batch normalisation are measured, and the origin of the features. Without them that is done on the photos at their
    own size, as what the whitening needs always is: enlarged, they would be smoother than what the model will meet.
    """
    distiller.optimizer.finalize_variable_values(distiller.trainable_variables)
    pictures = photos.pixels if sharp is None else sharp
    folded = fold_batch_norm(recalibrated(distiller.student, pictures, size=pictures.shape[1]))
    weights = with_whitening(folded, photos, shape, power=WHITENING, centre=sharp)
    write_package(weights, shape, folder, size=size, summary={**summary, "whitening": WHITENING})
