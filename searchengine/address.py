"""Where an index lies: in a folder, or in a collection of a Milvus server, ``milvus://HOST:PORT/COLLECTION``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from searchengine.errors import SearchEngineError

SCHEME = "milvus://"
PORT = 19530  # where Milvus listens by default
_PLACE = re.compile(
    r"milvus://(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?/(?P<collection>[^/]*)/?"
)
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
PARAMETERS = r"([A-Za-z_]+=[0-9]+(,[A-Za-z_]+=[0-9]+)*)?"  # of Milvus
_USER = re.compile(r"(?<=//)[^/]*@")


class AddressError(SearchEngineError):
    """An address that names no index."""


@dataclass(frozen=True, slots=True)
class MilvusOptions:
    """The connection to a Milvus server, and how a new collection is made.

    Attributes:
        token: ``user:password`` or an API key; empty where the server wants none.
        tls: whether the connection is encrypted.
        timeout: seconds that a request may take.
        consistency: "strong", "bounded", "session" or "eventually": how stale the data that is read may be.
        index_type: of a new collection: "FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "DISKANN" or "AUTOINDEX".
        index_params: of the index of a new collection, "nlist=1024" or "M=16,efConstruction=200"; empty for ours.
        search_params: of each search, "nprobe=32", "ef=64" or "search_list=64"; empty for ours.
        partitions: of a new collection, by image folder; 0 for none.
    """

    token: str = field(default="", repr=False)
    tls: bool = False
    timeout: float = 10.0
    consistency: str = "bounded"
    index_type: str = "FLAT"
    index_params: str = ""
    search_params: str = ""
    partitions: int = 0


@dataclass(frozen=True, slots=True)
class MilvusAddress:
    """A collection of a Milvus server; its text holds no secret."""

    host: str
    port: int
    collection: str
    options: MilvusOptions = MilvusOptions()

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}:{self.port}/{self.collection}"

    @property
    def server(self) -> str:
        """The server for people."""
        return f"Milvus at {self.host}:{self.port}"


Address: TypeAlias = Path | MilvusAddress
AnyAddress: TypeAlias = str | os.PathLike[str] | MilvusAddress


def milvus_parameters(text: str) -> dict[str, int]:
    """``nlist=1024`` or ``M=16,efConstruction=200``, as Milvus takes it."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name: int(value) for name, _, value in pairs}


def is_milvus(text: object) -> bool:
    """Whether a text is meant as the address of a collection."""
    return isinstance(text, str) and text.lower().startswith(SCHEME)


def parse_address(text: AnyAddress) -> Address:
    """A folder, or the address of a collection; AddressError, whose message shows no secret."""
    if isinstance(text, MilvusAddress):
        return text
    if not isinstance(text, str) or not is_milvus(text):
        return Path(text).expanduser()
    if _USER.search(text):
        raise AddressError(
            f"{shown_address(text)} has a name or a password in it. Leave them out of the address, and give them as "
            "SEARCHENGINE_MILVUS_TOKEN=USER:PASSWORD."
        )
    match = _PLACE.fullmatch(SCHEME + text[len(SCHEME) :])
    if match is None or not 0 < int(match["port"] or PORT) < 65536:
        raise AddressError(f"{text} is not the address of a collection. Write it as {SCHEME}HOST:PORT/COLLECTION.")
    if not _COLLECTION.fullmatch(match["collection"]):
        raise AddressError(
            f"Milvus takes no collection named {match['collection']!r}: letters, digits and underscores, not a digit "
            "first."
        )
    return MilvusAddress(match["host"], int(match["port"] or PORT), match["collection"])


def name_of(address: Address) -> str:
    """The name of a folder or a collection."""
    return address.collection if isinstance(address, MilvusAddress) else address.resolve().name


def folder_of(address: Address, what: str) -> Path:
    """The folder of an index; AddressError where it lies in Milvus, for which ``what`` is not offered."""
    if isinstance(address, MilvusAddress):
        raise AddressError(f"{what} is not offered for an index in Milvus ({address}).")
    return address


def shown_address(text: object) -> str:
    """A text that may be an address, without a user and password in it."""
    return _USER.sub("***@", str(text))
