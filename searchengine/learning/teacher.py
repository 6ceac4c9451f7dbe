"""The teacher of the compact model: embeddings of a published network, computed once and kept.

The teacher is any image model that OpenVINO reads and that ends in an average over positions, in practice the uint8
MobileNetV1 of google-coral/test_data. For pictures of 64 px an input of 160 px served better than its own 224 px and
costs half: enlarging further only blurs.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from searchengine.errors import SearchEngineError
from searchengine.learning.photos import is_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from searchengine.learning.photos import Pixels


class Teacher:
    """A network read from a file: (n, size, size, 3) uint8 -> (n, d) uint8, non-negative, in its quantised unit.

    The unit does not matter where directions are compared, as long as zero is zero, which holds for averages of ReLU.
    """

    def __init__(self, path: Path, *, size: int = 160, batch: int = 64) -> None:
        import openvino as ov
        import openvino.opset13 as ops

        core = ov.Core()
        model = core.read_model(path)
        for node in model.get_ordered_ops():
            if node.get_type_name() == "AvgPool":  # its window is as fixed as the size; a mean over all is not
                mean = ops.reduce_mean(node.input_value(0), np.array([2, 3]), keep_dims=True)
                node.output(0).replace(mean.output(0))
        model.validate_nodes_and_infer_types()
        model.reshape([batch, size, size, 3])
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self._request: Any = compiled.create_infer_request()
        self.size = size
        self.batch = batch
        self.dimension = int(np.prod(list(compiled.output(0).shape)[1:]))

    def embed(self, pictures: Pixels) -> npt.NDArray[np.uint8]:
        """At most `batch` pictures of any square size, (n, s, s, 3) uint8 -> (n, d) uint8."""
        full = np.zeros((self.batch, self.size, self.size, 3), np.uint8)
        for row, picture in enumerate(pictures):
            resized = Image.fromarray(picture).resize((self.size, self.size), Image.Resampling.BICUBIC)
            full[row] = np.asarray(resized)
        self._request.infer([full])
        answer = self._request.get_output_tensor().data
        return np.array(answer.reshape(self.batch, -1)[: len(pictures)], dtype=np.uint8)


def embed_once(teacher_file: Path, pixels: Pixels, cache: Path) -> npt.NDArray[np.uint8]:
    """The teacher's embeddings of all pictures, (n, d) uint8, from `cache/teacher.npy`; made there if need be.

    A run that was stopped goes on where it was: `teacher.done` counts the rows that are certain. `teacher.json` tells
    of which pictures and by which teacher they are. Raises SearchEngineError where these are others.
    """
    ready, done, note = cache / "teacher.npy", cache / "teacher.done", cache / "teacher.json"
    start = int(done.read_text()) if done.exists() and ready.exists() else 0
    if not start:
        for stale in (done, note):
            stale.unlink(missing_ok=True)
    content = hashlib.blake2b(np.ascontiguousarray(pixels).data.cast("B"), digest_size=16)
    these = {"teacher": teacher_file.name, "pictures": content.hexdigest()}
    kept = len(np.lib.format.open_memmap(ready, "r")) if start else len(pixels)
    if kept != len(pixels) or not is_of(note, these):
        raise SearchEngineError(
            f"{ready} was made from other photos or by another teacher ({kept} rows); remove it to make it anew"
        )
    if start < len(pixels):
        teacher = Teacher(teacher_file)
        mode = "r+" if start else "w+"
        rows = np.lib.format.open_memmap(ready, mode, np.uint8, (len(pixels), teacher.dimension))
        starts = range(start, len(pixels), teacher.batch)
        with ThreadPoolExecutor(1) as pool:  # the next batch is read from disk while this one runs
            following = pool.submit(lambda s: np.array(pixels[s : s + teacher.batch]), start)
            for first in starts:
                batch = following.result()
                after = first + teacher.batch
                following = pool.submit(lambda s: np.array(pixels[s : s + teacher.batch]), after)
                rows[first : first + len(batch)] = teacher.embed(batch)
                if (first - start) // teacher.batch % 50 == 49 or after >= len(pixels):
                    rows.flush()
                    done.write_text(str(first + len(batch)))
                    print(f"teacher: {first + len(batch)} of {len(pixels)} images", file=sys.stderr)  # noqa: T201
    result: npt.NDArray[np.uint8] = np.lib.format.open_memmap(ready, "r")
    return result


def directions(embeddings: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Centre and scale of the teacher's space: mean direction (d,), and unit rows about it, (n, d) float32.

    Averages of ReLU all lie in one corner of space; without their mean, angles tell much more.
    """
    unit = embeddings.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    mean = unit.mean(axis=0)
    centred = unit - mean
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return mean, centred
