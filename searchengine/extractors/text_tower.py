"""The text tower of CLIP and SigLIP: words -> tokens -> a vector that is compared with features.

The tower is exported with the image tower, see ``cache``. Tokens are made by the packages tokenizers and sentencepiece
from the files of the preset, as KerasHub makes them; TensorFlow is not needed.
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
from searchengine.extractors.frameworks import import_openvino
from searchengine.files import parse_json

BPE, SENTENCE_PIECE = "bpe", "sentencepiece"
_PACKAGES = {BPE: "tokenizers", SENTENCE_PIECE: "sentencepiece"}
# TensorFlow's lower() and strip() know ASCII only, and its \s no vertical tab.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_BLANKS = re.compile("[\t\n\f\r ]+")
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True, slots=True)
class TokenRules:
    """How texts become tokens.

    Attributes:
        kind: "bpe" for CLIP, "sentencepiece" for SigLIP.
        model: the tokenizer: JSON as the package tokenizers writes it, or a SentencePiece file in base64.
        length: of each row of tokens: longer texts are cut off, shorter ones padded.
        start: what stands before the tokens of a text, and ``end`` after them; ``pad`` fills the rest.
        lower: whether letters become small ones first.
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
        """The inverse of ``from_json``."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TokenRules:
        """ValueError, KeyError and TypeError for anything but what ``to_json`` writes."""
        values = parse_json(text)
        return cls(**{**values, "start": tuple(values["start"]), "end": tuple(values["end"])})


class Tokenizer:
    """Texts -> (n, length) int32 tokens. MissingPackageError where the package for it is not installed."""

    def __init__(self, rules: TokenRules) -> None:
        self._rules = rules
        package = _PACKAGES[rules.kind]
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(
                f"Searching by the words of this model needs {package}, which is not installed: pip install {package}"
            )
        self._encode = _encode_bpe(rules.model) if rules.kind == BPE else _encode_pieces(rules.model)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Of several texts."""
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
    """Texts -> unit vectors; loaded when it is first used. Threads may share it.

    ExtractorError where the model has no text tower, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._xml, _, self._rules = (folder / name for name in TEXT_FILES)
        if not self._xml.is_file():
            raise ExtractorError(
                "The model of this index was trained on pictures alone, and knows no words. An index made with a CLIP "
                "or SigLIP model, or with a network that knows the classes of ImageNet, can be searched by words."
            )
        self._lock = threading.Lock()  # a request runs one batch at a time
        self._loaded: tuple[Tokenizer, Any] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """n texts -> (n, d) float32, each of length 1."""
        with self._lock:
            tokenizer, request = self._loaded = self._loaded or self._load()
            vectors = np.array(request.infer([tokenizer(texts)])[0], dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)

    def _load(self) -> tuple[Tokenizer, Any]:
        try:
            tokenizer = Tokenizer(TokenRules.from_json(self._rules.read_text(encoding="utf-8")))
            settings = {
                "INFERENCE_PRECISION_HINT": "f32",
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_CPU_PINNING": False,
            }
            model = import_openvino().Core().compile_model(str(self._xml), "CPU", settings)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ExtractorError(
                f"The text model in {self._xml.parent} cannot be read ({error}). Delete that folder; it is made again."
            ) from error
        return tokenizer, model.create_infer_request()


# -- the rules of a preset ---------------------------------------------------------------------------------------------


def read_rules(folder: Path, most_tokens: int) -> TokenRules:
    """Of the preset in a folder, whose tower takes ``most_tokens``. ExtractorError for a tokenizer of another kind."""
    config = _read(folder / "tokenizer.json")
    preprocessor = _read(folder / "preprocessor.json")["config"] if (folder / "preprocessor.json").is_file() else {}
    length = min(preprocessor.get("sequence_length") or most_tokens, most_tokens)
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
