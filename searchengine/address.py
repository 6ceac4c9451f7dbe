"""The address of an index: a folder, or ``milvus://HOST:PORT/COLLECTION`` for a collection of a Milvus server."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from searchengine.errors import SearchEngineError

SCHEME = "milvus://"
PORT = 19530  # the default port of Milvus
_PLACE = re.compile(
    r"milvus://(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?/(?P<collection>[^/]*)/?"
)
_COLLECTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}", re.ASCII)
PARAMETERS = r"([A-Za-z_]+=[0-9]+(,[A-Za-z_]+=[0-9]+)*)?"  # of a Milvus index or search
_USER = re.compile(r"(?<=//)[^/]*@")


class AddressError(SearchEngineError):
    """An address is not valid."""


@dataclass(frozen=True, slots=True)
class MilvusOptions:
    """How to connect to a Milvus server, and how to create a collection there.

    Attributes:
        token: ``user:password`` or an API key; empty if the server needs none.
        tls: whether the connection is encrypted.
        timeout: maximum duration of a request in seconds.
        consistency: how stale the data that is read may be: "strong", "bounded", "session" or "eventually".
        index_type: type of index for a new collection: "FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "DISKANN" or "AUTOINDEX".
        index_params: parameters of that index: "nlist=1024" or "M=16,efConstruction=200"; empty for our defaults.
        search_params: parameters of each search: "nprobe=32", "ef=64" or "search_list=64"; empty for our defaults.
        partitions: number of partitions of a new collection, by image folder; 0 for none.
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
    """A collection of a Milvus server; ``str`` of it contains no secret."""

    host: str
    port: int
    collection: str
    options: MilvusOptions = MilvusOptions()

    def __str__(self) -> str:
        return f"{SCHEME}{self.host}:{self.port}/{self.collection}"

    @property
    def server(self) -> str:
        """The server, as named in messages."""
        return f"Milvus at {self.host}:{self.port}"


Address: TypeAlias = Path | MilvusAddress
AnyAddress: TypeAlias = str | os.PathLike[str] | MilvusAddress


def milvus_parameters(text: str) -> dict[str, int]:
    """Parse ``nlist=1024`` or ``M=16,efConstruction=200`` into the dictionary that Milvus takes."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name: int(value) for name, _, value in pairs}


def is_milvus(text: object) -> bool:
    """Return whether a text is meant as the address of a Milvus collection."""
    return isinstance(text, str) and text.lower().startswith(SCHEME)


def parse_address(text: AnyAddress) -> Address:
    """Parse the path of a folder or the address of a collection.

    Raises:
        AddressError: it is not valid; the message contains no secret.
    """
    if isinstance(text, MilvusAddress):
        return text
    if not isinstance(text, str) or not is_milvus(text):
        return Path(text).expanduser()
    if _USER.search(text):
        raise AddressError(
            f"{shown_address(text)} contains a user name or a password. Remove it from the address, and set "
            "SEARCHENGINE_MILVUS_TOKEN=USER:PASSWORD instead."
        )
    match = _PLACE.fullmatch(SCHEME + text[len(SCHEME) :])
    if match is None or not 0 < int(match["port"] or PORT) < 65536:
        raise AddressError(f"{text} is not the address of a collection. Write it as {SCHEME}HOST:PORT/COLLECTION.")
    if not _COLLECTION.fullmatch(match["collection"]):
        raise AddressError(
            f"{match['collection']!r} is not a valid name for a Milvus collection. Use letters, digits and "
            "underscores, and do not begin with a digit."
        )
    return MilvusAddress(match["host"], int(match["port"] or PORT), match["collection"])


def name_of(address: Address) -> str:
    """Return the name of the folder or collection."""
    return address.collection if isinstance(address, MilvusAddress) else address.resolve().name


def folder_of(address: Address, what: str) -> Path:
    """Return the folder of an index; AddressError if it is in Milvus, where ``what`` is not supported."""
    if isinstance(address, MilvusAddress):
        raise AddressError(f"{what} is not supported for an index in Milvus ({address}).")
    return address


def shown_address(text: object) -> str:
    """Return a text that may be an address, without any user name and password."""
    return _USER.sub("***@", str(text))
