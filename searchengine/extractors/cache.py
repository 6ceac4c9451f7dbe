"""The folder of exported models: its contents, whether they are complete, and who may write to it.

::

    <cache>/models/<fingerprint>/model.xml, model.bin   the network, as OpenVINO reads it
                                 text.xml, text.bin     its text tower, if it has one
                                 text.json              how the text tower's tokens are made
                                 export.json            the spec, the sizes of the layers, sizes and hashes of the files
    <cache>/models/.lock                                held by the process that is exporting
    <cache>/indexes/<hash of its path>.json             the exported model that an index uses
    <cache>/hashes.json                                 hashes of large weights files
    <cache>/presets.json                                folders of downloaded KerasHub presets

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
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """A model that OpenVINO can read: ``xml``, with its weights beside it, gives (n, ``dimension``) float32.

    ``parts`` are the sizes that its layers contribute to a feature; they add up to the dimension.
    """

    xml: Path
    parts: tuple[int, ...]

    @property
    def dimension(self) -> int:
        """The length of a feature."""
        return sum(self.parts)


def cache_root() -> Path:
    """Return the folder of everything that can be recomputed; it is not created here."""
    return load_settings(only=("cache_dir",)).cache_root


def models_folder() -> Path:
    """Return the folder that contains a folder for each model."""
    return cache_root() / "models"


def entry_folder(spec: ExtractorSpec) -> Path:
    """Return the folder of a model, which may not exist; normalisation and decoding make no difference."""
    return models_folder() / spec.network.fingerprint


def lookup(spec: ExtractorSpec) -> ExportedModel | None:
    """Return the exported model of a spec, or None if it is missing or damaged.

    Weights are hashed again only if their modification time has changed.
    """
    folder = entry_folder(spec)
    try:
        manifest = parse_json((folder / _MANIFEST).read_text(encoding="utf-8"))
        files = {name: manifest["files"][name] for name in {*MODEL_FILES, *manifest["files"]}}
        intact = all(_unchanged(folder / name, recorded) for name, recorded in files.items())
        parts = tuple(int(part) for part in manifest["parts"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return ExportedModel(folder / MODEL_FILES[0], parts) if intact and parts and min(parts) > 0 else None


def _unchanged(file: Path, recorded: dict[str, Any]) -> bool:
    info = file.stat()
    if info.st_size != recorded["size"]:
        return False
    if file.suffix == ".bin" and info.st_mtime_ns == recorded["mtime_ns"]:
        return True
    return bool(file_hashes(file)["sha256"] == recorded["sha256"])


@contextlib.contextmanager
def new_entry(spec: ExtractorSpec) -> Iterator[Path]:
    """Provide an empty folder to export into, which replaces the cache entry in one step at the end of the block.

    The caller holds the export lock. Raises ExtractorError if the cache cannot be written.
    """
    with _writable():
        models_folder().mkdir(parents=True, exist_ok=True)
        for remains in models_folder().glob(f"{_UNFINISHED}*"):  # of a process that was killed
            shutil.rmtree(remains, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=models_folder()))
    try:
        yield folder
        entry = entry_folder(spec)
        with _writable():
            damaged = folder.with_name(f"{folder.name}-damaged")
            if entry.exists():  # a folder cannot be renamed onto another
                entry.rename(damaged)
            folder.chmod(0o755)
            folder.rename(entry)
        shutil.rmtree(damaged, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def store(spec: ExtractorSpec, parts: tuple[int, ...], files: Mapping[str, Iterable[bytes]], say: Say) -> None:
    """Cache an exported model that was sent from another machine, unless it is cached already.

    ``files`` has the contents of each of ``MODEL_FILES``, in pieces.
    """
    with export_lock(say):
        if lookup(spec) is not None:
            return
        with new_entry(spec) as folder:
            for name in MODEL_FILES:
                with (folder / name).open("wb") as file:
                    file.writelines(files[name])
            write_manifest(folder, spec, parts)


def write_manifest(folder: Path, spec: ExtractorSpec, parts: tuple[int, ...]) -> None:
    """Complete an entry: flush its files and write its manifest."""
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
    """Hold the lock of the cache. One process exports at a time, because an export takes gigabytes of memory."""
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
            "or set the environment variable SEARCHENGINE_CACHE_DIR to another folder."
        ) from error


# -- models in use -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """An exported model on the disk. ``indexes`` are the folders of the existing indexes that use it."""

    fingerprint: str
    title: str
    size: int
    used: float
    indexes: tuple[Path, ...]


def note_use(spec: ExtractorSpec, index_dir: Path) -> None:
    """Record that an index uses the model of a spec, so that it is not cleared. A read-only cache is left unchanged.

    The record identifies the folder itself: another folder mounted or created later at the same path gets its own.
    """
    with contextlib.suppress(OSError, UnicodeEncodeError):
        folder = index_dir.absolute()
        identity = folder.stat()
        key = hashlib.sha256(os.fsencode(f"{identity.st_dev} {identity.st_ino} {folder}")).hexdigest()[:16]
        note = cache_root() / "indexes" / f"{key}.json"
        text = json.dumps({"index": str(folder), "model": spec.network.fingerprint})
        if not note.is_file() or note.read_text(encoding="utf-8") != text:
            replace_text(note, text)
        os.utime(entry_folder(spec))  # records when it was last used


def _is_gone(index_dir: Path) -> bool:
    """Return whether an index was deleted. An unmounted disk is different: the parent folder is missing or empty."""
    try:
        names = [file.name for file in index_dir.parent.iterdir()]
    except OSError:
        return False
    return bool(names) and index_dir.name not in names


def entries() -> list[CacheEntry]:
    """Return all exported models, the most recently used first."""
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
    """Return whether the weights are published or in an existing file; else the exported model is the only copy."""
    spec = _spec_of(models_folder() / entry.fingerprint)
    return spec is None or spec.weights == IMAGENET or find_by_hash(spec.weights.partition(":")[2]) is not None


def shrink(keep: ExtractorSpec) -> list[CacheEntry]:
    """Call ``clear`` if the cache exceeds the setting ``cache_gb``, keeping the model of a spec; errors are ignored."""
    with contextlib.suppress(SearchEngineError):
        largest = load_settings(only=("cache_gb",)).cache_gb * 1e9
        if sum(entry.size for entry in entries()) > largest:
            return clear(largest=largest, keep=keep)
    return []


def clear(*, largest: float = 0, keep: ExtractorSpec | None = None, say: Say = lambda text: None) -> list[CacheEntry]:
    """Delete models that no index uses, the least recently used first, and return the deleted entries.

    Stops as soon as the rest takes at most ``largest`` bytes. The model of ``keep`` and models whose weights exist
    nowhere else are kept. ``say`` is called with a sentence if another process holds the lock.
    """
    kept = None if keep is None else keep.network.fingerprint
    cleared = []
    with export_lock(say):
        exported = entries()
        total = sum(entry.size for entry in exported)
        for entry in reversed(exported):
            unused = not entry.indexes and entry.fingerprint != kept
            if total > largest and unused and _can_be_made_again(entry):
                shutil.rmtree(models_folder() / entry.fingerprint, ignore_errors=True)
                total -= entry.size
                cleared.append(entry)
    return cleared


# -- weights files by their hash --------------------------------------------------------------------------------------


def read_signature(file: Path, *, flag: str) -> bytes:
    """Return the first 8 bytes of a file that the user named. Raises WeightsNotFoundError if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(8)
    except OSError as error:
        raise WeightsNotFoundError(
            f"The file {file} cannot be read: {error.strerror}. Check the path given to {flag}."
        ) from error


def check_weights(file: Path, identity: str, spec: ExtractorSpec, *, flag: str) -> None:
    """Raise WeightsNotFoundError if the file that the user named does not hold the weights of the spec."""
    if identity != spec.weights:
        raise WeightsNotFoundError(
            f"{file} holds the wrong weights: {_short(identity)} instead of {_short(spec.weights)}. Give the file that "
            f"the index was made with to {flag}."
        )


def find_weights(spec: ExtractorSpec, *, flag: str) -> Path:
    """Return the file that a spec identifies by its hash, where it was last seen.

    Raises WeightsNotFoundError if it no longer exists.
    """
    path = find_by_hash(spec.weights.partition(":")[2])
    if path is None:
        raise WeightsNotFoundError(
            f"The weights of {spec.title} ({_short(spec.weights)}) are missing. Give the file that the index was "
            f"made with to {flag}."
        )
    return path


def _short(weights: str) -> str:
    kind, _, digest = weights.partition(":")
    return f"{kind} {digest[:12]}" if digest else kind


def file_hashes(file: Path) -> dict[str, str]:
    """Return the ``sha256`` and ``md5`` of a file in lower-case hexadecimal, reading it once."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            sha256.update(block)
            md5.update(block)
    return {"sha256": sha256.hexdigest(), "md5": md5.hexdigest()}


def remembered_hashes(file: Path) -> dict[str, str]:
    """Return ``file_hashes``, cached while the file keeps its size and time: half a gigabyte takes seconds."""
    file = file.resolve()
    info = file.stat()
    stamp = {"size": info.st_size, "mtime_ns": info.st_mtime_ns}
    records = _known_hashes()
    record = records.get(str(file))
    if record and all(record.get(key) == value for key, value in stamp.items()):
        return {"sha256": record["sha256"], "md5": record["md5"]}
    hashes = file_hashes(file)
    # A file that was just written can change again without a new modification time.
    if time.time_ns() - info.st_mtime_ns > 2_000_000_000:
        records[str(file)] = {**stamp, **hashes}
        with contextlib.suppress(OSError):
            replace_text(cache_root() / "hashes.json", json.dumps(records, indent=1))
    return hashes


def find_by_hash(sha256: str) -> Path | None:
    """Return a file with that hash that was seen before and still exists unchanged, if there is one."""
    for path, entry in _known_hashes().items():
        with contextlib.suppress(OSError, AttributeError, KeyError):
            if entry["sha256"] == sha256 and remembered_hashes(Path(path))["sha256"] == sha256:
                return Path(path)
    return None


def _known_hashes() -> dict[str, Any]:
    try:
        records = parse_json((cache_root() / "hashes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return records if isinstance(records, dict) else {}
