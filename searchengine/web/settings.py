"""The one place where the web application is configured: defaults < environment < a mapping given in code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from searchengine.errors import SearchEngineError
from searchengine.extractors.cache import cache_root
from searchengine.extractors.extractor import PRECISIONS, RUNTIMES
from searchengine.index.folders import DEFAULT, Folders

MAX_K = 500


class SettingsError(SearchEngineError):
    """A setting cannot be used as it stands."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the application runs. Every field can be set by the environment variable named beside it.

    Sizes are in megabytes (10^6 bytes) and megapixels (10^6 pixels); ``proxies`` counts the reverse proxies in front
    whose ``X-Forwarded-*`` headers are believed.
    """

    index_dir: Folders = DEFAULT  # SEARCHENGINE_INDEX_DIR, several as PATH has them
    images_dir: Path | None = None  # SEARCHENGINE_IMAGES_DIR, where the photos have moved since they were indexed
    cache_dir: Path | None = None  # SEARCHENGINE_CACHE_DIR, holds thumbnails; else the user's cache folder
    precision: str = "auto"  # SEARCHENGINE_PRECISION
    runtime: str = "auto"  # SEARCHENGINE_RUNTIME
    max_upload_mb: int = 25  # SEARCHENGINE_MAX_UPLOAD_MB
    max_upload_megapixels: int = 80  # SEARCHENGINE_MAX_UPLOAD_MEGAPIXELS
    default_k: int = 30  # SEARCHENGINE_DEFAULT_K
    sample: int = 60  # SEARCHENGINE_SAMPLE, pictures on the first page
    proxies: int = 0  # SEARCHENGINE_PROXIES
    hosts: str = ""  # SEARCHENGINE_HOSTS, names that the server answers to, by commas; see hosts.py
    bind: str = "127.0.0.1"  # BIND, the address to listen at; others can only reach the server where this is named
    port: int = 8000  # PORT
    threads: int = 32  # THREADS, connections served at a time; a slow upload takes one, and little else

    @property
    def max_upload_bytes(self) -> int:
        """The largest picture that may be uploaded, in bytes."""
        return self.max_upload_mb * 1_000_000

    @property
    def max_upload_pixels(self) -> int:
        """The most pixels that an uploaded picture may have."""
        return self.max_upload_megapixels * 1_000_000

    @property
    def cache_root(self) -> Path:
        """The folder under which things that can be made again are kept."""
        if self.cache_dir is not None:
            return self.cache_dir
        return cache_root()


# The bounds of every whole number above.
_BOUNDS = {
    "max_upload_mb": (1, 1000),
    "max_upload_megapixels": (1, 1000),
    "default_k": (1, MAX_K),
    "sample": (1, MAX_K),
    "proxies": (0, 10),
    "port": (1, 65535),
    "threads": (1, 64),
}
_PLAIN = ("bind", "port", "threads")  # as other servers call them, without our name in front
_PATHS = ("images_dir", "cache_dir")
_CHOICES = {"precision": PRECISIONS, "runtime": RUNTIMES}


def load_settings(environ: Mapping[str, str], config: Mapping[str, Any] | None = None) -> Settings:
    """Defaults, then what the environment says, then ``config``.

    Keys of ``config`` are as in the environment, or a field's name in any case. Raises SettingsError for a value that
    cannot be used; keys that are no setting are left alone.
    """
    given = {str(key).upper().removeprefix("SEARCHENGINE_"): value for key, value in (config or {}).items()}
    chosen: dict[str, Any] = {}
    for field in fields(Settings):
        name = field.name.upper()
        value = given.get(name)
        if value is None:
            value = environ.get(variable(field.name)) or None
        if value is not None:
            chosen[field.name] = _checked(field.name, value)
    return Settings(**chosen)


def variable(name: str) -> str:
    """The environment variable that sets a field."""
    return name.upper() if name in _PLAIN else f"SEARCHENGINE_{name.upper()}"


def _checked(name: str, value: Any) -> Any:
    if name == "index_dir":
        return Folders.of(value) or DEFAULT
    if name in _PATHS:
        return Path(value).expanduser().absolute()
    if name in _CHOICES and value not in _CHOICES[name]:
        raise SettingsError(f"{variable(name)} must be one of {', '.join(_CHOICES[name])}, not {value!r}.")
    if name not in _BOUNDS:
        return str(value)
    low, high = _BOUNDS[name]
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = low - 1
    if not low <= number <= high:
        raise SettingsError(f"{variable(name)} must be a whole number from {low} to {high}, not {value!r}.")
    return number
