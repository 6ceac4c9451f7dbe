"""Accuracy of predicted labels: logistic regression and the vote of the neighbours, in five folds.

    python benchmarks/classifiers.py --images DIR [--images DIR ...] [--model NAME]
    python benchmarks/classifiers.py --index-dir DIR [--index-dir DIR ...]

DIR has one folder per class, or is an index with labels. C is chosen within the training part of each fold, and all
methods use the same folds. Intervals: Wilson, 95 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from photos import labelled_files

from searchengine.learn import HeldOut, TrainingSet, fit_classifier, training_set

Rows = NDArray[np.float32]


def labelled(features: Rows, labels: list[str]) -> TrainingSet:
    """Return the features of images, each with one label."""
    numbers = np.arange(1, len(labels) + 1)
    squared_norms = np.einsum("ij,ij->i", features, features).astype(np.float64)
    return TrainingSet(numbers, tuple(labels), numbers, features, squared_norms, "euclidean", "", "", 0, 0)


def embedded(model: str, files: list[Path]) -> Rows:
    """Return features by a published or packaged model: (n, d) float32."""
    from searchengine.extractors import load_extractor

    extractor = load_extractor(model)
    return np.concatenate([extractor.embed(files[i : i + 64]) for i in range(0, len(files), 64)])


def measure(name: str, features_name: str, data: TrainingSet) -> None:
    """Return the two lines for one set of features."""
    start = time.perf_counter()
    report = fit_classifier(data).report
    print(f"{name}, {features_name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    for method, scores in ((f"logistic regression, C {report.regularization:g}", report.logistic),
                           (f"vote of {report.neighbours}", report.vote)):  # fmt: skip
        if scores is not None:
            print(line(name, features_name, method, scores), flush=True)


def line(name: str, features: str, method: str, scores: HeldOut) -> str:
    """Return one line of the table."""
    return (
        f"| {name} | {features} | {method} | {scores.images} | {scores.accuracy:.3f} ({scores.low:.3f} to "
        f"{scores.high:.3f}) | {scores.calibration_error:.3f} | {scores.brier:.3f} |"
    )


def main() -> None:
    """Parse the arguments, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="DIR", help="one folder per class")
    parser.add_argument("--index-dir", type=Path, action="append", default=[], metavar="DIR", help="a labelled index")
    parser.add_argument(
        "--model", default="efficientnet-lite0", help="embeds the photos of --images (default: %(default)s)"
    )
    options = parser.parse_args()
    if not options.images and not options.index_dir:
        parser.error("name --images or --index-dir")
    print("| set | features | method | images | accuracy (95 % interval) | calibration error | Brier score |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for folder in options.images:
        files, labels = labelled_files(folder)
        measure(folder.name, options.model, labelled(embedded(options.model, files), labels))
    for folder in options.index_dir:
        from searchengine.engine import open_index

        index = open_index(folder)
        measure(folder.name, index.manifest("extractor") or "", training_set(index))
        index.close()


if __name__ == "__main__":
    main()
