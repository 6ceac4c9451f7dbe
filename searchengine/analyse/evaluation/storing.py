"""The last evaluation of an index lives with it, as JSON, so that the page can show what took minutes to measure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from searchengine.analyse.evaluation.results import Evaluation, to_json
from searchengine.errors import IndexDamagedError
from searchengine.files import output_file
from searchengine.index.local import LocalIndex

SHEET = "evaluation.json"
_FORMAT = 1
_MOST_BYTES = 2**28
_NOT_KEPT = {"per_query", "confusion"}  # the one is for further computing, the other has its own form


@dataclass(frozen=True, slots=True)
class Kept:
    """An evaluation as it was; ``made`` is ISO 8601 in UTC.

    ``stale``: images or labels have changed since, or another extractor has made the features. ``ids`` are the images
    of that path now.
    """

    evaluation: Evaluation
    made: str
    stale: bool
    ids: Mapping[str, int]


def evaluated_version(index: LocalIndex) -> str:
    """16 hexadecimal digits that differ whenever an image comes, goes, or changes its labels or content."""
    return _look(index)[0]


def keep_evaluation(index: LocalIndex, evaluation: Evaluation, version: str) -> Path:
    """Keep it with the index that it is of; IndexingError where the folder cannot be written to.

    ``version`` is ``evaluated_version`` from before the evaluation began.
    """
    sheet = {
        "format": _FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": index.fingerprint,
        "version": version,
        "evaluation": _without_files(to_json(evaluation)),
        "confusion": [[label, other, share] for (label, other), share in evaluation.confusion.items()],
    }
    file = index.folder / SHEET
    with output_file(file) as part:
        part.write_text(json.dumps(sheet, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    return file


def load_evaluation(index: LocalIndex) -> Kept | None:
    """The evaluation that lives with an index, or None; IndexDamagedError where it cannot be read.

    What is for further computing only, ``per_query``, is not in it, and no picture has a file: a path that stands in a
    file of the index is not one to open.
    """
    path = index.folder / SHEET
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large to be true")
        sheet = json.loads(path.read_bytes())
        if sheet["format"] != _FORMAT:
            raise ValueError(f"format {sheet['format']!r}")
        evaluation = _made(Evaluation, sheet["evaluation"])
        confusion = {(_made(str, a), _made(str, b)): _made(float, share) for a, b, share in sheet["confusion"]}
        made, told = _made(str, sheet["made"]), (_made(str, sheet["fingerprint"]), _made(str, sheet["version"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise IndexDamagedError(
            f"{path} cannot be read. Delete it and measure anew: searchengine evaluate --index-dir {index.folder}"
        ) from error
    version, ids = _look(index)
    evaluation = dataclasses.replace(evaluation, confusion=confusion)
    return Kept(evaluation, made, (index.fingerprint, version) != told, ids)


def _look(index: LocalIndex) -> tuple[str, dict[str, int]]:
    """The version, and the id of each path."""
    digest = hashlib.sha256()
    ids: dict[str, int] = {}
    for record in index.known(sorted(index.ids.tolist())):
        ids.setdefault(record.path, record.id)
        digest.update(f"{record.id}\0{record.content_hash}\0{json.dumps(record.labels)}\n".encode())
    return digest.hexdigest()[:16], ids


def _without_files(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: None if name == "file" else _without_files(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_files(one) for one in value]
    return value


def _made(kind: Any, value: Any) -> Any:
    """A value of that type from what JSON has of it; TypeError, KeyError or ValueError where it is none."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        wanted = [one for one in dataclasses.fields(kind) if one.name not in _NOT_KEPT]
        given = {
            one.name: _made(hints[one.name], value[one.name])
            for one in wanted
            if one.name in value or one.default is dataclasses.MISSING  # what came later has a default
        }
        return kind(**given)  # type: ignore[operator]
    if isinstance(kind, types.UnionType):
        return None if value is None else _made(typing.get_args(kind)[0], value)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise TypeError(f"{value!r} is no list")
        return tuple(_made(typing.get_args(kind)[0], one) for one in value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind not in (str, int, bool) or type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind}")
    return value
