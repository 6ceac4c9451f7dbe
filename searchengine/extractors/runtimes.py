"""Features by OpenVINO, on the processor: quick to start, without TensorFlow. Features by Keras: for a GPU."""

from __future__ import annotations

import contextlib
import ctypes.util
import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.extractor import BatchExtractor
from searchengine.extractors.frameworks import import_keras, import_openvino
from searchengine.extractors.networks import BuiltModel
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import Pixels
from searchengine.processors import thread_limit

# -- OpenVINO ---------------------------------------------------------------------------------------------------------

# Eight images of 224 x 224. More are no faster and take memory: VGG16 holds some 30 MB an image while it runs.
_PIXELS_A_BATCH = 8 * 224 * 224
_LARGEST_BATCH = 64


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A compiled model and the requests that run on it at the same time; none of them survives a fork."""

    pid: int
    idle: queue.LifoQueue[Any]


class OpenVINOExtractor(BatchExtractor):
    """An ``Extractor`` on an exported model, compiled when it is first used: fork before that, not after.

    ``remake`` exports a model again that cannot be loaded. ExtractorError for bfloat16 on a processor that does not
    compute in it.
    """

    runtime = "openvino"
    device = "CPU"

    def __init__(
        self,
        spec: ExtractorSpec,
        model: ExportedModel,
        *,
        precision: str = "auto",
        remake: Callable[[], ExportedModel] | None = None,
    ) -> None:
        height, width = spec.input_size
        super().__init__(spec, model.parts, max(1, min(_LARGEST_BATCH, _PIXELS_A_BATCH // (height * width))))
        self._model = model
        self._remake = remake
        self._lock = threading.Lock()
        self._compiled: _Compiled | None = None
        self._precision = None if precision == "auto" else precision
        if precision == "bfloat16" and not _has_bfloat16():
            raise ExtractorError(
                "This processor does not compute in bfloat16 natively: use --precision float32, or --precision auto, "
                "which takes what the processor does best."
            )

    @property
    def precision(self) -> str:
        """ "auto" decided: bfloat16 where the processor has it natively, else float32."""
        if self._precision is None:
            self._precision = "bfloat16" if _has_bfloat16() else "float32"
        return self._precision

    def _run(self, batch: Pixels) -> NDArray[np.float32]:
        with self._request() as request:
            # (m, h, w, 3) -> (m, d) float32; the request keeps its output, so it is copied
            request.infer({0: batch}, share_inputs=True)
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        """A request for this caller alone: a shared one raises "Infer Request is busy"."""
        compiled = self._compiled
        if compiled is None or compiled.pid != os.getpid():
            compiled = self._compile()
        request = compiled.idle.get()
        try:
            yield request
        finally:
            compiled.idle.put(request)

    def _compile(self) -> _Compiled:
        if self._compiled is not None and self._compiled.pid != os.getpid():
            self._lock = threading.Lock()  # the parent's may have been held when it forked
        with self._lock:
            if self._compiled is None or self._compiled.pid != os.getpid():
                self._compiled = _Compiled(os.getpid(), self._new_requests())
            return self._compiled

    def _new_requests(self) -> queue.LifoQueue[Any]:
        try:
            model = self._load()
        except RuntimeError as error:
            if self._remake is None:
                raise ExtractorError(f"OpenVINO cannot load {self._model.xml}: {error}") from error
            self._model = self._remake()
            try:
                model = self._load()
            except RuntimeError as again:
                raise ExtractorError(f"OpenVINO cannot load {self._model.xml}: {again}") from again
        # As many as run in parallel; a request for each thread would take memory and gain nothing.
        idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")):
            idle.put(model.create_infer_request())
        return idle

    def _load(self) -> Any:
        settings: dict[str, Any] = {
            # Never left unset: OpenVINO would choose bfloat16 by itself.
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[self.precision],
            # All threads work on one batch: as fast as several streams, a third of the memory, no wait for a query.
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned threads wait for whatever else runs on their processor, such as decoding.
            "ENABLE_CPU_PINNING": False,
        }
        threads = thread_limit()
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        # The batch stays dynamic: fixed sizes were no faster. No CACHE_DIR: it doubles the disk use and saves nothing.
        return import_openvino().Core().compile_model(str(self._model.xml), "CPU", settings)


def _has_bfloat16() -> bool:
    return "BF16" in import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


# -- Keras ------------------------------------------------------------------------------------------------------------

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
