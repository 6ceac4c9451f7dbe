"""Features by Keras on TensorFlow: for a GPU, and where OpenVINO is not installed."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.extractors.building import BuiltModel
from searchengine.extractors.extractor import BatchExtractor
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import Pixels

_BATCH_ON_CPU = 8
_BATCH_ON_GPU = 64
_AMPERE = (8, 0)  # the first NVIDIA architecture that computes in bfloat16


def gpu_in_sight() -> bool:
    """Whether TensorFlow is likely to find an NVIDIA GPU, without loading it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in {"", "-1"} or not any(Path("/dev").glob("nvidia[0-9]*")):
        return False
    # TensorFlow without the CUDA libraries would run on the processor, slower than OpenVINO does.
    packaged = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.cudnn") is not None
    return packaged or ctypes.util.find_library("cudnn") is not None


def gpu_found() -> bool:
    """Whether TensorFlow finds a GPU; loads TensorFlow."""
    import_keras()
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class KerasExtractor(BatchExtractor):
    """An ``Extractor`` by a compiled TensorFlow function. Loads TensorFlow into this process; do not fork after.

    ``precision`` "auto" is bfloat16 on a GPU that computes in it, else float32. ``build`` builds the model for a dtype
    policy.
    """

    runtime = "keras"

    def __init__(self, spec: ExtractorSpec, build: Callable[[str], BuiltModel], *, precision: str = "auto") -> None:
        import_keras()
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        self.device = "GPU" if gpus else "CPU"
        self.precision = _best_precision(tf, gpus) if precision == "auto" else precision
        if self.precision == "float32":
            # Recent GPUs would round to 10 bits of mantissa and still call it float32.
            tf.config.experimental.enable_tensor_float_32_execution(False)
        built = build("float32" if self.precision == "float32" else "mixed_bfloat16")
        model = built.model
        super().__init__(spec, built.parts, _BATCH_ON_GPU if gpus else _BATCH_ON_CPU)
        self._lock = threading.Lock()
        self._function = tf.function(
            lambda batch: model(batch, training=False),
            input_signature=[tf.TensorSpec((None, *spec.input_size, 3), model.inputs[0].dtype)],
        )

    def _run(self, batch: Pixels) -> NDArray[np.float32]:
        # One at a time: a batch uses the whole device, and two at once need twice the memory.
        with self._lock:
            return np.array(self._function(batch), dtype=np.float32)


def _best_precision(tf: Any, gpus: list[Any]) -> str:
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus]
    return "bfloat16" if capabilities and min(capabilities) >= _AMPERE else "float32"
