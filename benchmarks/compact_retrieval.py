"""How well the shipped compact model finds: leave-one-out retrieval, copy detection. (How fast: indexing.py.)

    python benchmarks/compact_retrieval.py --images DIR [--images DIR ...] [--copies DIR]

DIR holds one folder a class. Results go to stdout as a table, progress to stderr. Every picture is squashed whole to
the model's size (bicubic), features are compared by cosine.
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
from photos import labelled_files, squashed
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from searchengine.analyse.evaluation.metrics import average_precision, precision_at
from searchengine.analyse.evaluation.statistics import RESAMPLES, interval, resampled_means
from searchengine.extractors.compact import graph_file, read_card
from searchengine.extractors.pixels import normalized

Features = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Model:
    """A name, the size of its pictures, and what makes (n, size, size, 3) uint8 into unit rows (n, d) float32."""

    name: str
    size: int
    embed: Callable[[Pixels], Features]


@dataclass(frozen=True)
class Scores:
    """Average precision and the precision of the first 1 and 10, each of every query: (n,) float64."""

    average_precision: npt.NDArray[np.float64]
    first: npt.NDArray[np.float64]
    first_ten: npt.NDArray[np.float64]


def compact_model(folder: Path | None, batch: int = 32) -> Model:
    """The shipped model (or one in `folder`) on OpenVINO in float32."""
    import openvino as ov

    at = {} if folder is None else {"folder": folder}
    core = ov.Core()
    compiled = core.compile_model(core.read_model(graph_file(**at)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def embed(pictures: Pixels) -> Features:
        parts = [compiled([pictures[i : i + batch]])[0] for i in range(0, len(pictures), batch)]
        return normalized(np.concatenate(parts), "l2")

    return Model("compact", int(read_card(**at)["size"]), embed)


def leave_one_out(features: Features, labels: npt.NDArray[np.int64]) -> Scores:
    """Rank all others by cosine for every image; relevant is what has its label. Ties stay in order of number."""
    ap, first, ten = [], [], []
    for query, feature in enumerate(features):
        cosine = features @ feature  # (n, d) @ (d,) -> (n,)
        order = np.argsort(-cosine, kind="stable")
        relevant = labels[order[order != query]] == labels[query]  # (n - 1,)
        if not relevant.any():
            continue
        places = np.flatnonzero(relevant) + 1
        ap.append(average_precision(places))
        first.append(precision_at(places, 1))
        ten.append(precision_at(places, 10))
    return Scores(np.array(ap), np.array(first), np.array(ten))


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """What is left after a JPEG of that quality."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def central(picture: Image.Image, share: float) -> Image.Image:
    """The middle of the picture: `share` of each side."""
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


def copy_detection(model: Model, files: list[Path], altered: int) -> dict[str, float]:
    """Share of altered pictures whose original comes first among all `files`, by alteration."""

    def square(picture: Image.Image) -> Pixels:
        return np.asarray(picture.resize((model.size, model.size), Image.Resampling.BICUBIC))

    originals = []
    for path in files:
        with Image.open(path) as opened:
            originals.append(ImageOps.exif_transpose(opened).convert("RGB"))
    database = model.embed(np.stack([square(picture) for picture in originals]))
    found = {}
    for name, alter in ALTERATIONS.items():
        queries = model.embed(np.stack([square(alter(picture)) for picture in originals[:altered]]))
        found[name] = float(np.mean(np.argmax(queries @ database.T, axis=1) == np.arange(altered)))
    return found


def report_retrieval(model: Model, folder: Path) -> None:
    """One line of the table for one set."""
    files, names = labelled_files(folder)
    print(f"{model.name}: {len(files)} images of {folder.name}", file=sys.stderr)
    pixels = np.stack([squashed(path, model.size) for path in files])  # (n, s, s, 3) uint8
    scores = leave_one_out(model.embed(pixels), np.unique(names, return_inverse=True)[1])
    means = resampled_means(scores.average_precision[:, None], RESAMPLES, np.random.default_rng(0))
    (low,), (high,) = interval(means)
    print(
        f"| {folder.name} | {model.name} | {scores.first.mean():.3f} | {scores.first_ten.mean():.3f} "
        f"| {scores.average_precision.mean():.3f} ({low:.3f} to {high:.3f}) |"
    )


def report_copies(model: Model, folder: Path, photos: int, altered: int) -> None:
    """Copy detection on a random choice of the folder's photos."""
    files = labelled_files(folder)[0]
    chosen = [files[i] for i in np.random.default_rng(0).permutation(len(files))[:photos]]
    found = copy_detection(model, chosen, min(altered, len(chosen)))
    for name, share in found.items():
        print(f"| {name} | {model.name} | {share:.3f} |")
    print(f"| all | {model.name} | {np.mean(list(found.values())):.3f} |")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, action="append", default=[], metavar="DIR", help="a set: one folder a class"
    )
    parser.add_argument("--copies", type=Path, metavar="DIR", help="photos for copy detection, in folders")
    parser.add_argument("--photos", type=int, default=500, help="photos searched for copies (default: 500)")
    parser.add_argument("--altered", type=int, default=200, help="how many of them are altered (default: 200)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="another packaged model than the shipped one")
    options = parser.parse_args()
    models = [compact_model(options.model)]
    if options.images:
        print("| set | model | P@1 | P@10 | mAP (95 % interval) |\n| --- | --- | --- | --- | --- |")
    for folder in options.images:
        for model in models:
            report_retrieval(model, folder)
    if options.copies:
        print("\n| alteration | model | original comes first |\n| --- | --- | --- |")
        for model in models:
            report_copies(model, options.copies, options.photos, options.altered)


if __name__ == "__main__":
    main()
