"""Time spent on a large JPEG before the model sees it, and the gain from another decoder.

    python benchmarks/decoding.py                                  generated photos of 12 megapixels
    python benchmarks/decoding.py --images-dir ~/Pictures          your own JPEGs
    pip install simplejpeg && python benchmarks/decoding.py        with another binding of libjpeg-turbo

Milliseconds of processor time per photo, on one thread, with all steps in turn. "whole" is the work of an indexing run
on a file: read, hash, decode, resize, average colour. "with simplejpeg" is the same with that decoder; Pillow still
resizes the pixels, so features are identical. "gain" is the share of a run that this would save, including the forward
pass (`--forward`, in ms of processor time: 1000 / the figure in brackets that `indexing.py` prints).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from measuring import in_turn, load_average, table
from photos import write_photos
from PIL import Image

from searchengine.extractors import make_spec
from searchengine.extractors.extractor import preprocess
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import average_colour, decode, resize
from searchengine.index.types import content_hash

# name -> its spec, and the processor time of its forward pass where docs/BENCHMARKS.md was measured, in ms an image
MODELS = {
    "vgg16": (make_spec("vgg16"), 417.0),
    "vgg16 --scaled-decoding": (make_spec("vgg16", full_decode=False), 417.0),
    "efficientnet-lite0": (make_spec("efficientnet-lite0"), 18.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-dir", type=Path, help="use the JPEGs of this folder instead")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forward", type=float, nargs=3, metavar="MS", help="forward pass for each of the three rows")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        if options.images_dir:
            files = sorted(options.images_dir.glob("*.jp*g"))[: options.images]
        else:
            files = write_photos(Path(name), options.images, (4000, 3000))
        rows = [
            row(title, spec, files, options.rounds, options.forward[number] if options.forward else forward)
            for number, (title, (spec, forward)) in enumerate(MODELS.items())
        ]
    heads = (
        "model",
        "whole",
        "read",
        "hash",
        "JPEG -> pixels",
        "resize and colour",
        "with simplejpeg",
        "gain",
        "load",
    )
    print(table(heads, rows))


def row(title: str, spec: ExtractorSpec, files: list[Path], rounds: int, forward: float) -> tuple[object, ...]:
    """Return one row of the table."""
    contents = [file.read_bytes() for file in files]
    decoded = [decode(data, at_least=spec.decoded_at_least, profiles=False).pixels for data in contents[:1]]
    image = Image.fromarray(decoded[0])
    height, width = spec.input_size

    def all_files(step: Callable[[bytes], object]) -> Callable[[], None]:
        def work() -> None:
            for data in contents:
                step(data)

        return work

    def whole(file: Path) -> None:
        data = file.read_bytes()
        content_hash(data)
        average_colour(preprocess(spec, data).pixels)

    works: dict[str, Callable[[], object]] = {
        "whole": lambda: [whole(file) for file in files],
        "read": lambda: [file.read_bytes() for file in files],
        "hash": all_files(content_hash),
        "decode": all_files(lambda data: decode(data, at_least=spec.decoded_at_least, profiles=False)),
        "resize": all_files(lambda _: image.resize((width, height), Image.Resampling.BICUBIC)),
    }
    other = simplejpeg(spec)
    if other is not None:
        works["other"] = lambda: [other(file) for file in files]
    timings = {name: 1000 * timing.processor / len(files) for name, timing in in_turn(works, rounds).items()}
    saved = timings["whole"] - timings.get("other", timings["whole"])
    return (
        title,
        *(f"{timings[name]:.1f}" for name in ("whole", "read", "hash", "decode", "resize")),
        f"{timings['other']:.1f}" if "other" in timings else "",
        f"**{100 * saved / (timings['whole'] + forward):.1f} %**" if "other" in timings else "",
        load_average(),
    )


def simplejpeg(spec: ExtractorSpec) -> Callable[[Path], object] | None:
    """Return the whole work with simplejpeg, or None if it is not installed."""
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    least = dict(zip(("min_height", "min_width"), spec.decoded_at_least or (), strict=False))

    def work(file: Path) -> None:
        data = file.read_bytes()
        content_hash(data)
        average_colour(resize(decode_jpeg(data, "RGB", **least), spec.input_size))

    return work


if __name__ == "__main__":
    main()
