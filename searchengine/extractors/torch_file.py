"""Reads the weights in a file that PyTorch saved in its legacy format, without PyTorch, and runs nothing from it.

Such a file is a row of pickles: a magic number, the version of the protocol, facts about the machine, the state dict,
and the keys of the storages; then each storage as its length (int64) and its numbers. A pickle can name any function to
be called, so this reader knows only the four names that a state dict of plain tensors needs, and refuses all others.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import ExtractorError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage, offset and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, storages: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        numbers = storages[self.storage.key]
        last = self.offset + sum((side - 1) * stride for side, stride in zip(self.shape, self.strides, strict=True))
        if min(self.offset, *self.strides, *self.shape, 0) < 0 or last >= len(numbers):
            raise ValueError("a tensor reaches beyond its storage")
        steps = [stride * numbers.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False)
        return np.array(view)


class _Unpickler(pickle.Unpickler):
    """Makes ordered dicts, strings, numbers and ``_Tensor``, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}, which weights do not need")

    def persistent_load(self, pid: Any) -> _Storage:
        _, dtype, key, _, count, _ = pid  # "storage", type, key, device, elements, view
        return _Storage(str(key), _DTYPES[dtype], int(count))


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def read_state_dict(data: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a legacy PyTorch file by name, float32 or int64, each fresh. ExtractorError for anything else."""
    stream = io.BytesIO(data)

    def load() -> Any:
        return _Unpickler(stream).load()

    try:
        if (load(), load()) != (_MAGIC_NUMBER, _PROTOCOL):
            raise ValueError("it is not PyTorch's legacy format")
        load()  # facts about the machine that wrote it
        tensors = load()
        sizes = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        storages = {}
        for key in load():
            storage = sizes[key]
            if int.from_bytes(stream.read(8), "little") != storage.count:
                raise ValueError("a storage has another length than its tensors say")
            raw = stream.read(storage.count * storage.dtype.itemsize)
            storages[key] = np.frombuffer(raw, storage.dtype)
        return {str(name): tensor.read(storages) for name, tensor in tensors.items()}
    except Exception as error:  # a pickle that was tampered with fails in many ways
        raise ExtractorError(f"These are not weights as PyTorch saves them: {error}.") from error
