"""Every setting of the program, in one model and with one order of precedence: defaults < file < environment < flags.

The file is ``searchengine.toml`` in the working folder, or the one named by SEARCHENGINE_CONFIG. Its keys are the
fields of ``Settings``::

    index_dir = ["coco", "holidays"]
    port = 8001

The secret ``milvus_token`` is never printed or included in a message.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from searchengine.address import PARAMETERS, Address, MilvusAddress, MilvusOptions, parse_address, shown_address
from searchengine.errors import SearchEngineError

MAX_K = 500
DEFAULT, ENVIRONMENT, FLAG = "default", "environment", "flag"  # origins of a value, besides the name of the file
Precision = Literal["auto", "float32", "bfloat16"]
Runtime = Literal["auto", "openvino", "keras"]
Approximate = Literal["auto", "off", "on"]
Consistency = Literal["strong", "bounded", "session", "eventually"]
VectorIndex = Literal["FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "DISKANN", "AUTOINDEX"]

_FILE = "searchengine.toml"
_FILE_VARIABLE = "SEARCHENGINE_CONFIG"
_UNPREFIXED = ("bind", "port", "threads")  # named as for other servers


class SettingsError(SearchEngineError):
    """A setting is not valid."""


def _exists(file: Path) -> bool:
    """Return whether a file exists; False if its folder is not accessible."""
    try:
        return file.exists()
    except OSError:
        return False


_PARTS = re.compile(rf"milvus://[^/]*(?:/[^{os.pathsep}]*)?|[^{os.pathsep}]+", re.IGNORECASE)


def _addresses(value: object) -> object:
    """Split a text as PATH is split into addresses, unless it is the name of an existing folder."""
    if isinstance(value, str):
        value = [value] if _exists(Path(value).expanduser()) else _PARTS.findall(value)
    parts = [value] if isinstance(value, Path | MilvusAddress) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str | Path | MilvusAddress) for part in parts):
        raise ValueError("not the address of an index")
    return tuple(parse_address(part) for part in parts)


def _distinct(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    by_location: dict[object, Address] = {}
    for address in addresses:
        by_location.setdefault(address.absolute() if isinstance(address, Path) else address, address)
    return tuple(by_location.values()) or (Path("index"),)


_Folder = Annotated[Path, AfterValidator(lambda folder: folder.expanduser().absolute())]


class Settings(BaseModel):
    """All settings. ``variable(field)`` is the environment variable of a field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # the indexes, and the location of the photos if they have moved since they were indexed
    index_dir: Annotated[tuple[Address, ...], BeforeValidator(_addresses), AfterValidator(_distinct)] = (Path("index"),)
    images_dir: _Folder | None = None
    # the connection to Milvus, and how to create a collection there: see address.MilvusOptions
    milvus_token: SecretStr | None = None
    milvus_tls: bool = False
    milvus_timeout: float = Field(10.0, ge=0.1, le=3600)
    milvus_consistency: Consistency = "bounded"
    milvus_index_type: VectorIndex = "FLAT"
    milvus_index_params: str = Field("", pattern=f"^{PARAMETERS}$")
    milvus_search_params: str = Field("", pattern=f"^{PARAMETERS}$")
    milvus_partitions: int = Field(0, ge=0, le=1024)
    # thumbnails and exported models; None: the user's cache folder
    cache_dir: _Folder | None = None
    # size of all exported models in GB, above which those that no index uses are deleted
    cache_gb: float = Field(4.0, ge=0)
    # how models are run
    precision: Precision = "auto"
    runtime: Runtime = "auto"
    # indexing on Ray: "auto" or an address; number of actors; processors and GPUs per actor; object store in MB
    ray: str | None = None
    ray_actors: int | None = Field(None, ge=1)
    ray_cpus: int = Field(1, ge=1)
    ray_gpus: float = Field(0, ge=0)
    ray_store_mb: int = Field(128, ge=80)
    # approximate search; auto: where an exact search would be slow; off: neither built nor used
    ann: Approximate = "auto"
    # largest upload, in MB and megapixels
    max_upload_mb: int = Field(25, ge=1, le=1000)
    max_upload_megapixels: int = Field(80, ge=1, le=1000)
    # results per page, and images on the first page
    default_k: int = Field(30, ge=1, le=MAX_K)
    sample: int = Field(60, ge=1, le=MAX_K)
    # number of reverse proxies in front whose X-Forwarded-* headers are trusted
    proxies: int = Field(0, ge=0, le=10)
    # whether photos are sent with the position where they were taken
    keep_location: bool = False
    # host names that the server answers to, separated by commas; see web/security.py
    hosts: str = ""
    # address and port to listen on, and number of requests answered at a time
    bind: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    threads: int = Field(32, ge=1, le=64)

    @model_validator(mode="after")
    def _reach_milvus(self) -> Self:
        """Add the connection settings to the Milvus addresses."""
        choices = {field.name: getattr(self, f"milvus_{field.name}") for field in fields(MilvusOptions)}
        token = self.milvus_token.get_secret_value() if self.milvus_token else ""
        options = MilvusOptions(**{**choices, "token": token})
        addresses = (
            replace(each, options=options) if isinstance(each, MilvusAddress) else each for each in self.index_dir
        )
        object.__setattr__(self, "index_dir", tuple(addresses))  # frozen, but not yet in use
        return self

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
        """The folder for everything that can be recomputed; not created here."""
        if self.cache_dir is not None:
            return self.cache_dir
        import platformdirs

        return Path(platformdirs.user_cache_dir("searchengine", appauthor=False))

    def environment(self, *, secrets: bool = True) -> dict[str, str]:
        """Return the settings as environment variables for a subprocess, or without ``secrets`` for display."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values["index_dir"] = os.pathsep.join(map(str, self.index_dir))
        if self.milvus_token is not None and secrets:
            values["milvus_token"] = self.milvus_token.get_secret_value()
        return {variable(name): str(value) for name, value in values.items() if value is not None}


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    only: Collection[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Load the settings: the defaults, overridden by the file, then by the environment, then by ``flags``.

    Args:
        flags: values by the name of the field or its environment variable, in any case. None values and unknown names
            are ignored.
        only: the fields that will be used; invalid values of all others are ignored.
        environ: the environment.

    Raises:
        SettingsError: a value is not valid, the file has an unknown name, or it cannot be read.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, layer in _layers(flags or {}, environ):
        values.update(layer)
        origins.update(dict.fromkeys(layer, origin))
    try:
        return Settings(**values)
    except ValidationError as error:
        invalid = {str(detail["loc"][0]): detail["input"] for detail in error.errors()}
        for name, value in invalid.items():
            if only is None or name in only or name not in Settings.model_fields:
                raise SettingsError(_complaint(name, value, origins[name])) from error
        return Settings(**{name: value for name, value in values.items() if name not in invalid})


def origins(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the origin of each setting: DEFAULT, ENVIRONMENT, or the name of the file."""
    origin_of = dict.fromkeys(Settings.model_fields, DEFAULT)
    for origin, layer in _layers({}, environ):
        origin_of.update(dict.fromkeys(layer, origin))
    return origin_of


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return name.upper() if name in _UNPREFIXED else f"SEARCHENGINE_{name.upper()}"


def _layers(flags: Mapping[str, Any], environ: Mapping[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """Return (origin, values) in increasing precedence."""
    named = environ.get(_FILE_VARIABLE)
    file = Path(named or _FILE).expanduser()
    given = {str(key).lower().removeprefix("searchengine_"): value for key, value in flags.items()}
    return [
        (str(file), _read_file(file) if named or _exists(file) else {}),
        (ENVIRONMENT, {name: environ[variable(name)] for name in Settings.model_fields if environ.get(variable(name))}),
        (FLAG, {name: given[name] for name in Settings.model_fields if given.get(name) is not None}),
    ]


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}. Check the file and {_FILE_VARIABLE}.") from error
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, or nested thousands deep
        raise SettingsError(f"{file} is not valid TOML: {error}.") from error


def _complaint(name: str, value: object, origin: str) -> str:
    field = Settings.model_fields.get(name)
    if field is None:
        return f"{origin} has an unknown setting {name!r}. Known settings: {', '.join(Settings.model_fields)}."
    title = variable(name) if origin in (ENVIRONMENT, FLAG) else f"{name} in {origin}"
    bounds = {key: getattr(limit, key) for limit in field.metadata for key in ("ge", "le") if hasattr(limit, key)}
    if bounds:
        kind = "a number" if field.annotation is float else "a whole number"
        limits = f"from {bounds['ge']} to {bounds['le']}" if "le" in bounds else f"of at least {bounds['ge']}"
        return f"{title} must be {kind} {limits}, not {value!r}."
    if get_origin(field.annotation) is Literal:
        return f"{title} must be one of {', '.join(get_args(field.annotation))}, not {value!r}."
    if name == "milvus_token":  # a secret
        return f"{title} must be a string."
    return f"{title} cannot be {shown_address(repr(value))}."
