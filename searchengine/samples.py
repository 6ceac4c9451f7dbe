"""Sample images for the demo: crops of the photographs that come with scikit-image and scikit-learn.

171 JPEGs in 18 folders, one per subject, so the folder's name is the label. The crops of a photo are the right answers
for each other, and any two of them overlap.

``skimage.data`` and ``sklearn/datasets/images/README.txt`` name the sources and licences (the pagoda by danielbuechele
and the flower by vultilion, both CC BY 2.0).
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

from PIL import Image

from searchengine.errors import SearchEngineError, missing_extra
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

# The part of the photo (left, top, right, bottom, as fractions of its sides), and the length of the longer side in
# pixels, at most. Every crop includes the middle, so any two overlap.
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
    """Write the images into a folder, and return how many it holds.

    The same versions of the packages give the same bytes. Existing files are not changed. MissingPackageError if the
    packages are not installed.
    """
    count = 0
    for subject, package, name in PHOTOS:
        photo = _package_folder(package) / name
        if not photo.is_file():  # another version of the package may lack it
            continue
        crops = {out / subject / f"{photo.stem}-{crop}.jpg": box_and_side for crop, box_and_side in CROPS.items()}
        missing = {file: box_and_side for file, box_and_side in crops.items() if not file.exists()}
        if missing:
            image = Image.fromarray(decode(photo.read_bytes()).pixels)
            for file, (box, side) in missing.items():
                replace_bytes(file, _crop(image, box, side), durable=False)
        count += len(crops)
    if not count:
        raise SearchEngineError("scikit-image and scikit-learn have none of the expected photographs.")
    return count


def _package_folder(package: str) -> Path:
    """Find the folder of a package without importing it: scikit-image and scikit-learn take seconds to load."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise missing_extra("scikit-image and scikit-learn", "demo")
    return Path(spec.submodule_search_locations[0])


def _crop(image: Image.Image, box: tuple[float, float, float, float], side: int) -> bytes:
    left, top, right, bottom = box
    width, height = image.size
    part = image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    part.thumbnail((side, side), Image.Resampling.LANCZOS)  # never enlarges
    file = io.BytesIO()
    part.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
