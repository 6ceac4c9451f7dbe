"""Retrieval quality of a model on labelled folders: leave-one-out retrieval, and copy detection.

    python benchmarks/retrieval.py --images DIR [--images DIR ...] [--copies DIR] [--model NAME|FILE ...]

DIR has one folder per class. Every image is ranked against all others by cosine; images of the same class are relevant.
The results go to stdout as a table, progress to stderr. (For speed, see indexing.py.)
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from photos import labelled_files
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from searchengine.analyse.evaluation.metrics import measured, names
from searchengine.analyse.evaluation.statistics import interval, resampled_means
from searchengine.extractors import Extractor, load_extractor
from searchengine.images import decode

Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Average precision, and precision of the first 1 and 10, for every query: (n,) float64."""

    average_precision: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]
    first_ten: npt.NDArray[np.float64]


def leave_one_out(features: Features, labels: npt.NDArray[np.int64]) -> Scores:
    """Rank all others by cosine for every image; images with its label are relevant. Ties stay in order of number."""
    ap, first, ten = [], [], []
    for query, feature in enumerate(features):
        cosine = features @ feature  # (n, d) @ (d,) -> (n,)
        order = np.argsort(-cosine, kind="stable")
        relevant = labels[order[order != query]] == labels[query]  # (n - 1,)
        if not relevant.any():
            continue
        places = np.flatnonzero(relevant) + 1
        measures = dict(zip(names(), measured(places, np.ones(len(places))).tolist(), strict=True))
        ap.append(measures["mAP"])
        first.append(measures["P@1"])
        ten.append(measures["P@10"])
    return Scores(np.array(ap), np.array(first), np.array(ten))


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Return the picture after JPEG compression with this quality."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def central(picture: Image.Image, share: float) -> Image.Image:
    """Return the centre of the picture, ``share`` of each side."""
    width, height = picture.size
    left, top = width * (1 - share) / 2, height * (1 - share) / 2
    return picture.crop((round(left), round(top), round(width - left), round(height - top)))


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "central 70 % crop": lambda p: central(p, 0.7),
    "10 degrees of rotation": lambda p: p.rotate(10, Image.Resampling.BICUBIC),
    "mirror": ImageOps.mirror,
    "blur of radius 3": lambda p: p.filter(ImageFilter.GaussianBlur(3)),
    "JPEG quality 10": lambda p: as_jpeg(p, 10),
    "grey": lambda p: ImageOps.grayscale(p).convert("RGB"),
    "brighter 1.4, colour 1.6": lambda p: ImageEnhance.Color(ImageEnhance.Brightness(p).enhance(1.4)).enhance(1.6),
}


def copy_detection(extractor: Extractor, files: list[Path], altered: int) -> dict[str, float]:
    """Return the share of altered pictures whose original ranks first among all ``files``, by alteration."""
    originals = [Image.fromarray(decode(file.read_bytes()).pixels) for file in files]
    database = extractor.embed(originals)
    shares = {}
    for name, alter in ALTERATIONS.items():
        queries = extractor.embed([alter(picture) for picture in originals[:altered]])
        shares[name] = float(np.mean(np.argmax(queries @ database.T, axis=1) == np.arange(altered)))
    return shares


def report_retrieval(name: str, extractor: Extractor, folder: Path) -> None:
    """Return one line of the table for one set."""
    files, classes = labelled_files(folder)
    print(f"{name}: {len(files)} images of {folder.name}", file=sys.stderr)
    scores = leave_one_out(extractor.embed(files), np.unique(classes, return_inverse=True)[1])
    means = resampled_means(scores.average_precision[:, None], np.random.default_rng(0))
    (low,), (high,) = interval(means)
    print(
        f"| {folder.name} | {name} | {scores.first.mean():.3f} | {scores.first_ten.mean():.3f} "
        f"| {scores.average_precision.mean():.3f} ({low:.3f} to {high:.3f}) |",
        flush=True,
    )


def report_copies(name: str, extractor: Extractor, folder: Path, photos: int, altered: int) -> None:
    """Report copy detection on a random choice of the folder's photos."""
    files = labelled_files(folder)[0]
    chosen = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:photos]]
    shares = copy_detection(extractor, chosen, min(altered, len(chosen)))
    for alteration, share in shares.items():
        print(f"| {alteration} | {name} | {share:.3f} |")
    print(f"| all | {name} | {np.mean(list(shares.values())):.3f} |", flush=True)


def main() -> None:
    """Parse the arguments, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="DIR", help="a labelled folder")
    parser.add_argument("--copies", type=Path, metavar="DIR", help="photos for copy detection, in folders")
    parser.add_argument("--photos", type=int, default=500, help="photos searched for copies (default: 500)")
    parser.add_argument("--altered", type=int, default=200, help="how many of them are altered (default: 200)")
    parser.add_argument("--model", nargs="+", default=["efficientnet-lite0"], help="default: efficientnet-lite0")
    parser.add_argument("--layer", help="default: the model's own")
    parser.add_argument("--pooling", default="none")
    parser.add_argument("--input-size", type=int)
    options = parser.parse_args()
    extractors = {
        name: load_extractor(name, layer=options.layer, pooling=options.pooling, input_size=options.input_size)
        for name in options.model
    }
    if options.images:
        print("| set | model | P@1 | P@10 | mAP (95 % interval) |\n| --- | --- | --- | --- | --- |")
    for folder in options.images:
        for name, extractor in extractors.items():
            report_retrieval(name, extractor, folder)
    if options.copies:
        print("\n| alteration | model | original comes first |\n| --- | --- | --- |")
        for name, extractor in extractors.items():
            report_copies(name, extractor, options.copies, options.photos, options.altered)


if __name__ == "__main__":
    main()
