"""The teacher of the compact model: what a published network says of pictures, computed once and kept.

The teacher is any image model that OpenVINO reads and that takes the mean over positions near its end. That mean is the
first part of what it says; where classes follow, their logits are the second, which tell of each picture what it is a
little like. In practice it is the MobileNetV2 of google-coral/test_data. Pictures of 64 px serve best at an input of
192 px, a little less than its own 224 px: enlarging further only blurs.
"""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from searchengine.errors import SearchEngineError
from searchengine.extractors.pixels import normalized
from searchengine.learning.photos import is_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from searchengine.learning.photos import Pixels

    Answers = npt.NDArray[np.float16]

SIZE = 192


class Teacher:
    """A network read from a file: (n, size, size, 3) uint8 -> (n, d) float16, in parts.

    `parts` are the widths of the parts, d in all: the mean over positions (>= 0 in a network of ReLU) and, where the
    network is a classifier by softmax, its logits. Raises SearchEngineError where the file is no network, or one that
    takes no such pictures or no mean over positions.
    """

    def __init__(self, path: Path, *, size: int = SIZE, batch: int = 32) -> None:
        import openvino as ov

        if not path.is_file():
            raise SearchEngineError(f"{path} is not a file; name the network that teaches: --teacher FILE")
        core = ov.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise SearchEngineError(
                f"{path} cannot be read as a network; --teacher wants a .tflite, .onnx, or an .xml with its .bin beside"
            ) from error
        try:
            asked = ov.Model(_outputs(model, path), model.get_parameters())
            asked.reshape([batch, size, size, 3])
            compiled = core.compile_model(asked, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise SearchEngineError(
                f"{path} takes no pictures of (n, {size}, {size}, 3); --teacher wants a network that does"
            ) from error
        self._request: Any = compiled.create_infer_request()
        self.size = size
        self.batch = batch
        self.parts = tuple(int(np.prod(list(output.shape)[1:])) for output in compiled.outputs)

    def answer(self, pictures: Pixels | Sequence[Pixels]) -> Answers:
        """At most `batch` pictures of any size, n x (h, w, 3) uint8 -> (n, d) float16."""
        full = np.zeros((self.batch, self.size, self.size, 3), np.uint8)
        for row, picture in enumerate(pictures):
            if picture.shape[:2] != (self.size, self.size):
                resized = Image.fromarray(picture).resize((self.size, self.size), Image.Resampling.BICUBIC)
                picture = np.asarray(resized)
            full[row] = picture
        self._request.infer([full])
        outputs = [self._request.get_output_tensor(part).data for part in range(len(self.parts))]
        rows = np.hstack([output.reshape(self.batch, -1)[: len(pictures)] for output in outputs])
        return rows.astype(np.float16)

    def embed(self, pictures: Pixels | Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """The mean over positions alone, of any number of pictures: n x (h, w, 3) uint8 -> (n, parts[0]) float32."""
        batches = [pictures[start : start + self.batch] for start in range(0, len(pictures), self.batch)]
        return np.concatenate([self.answer(batch)[:, : self.parts[0]] for batch in batches]).astype(np.float32)


def _outputs(model: Any, path: Path) -> list[Any]:
    """The mean over positions, made one of any size, and the logits where there are some."""
    import openvino.opset13 as ops

    nodes = model.get_ordered_ops()
    for node in nodes:  # a shape that was written for one picture of one size
        if node.get_type_name() == "Reshape" and node.input_value(1).get_node().get_type_name() == "Constant":
            target = node.input_value(1).get_node().get_data()
            if len(target) == 2 and target[0] == 1:
                node.input(1).replace_source_output(ops.constant(np.array([-1, target[1]])).output(0))
    means = [node for node in nodes if node.get_type_name() in ("AvgPool", "ReduceMean")]
    if not means:
        raise SearchEngineError(f"{path} takes no mean over positions: it cannot teach")
    places = means[-1].input_value(0)
    mean = ops.reduce_mean(places, np.array([2, 3]), keep_dims=True).output(0)
    means[-1].output(0).replace(mean)
    softmaxes = [node for node in nodes if node.get_type_name() == "Softmax"]
    return [mean, *(node.input_value(0) for node in softmaxes[-1:])]


@dataclass(frozen=True)
class Told:
    """What a teacher said: answers (n, d) float16, and the widths of their parts."""

    answers: Answers
    parts: tuple[int, ...]


def answers_once(
    teacher_file: Path,
    kept: Path,
    count: int,
    source: Mapping[str, Any],
    pictures: Callable[[int, int], Sequence[Pixels]],
    *,
    size: int = SIZE,
) -> Told:
    """What the teacher says of `count` pictures, from `kept` + ".npy"; made there if need be.

    `pictures(first, after)` gives those numbers. `source` tells which pictures they are, and is kept in `kept` +
    ".json" with the teacher's name and digest. A run that was stopped goes on where it was: `kept` + ".done" counts the
    rows that are certain. Raises SearchEngineError where what is there was made from others.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    ready, done, note = (kept.with_name(f"{kept.name}.{suffix}") for suffix in ("npy", "done", "json"))
    start = int(done.read_text()) if done.exists() and ready.exists() else 0
    if not start:
        for stale in (done, note):
            stale.unlink(missing_ok=True)
    teacher = Teacher(teacher_file, size=size)
    there = len(np.lib.format.open_memmap(ready, "r")) if start else count
    named = {"teacher": teacher_file.name, "size": size, **source}
    digested = {**named, "digest": _digest(teacher_file)}
    if there != count or not (is_of(note, digested) or is_of(note, named)):  # earlier notes have the name alone
        raise SearchEngineError(
            f"{ready} was made from other photos or by another teacher ({there} rows); remove it to make it anew"
        )
    if start < count:
        rows = np.lib.format.open_memmap(ready, "r+" if start else "w+", np.float16, (count, sum(teacher.parts)))
        with ThreadPoolExecutor(1) as pool:  # the next pictures are made ready while these are looked at
            following = pool.submit(pictures, start, min(start + teacher.batch, count))
            for first in range(start, count, teacher.batch):
                batch, after = following.result(), first + teacher.batch
                if after < count:
                    following = pool.submit(pictures, after, min(after + teacher.batch, count))
                rows[first : first + len(batch)] = teacher.answer(batch)
                if (first - start) // teacher.batch % 50 == 49 or after >= count:
                    rows.flush()
                    done.write_text(str(first + len(batch)))
                    print(f"teacher: {first + len(batch)} of {count} {kept.name}", file=sys.stderr)  # noqa: T201
    return Told(np.lib.format.open_memmap(ready, "r"), teacher.parts)


def _digest(teacher_file: Path) -> str:
    """Of a network's bytes, those of the weights beside an .xml included: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for file in (teacher_file, teacher_file.with_suffix(".bin")):
        if file == teacher_file or (teacher_file.suffix == ".xml" and file.is_file()):
            digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Directions:
    """Makes answers into directions: every part about the mean of its directions, all parts counted alike.

    Means of ReLU all lie in one corner of space; without their mean, angles tell much more.
    """

    means: tuple[npt.NDArray[np.float32], ...]

    @classmethod
    def of(cls, answers: npt.NDArray[np.float32], parts: Sequence[int]) -> Directions:
        """Measured on answers (n, d) float32 whose parts are of these widths."""
        return cls(tuple(normalized(part, "l2").mean(axis=0) for part in _split(answers, parts)))

    def __call__(self, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Unit rows (n, d) float32."""
        parts = _split(answers, [len(mean) for mean in self.means])
        centred = [
            normalized(normalized(part, "l2") - mean, "l2") for part, mean in zip(parts, self.means, strict=True)
        ]
        rows: npt.NDArray[np.float32] = np.hstack(centred) / np.float32(np.sqrt(len(centred)))
        return rows


def _split(answers: npt.NDArray[np.float32], parts: Sequence[int]) -> list[npt.NDArray[np.float32]]:
    return np.split(answers, np.cumsum(parts)[:-1], axis=1)
