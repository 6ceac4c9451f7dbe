"""VGG16 without a download: a file of random weights with the names and shapes of the published one.

Random weights take as much time as trained ones, provided that the activations neither vanish nor explode. So they are
drawn as in He et al. 2015 (https://arxiv.org/abs/1502.01852).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from measuring import say

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
_MAKE = """
import sys
import numpy as np
from keras.applications.vgg16 import VGG16
model, random = VGG16(weights=None), np.random.default_rng(16)
for layer in model.layers:
    if layer.weights:
        kernel, bias = layer.weights
        scale = np.float32(np.sqrt(2 / np.prod(kernel.shape[:-1])))
        kernel.assign(random.standard_normal(kernel.shape, dtype=np.float32) * scale)
        bias.assign(random.standard_normal(bias.shape, dtype=np.float32) * np.float32(0.05))
model.save_weights(sys.argv[1])
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add flags for existing files, each of which takes a minute to make."""
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of VGG16, instead of random ones")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep exported models there, for the next benchmark")


def set_cache(options: argparse.Namespace, folder: Path) -> Path:
    """Set the cache of exported models for this process and its children: ``--cache``, or one in ``folder``."""
    cache: Path = (options.cache or folder / "cache").absolute()
    os.environ["SEARCHENGINE_CACHE_DIR"] = str(cache)
    return cache


def weights(folder: Path, given: Path | None = None) -> Path:
    """Return ``given``, or a file of 553 MB in ``folder``, made in a subprocess unless it exists."""
    if given is not None:
        return given
    file = folder / "vgg16.weights.h5"
    if not file.exists():
        say("making VGG16 weights of the right shapes ...")
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.weights.h5"
        subprocess.run([sys.executable, "-c", _MAKE, str(unfinished)], check=True, env={**os.environ, **QUIET})
        unfinished.replace(file)
    return file
