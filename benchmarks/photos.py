"""Photos for benchmarks: given labelled folders, and synthetic photos with the bytes and detail of real ones.

The power of natural images falls with the square of the frequency (Field 1987, J. Opt. Soc. Am. A 4), so it is about
the same in every octave. Therefore the photos are sums of octaves of noise, with some sensor noise on top. As JPEGs of
640 x 480, they have some 160 kB, like those of COCO.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from searchengine.images import decode

_LARGEST = 1280  # px: what is wider is enlarged from this, as a lens that is less sharp than its sensor would
_TILE = 512  # px of sensor noise, repeated
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


def photo(seed: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return (h, w, 3) uint8 of ``size`` (width, height); each seed gives another photo."""
    random = np.random.default_rng(seed)
    shrink = max(1.0, size[0] / _LARGEST)
    width, height = round(size[0] / shrink), round(size[1] / shrink)
    grey = np.full((height, width), 128, dtype=np.float32)
    cells = 3
    while cells < height:
        coarse = random.standard_normal((cells, cells * width // height), dtype=np.float32)
        grey += 19 * np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        cells *= 2
    # colour changes slowly
    tints = 24 * random.standard_normal((3, 6, 8), dtype=np.float32)
    layers = [np.asarray(Image.fromarray(tint).resize((width, height), Image.Resampling.BICUBIC)) for tint in tints]
    pixels = np.clip(np.stack(layers, axis=-1) + grey[:, :, None], 0, 255).astype(np.uint8)  # (h, w, 3)
    sharp = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    noise = random.integers(0, 9, (_TILE, _TILE, 3), dtype=np.uint8)
    repeats = (-(-size[1] // _TILE), -(-size[0] // _TILE), 1)
    return np.minimum(sharp, 247) + np.tile(noise, repeats)[: size[1], : size[0]]


def write_photos(folder: Path, count: int, size: tuple[int, int], *, quality: int = 90) -> list[Path]:
    """Write JPEGs of ``size`` (width, height), all with different content; large ones are shifted copies of a few."""
    folder.mkdir(parents=True, exist_ok=True)
    distinct = count if size[0] * size[1] < 10**6 else min(count, 4)
    originals: list[NDArray[np.uint8]] = []
    files = []
    for number in range(count):
        if number < distinct:
            pixels = photo(number, size)
            if distinct < count:
                originals.append(pixels)
        else:
            pixels = np.roll(originals[number % distinct], 16 * number, axis=1)
        files.append(folder / f"{number:05d}.jpg")
        Image.fromarray(pixels).save(files[-1], quality=quality)
    return files


def labelled_files(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images in `folder/<class>/`, at any depth, sorted, and the class of each."""
    classes = sorted(child for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    pairs = [
        (file, child.name) for child in classes for file in sorted(child.rglob("*")) if file.suffix.lower() in _SUFFIXES
    ]
    if not pairs:
        raise SystemExit(f"There are no images in {folder}: it should hold one folder for each class.")
    return [file for file, _ in pairs], [label for _, label in pairs]


def squashed(file: Path, size: int) -> NDArray[np.uint8]:
    """Return the whole image as (size, size, 3) uint8 RGB, ignoring its aspect ratio."""
    return decode(file.read_bytes(), at_least=(size, size), size=(size, size)).pixels
