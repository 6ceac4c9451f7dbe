"""Every setting of the program: one model, and one order: defaults < file < environment < flags.

The file is ``searchengine.toml`` in the working folder, or the one that SEARCHENGINE_CONFIG names. Its keys are the
fields of ``Settings``::

    index_dir = ["coco", "holidays"]
    port = 8001
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from searchengine.errors import SearchEngineError

MAX_K = 500
DEFAULT, ENVIRONMENT, FLAG = "default", "environment", "flag"  # where a value comes from; or the name of a file
Precision = Literal["auto", "float32", "bfloat16"]
Runtime = Literal["auto", "openvino", "keras"]
Approximate = Literal["auto", "off", "on"]

_FILE = "searchengine.toml"
_FILE_VARIABLE = "SEARCHENGINE_CONFIG"
_UNPREFIXED = ("bind", "port", "threads")  # named as in other servers


class SettingsError(SearchEngineError):
    """A setting has a value that cannot be used."""


def _exists(file: Path) -> bool:
    """Whether a file exists; in a folder that may not be searched, none does."""
    try:
        return file.exists()
    except OSError:
        return False


def _split(value: object) -> object:
    """The folders that text names, separated as in PATH; a folder that exists may have the separator in its name."""
    if isinstance(value, str):
        return [value] if _exists(Path(value).expanduser()) else [part for part in value.split(os.pathsep) if part]
    return [value] if isinstance(value, Path) else value


def _distinct(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    by_place: dict[Path, Path] = {}
    for folder in folders:
        by_place.setdefault(folder.expanduser().absolute(), folder.expanduser())
    return tuple(by_place.values()) or (Path("index"),)


_Folder = Annotated[Path, AfterValidator(lambda folder: folder.expanduser().absolute())]


class Settings(BaseModel):
    """How the program runs. ``variable(field)`` is the environment variable of a field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # the index folders, and where the photos are if they have moved since they were indexed
    index_dir: Annotated[tuple[Path, ...], BeforeValidator(_split), AfterValidator(_distinct)] = (Path("index"),)
    images_dir: _Folder | None = None
    # thumbnails and exported models; None: the user's cache folder
    cache_dir: _Folder | None = None
    # 10^9 bytes of exported models, beyond which those that no index uses are deleted
    cache_gb: float = Field(4.0, ge=0)
    # how models are run
    precision: Precision = "auto"
    runtime: Runtime = "auto"
    # indexing by actors of Ray: "auto" or an address; how many actors, processors and GPUs of each; 10^6 bytes of the
    # object store
    ray: str | None = None
    ray_actors: int | None = Field(None, ge=1)
    ray_cpus: int = Field(1, ge=1)
    ray_gpus: float = Field(0, ge=0)
    ray_store_mb: int = Field(128, ge=80)
    # approximate search: auto: where an exact search would take long; off: neither built nor used
    ann: Approximate = "auto"
    # the largest upload, in 10^6 bytes and 10^6 pixels
    max_upload_mb: int = Field(25, ge=1, le=1000)
    max_upload_megapixels: int = Field(80, ge=1, le=1000)
    # results on a page, and pictures on the first page
    default_k: int = Field(30, ge=1, le=MAX_K)
    sample: int = Field(60, ge=1, le=MAX_K)
    # reverse proxies in front whose X-Forwarded-* headers are believed
    proxies: int = Field(0, ge=0, le=10)
    # whether originals are sent with the position where they were taken
    keep_location: bool = False
    # host names that the server answers to, separated by commas; see web/security.py
    hosts: str = ""
    # where the server listens, and how many requests it answers at a time
    bind: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    threads: int = Field(32, ge=1, le=64)

    @property
    def max_upload_bytes(self) -> int:
        """The largest upload, in bytes."""
        return self.max_upload_mb * 1_000_000

    @property
    def max_upload_pixels(self) -> int:
        """The largest upload, in pixels."""
        return self.max_upload_megapixels * 1_000_000

    @property
    def cache_root(self) -> Path:
        """The folder of everything that can be made again; not created here."""
        if self.cache_dir is not None:
            return self.cache_dir
        import platformdirs

        return Path(platformdirs.user_cache_dir("searchengine", appauthor=False))

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for a program that is started."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["index_dir"] = os.pathsep.join(map(str, self.index_dir))
        return {variable(name): str(value) for name, value in values.items() if value is not None}


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    only: Collection[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Defaults, overridden by the file, overridden by the environment, overridden by ``flags``.

    Args:
        flags: by the name of a field in any case, or as in the environment. None values and unknown names are ignored.
        only: the fields that will be used; wrong values of the others do not matter.
        environ: the environment.

    Raises:
        SettingsError: a value that cannot be used, an unknown name in the file, or an unreadable file.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in _layers(flags or {}, environ):
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
    try:
        return Settings(**values)
    except ValidationError as error:
        wrong = {str(detail["loc"][0]): detail["input"] for detail in error.errors()}
        for name, value in wrong.items():
            if only is None or name in only or name not in Settings.model_fields:
                raise SettingsError(_complaint(name, value, origins[name])) from error
        return Settings(**{name: value for name, value in values.items() if name not in wrong})


def origins(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Where each setting comes from: DEFAULT, ENVIRONMENT, or the name of the file."""
    origin_of = dict.fromkeys(Settings.model_fields, DEFAULT)
    for origin, layer in _layers({}, environ):
        origin_of.update(dict.fromkeys(layer, origin))
    return origin_of


def variable(name: str) -> str:
    """The environment variable of a field."""
    return name.upper() if name in _UNPREFIXED else f"SEARCHENGINE_{name.upper()}"


def _layers(flags: Mapping[str, Any], environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """(origin, values) from weak to strong."""
    fields = Settings.model_fields
    named = environ.get(_FILE_VARIABLE)
    file = Path(named or _FILE).expanduser()
    given = {str(key).lower().removeprefix("searchengine_"): value for key, value in flags.items()}
    return [
        (str(file), _read_file(file) if named or _exists(file) else {}),
        (ENVIRONMENT, {name: environ[variable(name)] for name in fields if environ.get(variable(name))}),
        (FLAG, {name: given[name] for name in fields if given.get(name) is not None}),
    ]


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}. {_FILE_VARIABLE} names it.") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested thousands deep
        raise SettingsError(f"{file} is not valid TOML: {error}.") from error


def _complaint(name: str, value: object, origin: str) -> str:
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{origin} has an unknown setting {name!r}. There are: {', '.join(Settings.model_fields)}."
    title = variable(name) if origin in (ENVIRONMENT, FLAG) else f"{name} in {origin}"
    bounds = {key: getattr(limit, key) for limit in field.metadata for key in ("ge", "le") if hasattr(limit, key)}
    if bounds:
        kind = "a number" if field.annotation is float else "a whole number"
        limits = f"from {bounds['ge']} to {bounds['le']}" if "le" in bounds else f"of at least {bounds['ge']}"
        return f"{title} must be {kind} {limits}, not {value!r}."
    if get_origin(field.annotation) is Literal:
        return f"{title} must be one of {', '.join(get_args(field.annotation))}, not {value!r}."
    return f"{title} cannot be {value!r}."
