"""The text tower of CLIP and SigLIP: words -> tokens -> a vector that is compared with features.

The tower is exported together with the image tower (see ``cache``). The packages tokenizers and sentencepiece make the
tokens from the files of the preset, exactly as KerasHub does, without TensorFlow.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import string
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, MissingPackageError
from searchengine.extractors.cache import TEXT_FILES
from searchengine.extractors.extractor import normalized
from searchengine.extractors.frameworks import compile_openvino
from searchengine.files import parse_json

BPE, SENTENCE_PIECE = "bpe", "sentencepiece"
_PACKAGES = {BPE: "tokenizers", SENTENCE_PIECE: "sentencepiece"}
# TensorFlow's lower() and strip() only handle ASCII, and its \s does not match a vertical tab.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BLANKS = re.compile("[\t\n\f\r ]+")
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, slots=True)
class TokenRules:
    """The rules that turn texts into tokens.

    Attributes:
        kind: "bpe" for CLIP, "sentencepiece" for SigLIP.
        model: the tokenizer: JSON as written by the package tokenizers, or a SentencePiece file in base64.
        length: the length of each row of tokens. Longer texts are truncated, shorter ones padded.
        start: tokens before those of a text.
        end: tokens after those of a text.
        pad: the token that fills the rest of a row.
        lower: whether texts are lower-cased first.
        canonical: whether punctuation is removed too.
    """

    kind: str
    model: str
    length: int
    start: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    lower: bool
    canonical: bool = False

    def to_json(self) -> str:
        """Return the rules as JSON, for ``from_json``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TokenRules:
        """Parse the output of ``to_json``. Raises ValueError, KeyError or TypeError for anything else."""
        values = parse_json(text)
        return cls(**{**values, "start": tuple(values["start"]), "end": tuple(values["end"])})


class Tokenizer:
    """Turns texts into (n, length) int32 tokens. Raises MissingPackageError if the package for it is not installed."""

    def __init__(self, rules: TokenRules) -> None:
        self._rules = rules
        package = _PACKAGES[rules.kind]
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                f"Searching by words with this model needs {package}, which is not installed: pip install {package}"
            )
        self._encode = _encode_bpe(rules.model) if rules.kind == BPE else _encode_pieces(rules.model)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return the tokens of some texts, one row for each."""
        rules = self._rules
        rows = np.full((len(texts), rules.length), rules.pad, dtype=np.int32)
        room = rules.length - len(rules.start) - len(rules.end)
        for row, tokens in zip(rows, self._encode([self._cleaned(text) for text in texts]), strict=True):
            packed = [*rules.start, *tokens[:room], *rules.end]
            row[: len(packed)] = packed
        return rows

    def _cleaned(self, text: str) -> str:
        if self._rules.lower:
            text = text.translate(_LOWER)
        if self._rules.canonical:
            text = _BLANKS.sub(" ", text.translate(_NO_PUNCTUATION)).strip("\t\n\v\f\r ")
        return text


def _encode_bpe(model: str) -> Callable[[list[str]], list[list[int]]]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_str(model)
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts)]


def _encode_pieces(model: str) -> Callable[[list[str]], list[list[int]]]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=base64.b64decode(model))
    return lambda texts: list(processor.encode(texts))


class TextTower:
    """Turns texts into unit vectors. The model is loaded on first use, and threads may share it.

    Raises ExtractorError if the model has no text tower, or if it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._xml, _, self._rules = (folder / name for name in TEXT_FILES)
        if not self._xml.is_file():
            raise ExtractorError(
                "The model of this index was trained on pictures alone and knows no words. To search by words, make an "
                "index with a CLIP or SigLIP model, or with a network that knows the classes of ImageNet."
            )
        self._lock = threading.Lock()  # a request runs one batch at a time
        self._loaded: tuple[Tokenizer, Any] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed n texts as (n, d) float32 vectors of length 1."""
        with self._lock:
            tokenizer, request = self._loaded = self._loaded or self._load()
            vectors = np.array(request.infer([tokenizer(texts)])[0], dtype=np.float32)
        return normalized(vectors, "l2")

    def _load(self) -> tuple[Tokenizer, Any]:
        try:
            tokenizer = Tokenizer(TokenRules.from_json(self._rules.read_text(encoding="utf-8")))
            model = compile_openvino(self._xml)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ExtractorError(
                f"The text model in {self._xml.parent} cannot be read ({error}). Delete that folder; the model is then "
                "exported again."
            ) from error
        return tokenizer, model.create_infer_request()


# -- the rules of a preset ---------------------------------------------------------------------------------------------


def read_rules(folder: Path, max_tokens: int) -> TokenRules:
    """Read the rules of the preset in a folder, whose text tower takes at most ``max_tokens`` tokens.

    Raises ExtractorError for an unknown kind of tokenizer.
    """
    config = _read(folder / "tokenizer.json")
    preprocessor = _read(folder / "preprocessor.json")["config"] if (folder / "preprocessor.json").is_file() else {}
    length = min(preprocessor.get("sequence_length") or max_tokens, max_tokens)
    assets = folder / "assets" / "tokenizer"
    match config["class_name"]:
        case "CLIPTokenizer":
            return _clip_rules(assets, config["config"], preprocessor, length)
        case "SigLIPTokenizer":
            end, pad = "</s>", "</s>"
        case "GemmaTokenizer":
            end, pad = "<eos>", "<pad>"
        case other:
            raise ExtractorError(f"The preset in {folder} has a tokenizer of an unknown kind: {other}.")
    return _siglip_rules(assets, preprocessor, length, end=end, pad=pad)


def _read(file: Path) -> dict[str, Any]:
    values = parse_json(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError(f"{file} is not an object")
    return values


def _clip_rules(assets: Path, config: dict[str, Any], preprocessor: dict[str, Any], length: int) -> TokenRules:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = _read(assets / "vocabulary.json")
    lines = (assets / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.rstrip().split(" ") for line in lines if line and not line.startswith("#version:"))
    merges = [(first, second) for first, second in pairs]
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=end, end_of_word_suffix="</w>"))
    tokenizer.add_special_tokens([start, end])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space"))),
        ]
    )
    return TokenRules(
        BPE,
        tokenizer.to_str(),
        length,
        (vocabulary[start],) if preprocessor.get("add_start_token", True) else (),
        (vocabulary[end],) if preprocessor.get("add_end_token", True) else (),
        vocabulary[end] if config.get("pad_with_end_token") else 0,
        lower=preprocessor.get("to_lower", True),
    )


def _siglip_rules(assets: Path, preprocessor: dict[str, Any], length: int, *, end: str, pad: str) -> TokenRules:
    from sentencepiece import SentencePieceProcessor

    proto = (assets / "vocabulary.spm").read_bytes()
    processor = SentencePieceProcessor(model_proto=proto)
    after = (processor.piece_to_id(end),) if preprocessor.get("add_end_token", True) else ()
    canonical = preprocessor.get("canonicalize_text", True)
    return TokenRules(
        SENTENCE_PIECE,
        base64.b64encode(proto).decode("ascii"),
        length,
        (),
        after,
        processor.piece_to_id(pad),
        lower=canonical,
        canonical=canonical,
    )
