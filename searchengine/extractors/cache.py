"""The folder of exported models: what is in it, whether it is whole, and who may write to it.

::

    <cache>/models/<fingerprint>/model.xml, model.bin   the network, as OpenVINO reads it
                                 export.json            sizes and hashes of both, the spec, the numbers of each layer
    <cache>/models/.lock                                held by the one process that exports
    <cache>/hashes.json                                 of large weights files that were hashed before

``<cache>`` is the setting ``cache_dir``, or the user's cache folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchengine.errors import ExtractorError
from searchengine.extractors.spec import ExtractorSpec
from searchengine.files import flush, locked, replace_text
from searchengine.settings import load_settings

MODEL_FILES = ("model.xml", "model.bin")
_MANIFEST = "export.json"
_UNFINISHED = ".unfinished-"
_QUICKLY_HASHED = 1 << 20  # bytes


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
    """Where everything lies that can be made again; not created here."""
    return load_settings(only=("cache_dir",)).cache_root


def models_folder() -> Path:
    """The folder that holds one folder a model."""
    return cache_root() / "models"


def entry_folder(spec: ExtractorSpec) -> Path:
    """The folder of this model, there or not; normalisation and decoding make no difference."""
    return models_folder() / spec.network.fingerprint


def lookup(spec: ExtractorSpec, *, thorough: bool = False) -> ExportedModel | None:
    """The exported model of a spec, or None if it is missing or damaged.

    A large file is hashed again only where its time differs from what was written down, or if ``thorough``.
    """
    folder = entry_folder(spec)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        whole = all(_unchanged(folder / name, manifest["files"][name], thorough) for name in MODEL_FILES)
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
    """An empty folder to export into; what is complete at the end takes its place in one step.

    The lock is to be held. ExtractorError if the cache cannot be written.
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


def write_manifest(folder: Path, spec: ExtractorSpec, parts: tuple[int, ...]) -> None:
    """Complete an entry: its files are flushed and described."""
    files = {}
    for name in MODEL_FILES:
        flush(folder / name)
        info = (folder / name).stat()
        files[name] = {
            "size": info.st_size,
            "mtime_ns": info.st_mtime_ns,
            "sha256": file_hashes(folder / name)["sha256"],
        }
    manifest = {"spec": json.loads(spec.to_json()), "parts": parts, "files": files}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


@contextlib.contextmanager
def export_lock(say: Callable[[str], None]) -> Iterator[None]:
    """Only one process exports at a time: an export takes some gigabytes of memory. Others wait here, and say so."""
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
    # A file that was written a moment ago can change once more without a new time.
    if time.time_ns() - info.st_mtime_ns > 2_000_000_000:
        known[str(file)] = {**stamp, **hashes}
        with contextlib.suppress(OSError):
            replace_text(cache_root() / "hashes.json", json.dumps(known, indent=1))
    return hashes


def find_by_hash(sha256: str) -> Path | None:
    """A file of that hash that was seen before and is still there, unchanged."""
    for path, entry in _known_hashes().items():
        with contextlib.suppress(OSError, AttributeError, KeyError):
            if entry["sha256"] == sha256 and remembered_hashes(Path(path))["sha256"] == sha256:
                return Path(path)
    return None


def _known_hashes() -> dict[str, Any]:
    try:
        known = json.loads((cache_root() / "hashes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
