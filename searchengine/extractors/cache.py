"""The folder of exported models: what is in it, whether it is complete, and who may write to it.

::

    <cache>/models/<fingerprint>/model.xml, model.bin   the network, as OpenVINO reads it
                                 text.xml, text.bin     its text tower, if it has one
                                 text.json              how texts become tokens for that
                                 export.json            sizes and hashes of all, the spec, the numbers of each layer
    <cache>/models/.lock                                held by the one process that exports
    <cache>/indexes/<hash of its path>.json             which exported model an index uses
    <cache>/hashes.json                                 of large weights files that were hashed before
    <cache>/presets.json                                where presets of KerasHub were downloaded to

``<cache>`` is the setting ``cache_dir``, or the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchengine.errors import ExtractorError, SearchEngineError, WeightsNotFoundError
from searchengine.extractors.spec import IMAGENET, ExtractorSpec
from searchengine.files import flush, locked, parse_json, replace_text
from searchengine.progress import Say
from searchengine.settings import load_settings

MODEL_FILES = ("model.xml", "model.bin")
TEXT_FILES = ("text.xml", "text.bin", "text.json")
_MANIFEST = "export.json"
_UNFINISHED = ".unfinished-"
_QUICKLY_HASHED = 1 << 20  # bytes
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A model that OpenVINO can read: ``xml`` (its weights lie beside it) gives (n, ``dimension``) float32.

    ``parts`` are the numbers that each of its layers contributes to a feature; they add up to the dimension.
    """

    xml: Path
    parts: tuple[int, ...]

    @property
    def dimension(self) -> int:
        """Numbers in a feature."""
        return sum(self.parts)


def cache_root() -> Path:
    """The folder of everything that can be recomputed; not created here."""
    return load_settings(only=("cache_dir",)).cache_root


def models_folder() -> Path:
    """The folder with a folder for each model."""
    return cache_root() / "models"


def entry_folder(spec: ExtractorSpec) -> Path:
    """The folder of a model, whether it exists or not; normalisation and decoding make no difference."""
    return models_folder() / spec.network.fingerprint


def lookup(spec: ExtractorSpec, *, thorough: bool = False) -> ExportedModel | None:
    """The exported model of a spec, or None if it is missing or damaged.

    A large file is hashed again only if its time is not the recorded one, or if ``thorough``.
    """
    folder = entry_folder(spec)
    try:
        manifest = parse_json((folder / _MANIFEST).read_text(encoding="utf-8"))
        files = {name: manifest["files"][name] for name in {*MODEL_FILES, *manifest["files"]}}
        whole = all(_unchanged(folder / name, known, thorough) for name, known in files.items())
        parts = tuple(int(part) for part in manifest["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ExportedModel(folder / MODEL_FILES[0], parts) if whole and parts and min(parts) > 0 else None


def _unchanged(file: Path, known: dict[str, Any], thorough: bool) -> bool:
    info = file.stat()
    if info.st_size != known["size"]:
        return False
    if info.st_mtime_ns == known["mtime_ns"] and info.st_size > _QUICKLY_HASHED and not thorough:
        return True
    return bool(file_hashes(file)["sha256"] == known["sha256"])


@contextlib.contextmanager
def new_entry(spec: ExtractorSpec) -> Iterator[Path]:
    """An empty folder to export into; at the end of the block it takes the place of the entry in one step.

    The caller holds the lock. ExtractorError if the cache cannot be written.
    """
    with _writable():
        models_folder().mkdir(parents=True, exist_ok=True)
        for left in models_folder().glob(f"{_UNFINISHED}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=models_folder()))
    try:
        yield folder
        place = entry_folder(spec)
        with _writable():
            aside = folder.with_name(f"{folder.name}-damaged")
            if place.exists():  # a folder cannot be renamed onto another
                place.rename(aside)
            folder.chmod(0o755)
            folder.rename(place)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def store(spec: ExtractorSpec, parts: tuple[int, ...], files: Mapping[str, Iterable[bytes]], say: Say) -> None:
    """Keep an exported model from another machine unless it is cached: each of ``MODEL_FILES`` in pieces."""
    with export_lock(say):
        if lookup(spec) is not None:
            return
        with new_entry(spec) as folder:
            for name in MODEL_FILES:
                with (folder / name).open("wb") as file:
                    file.writelines(files[name])
            write_manifest(folder, spec, parts)


def write_manifest(folder: Path, spec: ExtractorSpec, parts: tuple[int, ...]) -> None:
    """Complete an entry: its files are flushed and described."""
    files = {}
    for name in sorted(file.name for file in folder.iterdir() if file.name in (*MODEL_FILES, *TEXT_FILES)):
        flush(folder / name)
        info = (folder / name).stat()
        files[name] = {
            "size": info.st_size,
            "mtime_ns": info.st_mtime_ns,
            "sha256": file_hashes(folder / name)["sha256"],
        }
    manifest = {"spec": parse_json(spec.to_json()), "parts": parts, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


@contextlib.contextmanager
def export_lock(say: Say) -> Iterator[None]:
    """Hold the lock of the cache: an export takes gigabytes of memory, so one process exports at a time."""
    with contextlib.ExitStack() as stack:
        with _writable():
            models_folder().mkdir(parents=True, exist_ok=True)
            waiting = "waiting for another process that is preparing a model ..."
            stack.enter_context(locked(models_folder() / ".lock", on_wait=lambda: say(waiting)))
        yield


@contextlib.contextmanager
def _writable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExtractorError(
            f"The model cache {models_folder()} cannot be written: {error.strerror or error}. Free some space there, "
            "or name another folder in the environment variable SEARCHENGINE_CACHE_DIR."
        ) from error


# -- which models are in use ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An exported model on the disk. ``indexes`` are the folders of the indexes that use it and still exist."""

    fingerprint: str
    title: str
    size: int
    used: float
    indexes: tuple[Path, ...]


def note_use(spec: ExtractorSpec, index_dir: Path) -> None:
    """Record that an index uses the model of a spec, so that it is not cleared. A read-only cache stays as it is.

    The record is of the folder itself: another folder mounted or made at the same place later has its own.
    """
    with contextlib.suppress(OSError, UnicodeEncodeError):
        folder = index_dir.absolute()
        identity = folder.stat()
        key = hashlib.sha256(os.fsencode(f"{identity.st_dev} {identity.st_ino} {folder}")).hexdigest()[:16]
        note = cache_root() / "indexes" / f"{key}.json"
        text = json.dumps({"index": str(folder), "model": spec.network.fingerprint})
        if not note.is_file() or note.read_text(encoding="utf-8") != text:
            replace_text(note, text)
        os.utime(entry_folder(spec))  # when it was last used


def _is_gone(index_dir: Path) -> bool:
    """Whether an index was deleted. A disk that is not mounted leaves no folder around it, or an empty one."""
    try:
        names = [file.name for file in index_dir.parent.iterdir()]
    except OSError:
        return False
    return bool(names) and index_dir.name not in names


def entries() -> list[CacheEntry]:
    """All exported models, the most recently used first."""
    users: dict[str, list[Path]] = {}
    for note in sorted((cache_root() / "indexes").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = parse_json(note.read_text(encoding="utf-8"))
            if not _is_gone(Path(values["index"])):
                users.setdefault(values["model"], []).append(Path(values["index"]))
    exported = []
    for folder in models_folder().glob("*"):
        with contextlib.suppress(OSError):
            files = {file.name: file.stat().st_size for file in folder.iterdir()}
            if not _FINGERPRINT.fullmatch(folder.name) or files.keys() - {*MODEL_FILES, *TEXT_FILES, _MANIFEST}:
                continue  # not ours
            indexes = tuple(users.get(folder.name, ()))
            used = folder.stat().st_mtime
            exported.append(CacheEntry(folder.name, _title(folder), sum(files.values()), used, indexes))
    return sorted(exported, key=lambda entry: entry.used, reverse=True)


def _spec_of(folder: Path) -> ExtractorSpec | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, ExtractorError):
        manifest = parse_json((folder / _MANIFEST).read_text(encoding="utf-8"))
        return ExtractorSpec.from_json(json.dumps(manifest["spec"]))
    return None


def _title(folder: Path) -> str:
    spec = _spec_of(folder)
    return "damaged" if spec is None else spec.title.rpartition(",")[0]


def _can_be_made_again(entry: CacheEntry) -> bool:
    """Whether its weights are published, or in a file that still exists: else the exported model is the only copy."""
    spec = _spec_of(models_folder() / entry.fingerprint)
    return spec is None or spec.weights == IMAGENET or find_by_hash(spec.weights.partition(":")[2]) is not None


def shrink(keep: ExtractorSpec) -> list[CacheEntry]:
    """``clear`` what exceeds the setting ``cache_gb``, but not the model of a spec; does nothing where that fails."""
    with contextlib.suppress(SearchEngineError):
        largest = load_settings(only=("cache_gb",)).cache_gb * 1e9
        if sum(entry.size for entry in entries()) > largest:
            return clear(largest=largest, keep=keep)
    return []


def clear(*, largest: float = 0, keep: ExtractorSpec | None = None, say: Say = lambda text: None) -> list[CacheEntry]:
    """Delete models that no index uses, the least recently used first; returns the deleted entries.

    Stops as soon as the rest takes at most ``largest`` bytes. Keeps the model of ``keep``, and those whose weights are
    nowhere else. ``say`` gets a sentence if another process has to be waited for.
    """
    spared = None if keep is None else keep.network.fingerprint
    cleared = []
    with export_lock(say):
        exported = entries()
        total = sum(entry.size for entry in exported)
        for entry in reversed(exported):
            unused = not entry.indexes and entry.fingerprint != spared
            if total > largest and unused and _can_be_made_again(entry):
                shutil.rmtree(models_folder() / entry.fingerprint, ignore_errors=True)
                total -= entry.size
                cleared.append(entry)
    return cleared


# -- weights files by their hash --------------------------------------------------------------------------------------


def read_signature(file: Path, *, flag: str) -> bytes:
    """The first 8 bytes of a file that the user named; WeightsNotFoundError if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(8)
    except OSError as error:
        raise WeightsNotFoundError(
            f"The file {file} cannot be read: {error.strerror}. Check the path given to {flag}."
        ) from error


def check_weights(file: Path, identity: str, spec: ExtractorSpec, *, flag: str) -> None:
    """WeightsNotFoundError if the file that the user gave does not hold the weights of the spec."""
    if identity != spec.weights:
        raise WeightsNotFoundError(
            f"{file} holds other weights than those asked for: it is {_short(identity)}, needed is "
            f"{_short(spec.weights)}. Give the file that the index was made with to {flag}."
        )


def find_weights(spec: ExtractorSpec, *, flag: str) -> Path:
    """The file that a spec names by its hash, where it was last seen. WeightsNotFoundError if it is gone."""
    known = find_by_hash(spec.weights.partition(":")[2])
    if known is None:
        raise WeightsNotFoundError(
            f"The weights of {spec.title} ({_short(spec.weights)}) are missing. Give the file that the index was "
            f"made with to {flag}."
        )
    return known


def _short(weights: str) -> str:
    kind, _, digest = weights.partition(":")
    return f"{kind} {digest[:12]}" if digest else kind


def file_hashes(file: Path) -> dict[str, str]:
    """Lower-case hexadecimal ``sha256`` and ``md5`` of a file, read once."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}


def remembered_hashes(file: Path) -> dict[str, str]:
    """As ``file_hashes``, but remembered for files that keep their size and time: half a gigabyte takes seconds."""
    file = file.resolve()
    info = file.stat()
    stamp = {"size": info.st_size, "mtime_ns": info.st_mtime_ns}
    known = _known_hashes()
    entry = known.get(str(file))
    if entry and all(entry.get(key) == value for key, value in stamp.items()):
        return {"sha256": entry["sha256"], "md5": entry["md5"]}
    hashes = file_hashes(file)
    # A file written a moment ago can change again without a new time.
    if time.time_ns() - info.st_mtime_ns > 2_000_000_000:
        known[str(file)] = {**stamp, **hashes}
        with contextlib.suppress(OSError):
            replace_text(cache_root() / "hashes.json", json.dumps(known, indent=1))
    return hashes


def find_by_hash(sha256: str) -> Path | None:
    """A file with that hash that was seen before and still exists, unchanged."""
    for path, entry in _known_hashes().items():
        with contextlib.suppress(OSError, AttributeError, KeyError):
            if entry["sha256"] == sha256 and remembered_hashes(Path(path))["sha256"] == sha256:
                return Path(path)
    return None


def _known_hashes() -> dict[str, Any]:
    try:
        known = parse_json((cache_root() / "hashes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
