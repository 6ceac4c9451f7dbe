"""Labelled photos, decoded once to small squares in one file that is mapped, and augmented as they are drawn."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from searchengine.errors import SearchEngineError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]

UNREADABLE = (OSError, ValueError, Image.DecompressionBombError)  # what Pillow raises for a damaged file
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True)
class Photos:
    """Decoded photos: pixels (n, s, s, 3) uint8 RGB (mapped from disk), labels (n,), and the classes by name.

    `source` tells one set of photos from another.
    """

    pixels: Pixels
    labels: Labels
    classes: tuple[str, ...]
    source: str = ""


def find_labelled(folder: Path) -> tuple[list[Path], list[int], tuple[str, ...]]:
    """Image files below `folder/<class>/`, at any depth, sorted; with labels and class names.

    Raises SearchEngineError where there are none.
    """
    classes = tuple(sorted(child.name for child in folder.iterdir() if child.is_dir())) if folder.is_dir() else ()
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        files += found
        labels += [label] * len(found)
    if not files:
        raise SearchEngineError(f"no images in {folder}: it should hold one folder a class, with images inside")
    return files, labels, classes


def squashed(path: Path, size: int) -> Pixels:
    """The whole picture as (size, size, 3) uint8 RGB: bicubic, proportions given up, JPEG draft down to 1.5 x size."""
    with Image.open(path) as opened:
        opened.draft("RGB", (3 * size // 2, 3 * size // 2))
        upright = ImageOps.exif_transpose(opened).convert("RGB")
        return resized(upright, size)


def resized(picture: Image.Image, size: int, box: tuple[float, float, float, float] | None = None) -> Pixels:
    """A picture, or the part of it in `box` (left, top, right, bottom), as (size, size, 3) uint8: bicubic."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))


def find_photos(folder: Path) -> list[Path]:
    """All images below a folder, sorted, whatever their classes. Raises SearchEngineError where there are none."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise SearchEngineError(f"no images in {folder}")
    return files


def squashed_some(folder: Path, size: int, *, most: int = 4096, seed: int = 1) -> Pixels:
    """Images below a folder, whatever their classes, at most so many, drawn evenly: (n, size, size, 3) uint8.

    One that cannot be read is told of and left out. Raises SearchEngineError where none is left.
    """
    files = find_photos(folder)
    drawn = np.sort(np.random.default_rng(seed).permutation(len(files))[:most])
    pictures = [picture for _, picture in _readable([files[row] for row in drawn], size)]
    if not pictures:
        raise SearchEngineError(f"no image in {folder} can be read")
    return np.stack(pictures)


def decode_once(folder: Path, cache: Path, *, size: int = 64, seed: int = 0) -> Photos:
    """Decode the photos of `folder` to `cache/pixels.npy` in a shuffled order, or map what is there already.

    The order is a function of `seed` and the sorted file names alone, so any first part of it is a fair sample. One
    that cannot be read is told of and left out. `cache/pixels.json` tells which photos these are, and which of the
    order could not be read. Raises SearchEngineError where they are others, or none can be read.
    """
    files, labels, classes = find_labelled(folder)
    order = np.random.default_rng(seed).permutation(len(files))
    ready, note = cache / "pixels.npy", cache / "pixels.json"
    these: dict[str, Any] = {"seed": seed, "photos": digest_of_files(folder, files)}
    if not ready.exists():
        cache.mkdir(parents=True, exist_ok=True)
        note.unlink(missing_ok=True)
        part = cache / "pixels.part"
        unread = _decode([files[row] for row in order], part, size)
        if len(unread) == len(files):
            raise SearchEngineError(f"no image in {folder} can be read")
        is_of(note, {**these, "unread": unread} if unread else these)
        part.replace(ready)
    mapped: Pixels = np.lib.format.open_memmap(ready, "r")
    unread = json.loads(note.read_text()).get("unread", []) if note.exists() else []
    order = np.delete(order, unread)
    these |= {"unread": unread} if unread else {}
    if mapped.shape != (len(order), size, size, 3) or not is_of(note, these):
        raise SearchEngineError(
            f"{ready} was made from other photos ({mapped.shape[0]} rows); remove it to make it anew"
        )
    source = f"{these['photos']} {seed}" + (f" without {unread}" if unread else "")
    return Photos(mapped, np.asarray(labels, dtype=np.int64)[order], classes, source)


def _decode(files: Sequence[Path], part: Path, size: int) -> list[int]:
    """Write files to `part`, (n, size, size, 3) uint8; which of them could not be read, told of and without a row."""
    pixels = np.lib.format.open_memmap(part, "w+", np.uint8, (len(files), size, size, 3))
    read: list[int] = []
    for place, picture in _readable(files, size):
        pixels[len(read)] = picture
        read.append(place)
    if 0 < len(read) < len(files):
        fewer = np.lib.format.open_memmap(part.with_suffix(".fewer"), "w+", np.uint8, (len(read), size, size, 3))
        fewer[:] = pixels[: len(read)]
        part.with_suffix(".fewer").replace(part)
        pixels = fewer
    pixels.flush()
    return sorted(set(range(len(files))) - set(read))


def _readable(files: Sequence[Path], size: int) -> Iterator[tuple[int, Pixels]]:
    """Each that can be read, (size, size, 3) uint8, with its place among the files; the others are told of."""
    for place, file in enumerate(files):
        try:
            picture = squashed(file, size)
        except UNREADABLE as error:
            print(f"{file} cannot be read: {error}", file=sys.stderr)  # noqa: T201
        else:
            yield place, picture


def digest_of_files(folder: Path, files: Sequence[Path]) -> str:
    """Of the names and sizes of files: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(b"%s\0%d\0" % (os.fsencode(file.relative_to(folder)), file.stat().st_size))
    return digest.hexdigest()


def is_of(note: Path, source: Mapping[str, Any]) -> bool:
    """Whether a file was made from this source, by the note beside it. One without a note is, and gets its note now."""
    told = json.dumps(source)
    if not note.exists():
        write_atomically(note, told.encode())
    return note.read_text() == told


@dataclass(frozen=True)
class Augmentation:
    """How a photo is varied each time it is drawn; every field is a probability, a range or a strength."""

    least_area: float = 0.4
    stretch: float = 4 / 3
    flip: float = 0.5
    tilt: float = 0.25
    tilt_degrees: float = 15.0
    blur: float = 0.15
    blur_radius: float = 0.02  # at most so much of the side of the picture
    grey: float = 0.15
    colour: float = 0.3

    def crop(self, pixels: Pixels, size: int, rng: np.random.Generator) -> Pixels:
        """A random part of one picture, (s, s, 3) -> (size, size, 3) uint8: tilt, crop, blur, flip."""
        side = pixels.shape[0]
        area = rng.uniform(self.least_area, 1.0)
        stretch = np.exp(rng.uniform(-np.log(self.stretch), np.log(self.stretch)))
        width = min(side, side * np.sqrt(area * stretch))
        height = min(side, side * np.sqrt(area / stretch))
        left, top = rng.uniform(0, side - width), rng.uniform(0, side - height)
        picture = Image.fromarray(pixels)
        if rng.random() < self.tilt:
            angle = rng.uniform(-self.tilt_degrees, self.tilt_degrees)
            corners = (0, 0, 0) if rng.random() < 0.5 else tuple(rng.integers(0, 256, 3).tolist())
            picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=corners)
        box = (left, top, left + width, top + height)
        picture = picture.resize((size, size), Image.Resampling.BICUBIC, box=box)
        if rng.random() < self.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1) * self.blur_radius * size))
        part = np.asarray(picture)
        return part[:, ::-1] if rng.random() < self.flip else part

    def recolour(self, batch: Pixels, rng: np.random.Generator) -> Pixels:
        """Brightness, contrast, saturation and now and then no colour at all: (n, s, s, 3) uint8 -> the same."""
        n = len(batch)
        brightness, contrast, saturation = np.exp(rng.uniform(-self.colour, self.colour, (3, n, 1, 1, 1))).astype(
            np.float32
        )
        saturation[rng.random(n) < self.grey] = 0
        x = batch.astype(np.float32)
        grey = x @ np.array([0.299, 0.587, 0.114], np.float32)  # (n, s, s, 3) -> (n, s, s)
        x = grey[..., None] + (x - grey[..., None]) * saturation
        middle = grey.mean(axis=(1, 2))[:, None, None, None]
        recoloured: Pixels = np.clip((middle + (x - middle) * contrast) * brightness + 0.5, 0, 255).astype(np.uint8)
        return recoloured

    def batch(self, pictures: Sequence[Pixels] | Pixels, size: int, rng: np.random.Generator) -> Pixels:
        """Fresh variants of several pictures: n x (s, s, 3) -> (n, size, size, 3) uint8."""
        return self.recolour(np.stack([self.crop(picture, size, rng) for picture in pictures]), rng)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a kill at any moment leaves the old one or the new one."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
