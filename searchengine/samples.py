"""A small collection to try things on: crops of the photographs that come with scikit-image and scikit-learn.

``python -m searchengine.samples FOLDER`` writes 171 JPEGs in 18 folders, one folder a subject, so that the folder's
name is the label and "the same photo" is the right answer to each of them. Any two crops of a photo overlap.

Where each comes from, and its licence, is told in ``skimage.data`` and in ``sklearn/datasets/images/README.txt`` (the
pagoda by danielbuechele and the flower by vultilion, both CC BY 2.0).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
from pathlib import Path

from PIL import Image

from searchengine.errors import SearchEngineError
from searchengine.files import replace_bytes
from searchengine.images import decode

# Real photographs only: no drawings, test patterns or simulations. (subject, package, file)
PHOTOS = (
    ("astronaut", "skimage", "data/astronaut.png"),
    ("bricks", "skimage", "data/brick.png"),
    ("cameraman", "skimage", "data/camera.png"),
    ("cat", "skimage", "data/chelsea.png"),
    ("coffee", "skimage", "data/coffee.png"),
    ("coins", "skimage", "data/coins.png"),
    ("flower", "sklearn", "datasets/images/flower.jpg"),
    ("galaxies", "skimage", "data/hubble_deep_field.jpg"),
    ("grass", "skimage", "data/grass.png"),
    ("gravel", "skimage", "data/gravel.png"),
    ("handwriting", "skimage", "data/text.png"),
    ("moon", "skimage", "data/moon.png"),
    ("motorcycle", "skimage", "data/motorcycle_left.png"),
    ("motorcycle", "skimage", "data/motorcycle_right.png"),
    ("pagoda", "sklearn", "datasets/images/china.jpg"),
    ("print", "skimage", "data/page.png"),
    ("retina", "skimage", "data/retina.jpg"),
    ("rocket", "skimage", "data/rocket.jpg"),
    ("tissue", "skimage", "data/ihc.png"),
)

# What of the photo is shown (left, top, right, bottom, as parts of its sides), and the longer side in pixels at most.
# All hold the middle, so any two overlap.
CROPS = {
    "whole": ((0.0, 0.0, 1.0, 1.0), 480),
    "top-left": ((0.0, 0.0, 0.75, 0.75), 400),
    "top-right": ((0.25, 0.0, 1.0, 0.75), 400),
    "bottom-left": ((0.0, 0.25, 0.75, 1.0), 400),
    "bottom-right": ((0.25, 0.25, 1.0, 1.0), 400),
    "middle": ((0.2, 0.2, 0.8, 0.8), 320),
    "small": ((0.1, 0.1, 0.9, 0.9), 200),
    "wide": ((0.0, 0.15, 1.0, 0.85), 360),
    "tall": ((0.15, 0.0, 0.85, 1.0), 360),
}
_QUALITY = 88


def write_samples(out: Path) -> int:
    """Write the collection into ``out``, a folder that is made if need be, and return how many images it holds.

    The same bytes each time for the same packages; files that are there already stay as they are. Raises
    SearchEngineError if neither package is installed.
    """
    count = 0
    for subject, package, name in PHOTOS:
        photo = _folder_of(package) / name
        if not photo.is_file():  # other versions of the packages may carry other files
            continue
        wanted = {out / subject / f"{photo.stem}-{crop}.jpg": how for crop, how in CROPS.items()}
        missing = {file: how for file, how in wanted.items() if not file.exists()}
        if missing:
            whole = Image.fromarray(decode(photo.read_bytes()).pixels)
            (out / subject).mkdir(parents=True, exist_ok=True)
            for file, (box, side) in missing.items():
                replace_bytes(file, _cropped(whole, box, side), durable=False)
        count += len(wanted)
    if not count:
        raise SearchEngineError(
            _missing("scikit-image and scikit-learn hold none of the photographs that are looked for")
        )
    return count


def _folder_of(package: str) -> Path:
    """Where a package lies, found without importing it: scikit-image and scikit-learn take seconds to load."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SearchEngineError(_missing("the sample photographs come with scikit-image and scikit-learn"))
    return Path(spec.submodule_search_locations[0])


def _missing(what: str) -> str:
    return f'No samples: {what}. Install both with: pip install "searchengine[demo]"'


def _cropped(whole: Image.Image, box: tuple[float, float, float, float], side: int) -> bytes:
    left, top, right, bottom = box
    part = whole.crop(
        (round(left * whole.width), round(top * whole.height), round(right * whole.width), round(bottom * whole.height))
    )
    part.thumbnail((side, side), Image.Resampling.LANCZOS)  # never enlarges
    file = io.BytesIO()
    part.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 impossible (2, from argparse: not understood)."""
    parser = argparse.ArgumentParser(
        prog="python -m searchengine.samples",
        description="Write a small collection of photographs, one folder a subject, to try the search engine on.",
    )
    parser.add_argument("out", metavar="FOLDER", type=Path, help="where to write it; files already there are kept")
    out: Path = parser.parse_args(arguments).out
    try:
        count = write_samples(out)
    except (SearchEngineError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(f"{count} sample images in {out}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
