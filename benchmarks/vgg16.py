"""VGG16 without a download: a file of random weights that has the names and shapes of the published one.

Random weights cost as much time as trained ones, provided the activations neither die nor grow; so they are drawn as
He et al. 2015 (https://arxiv.org/abs/1502.01852) say.
"""

from __future__ import annotations

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


def weights(folder: Path) -> Path:
    """The file, 553 MB; made in a process of its own if ``folder`` does not hold it yet."""
    file = folder / "vgg16.weights.h5"
    if not file.exists():
        say("making VGG16 weights of the right shapes ...")
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / "unfinished.weights.h5"
        subprocess.run([sys.executable, "-c", _MAKE, str(unfinished)], check=True, env={**os.environ, **QUIET})
        unfinished.replace(file)
    return file
