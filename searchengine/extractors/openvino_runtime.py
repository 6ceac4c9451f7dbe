"""Features by OpenVINO on the processor: quick to start, and TensorFlow stays away."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.extractor import BatchExtractor
from searchengine.extractors.frameworks import import_openvino
from searchengine.extractors.spec import ExtractorSpec
from searchengine.images import Pixels
from searchengine.processors import thread_limit

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
