"""The two collections of an index in Milvus, and the rows in them.

The collection itself has a row for each image. The other, ``<name>_about``, has one row that describes the index as a
whole (``About``), one for each skipped file, and one that names the run that is writing.

Milvus has no transactions. Each image has two places in the collection, the primary keys ``2 * id`` and ``2 * id + 1``.
A change is written to the free place, with the number of its commit (``born``). Readers ignore a row until
``About.generation`` has reached that number, and a single write of a single row makes that happen. Then the row at the
other place is deleted. So a killed run leaves rows that no reader sees, and repeating a write changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexDamagedError, IndexingError
from searchengine.files import parse_json
from searchengine.images.metadata import Shot
from searchengine.index.metrics import COSINE, EUCLIDEAN, INNER_PRODUCT
from searchengine.index.state import Roots, locate
from searchengine.index.types import FileState, ImageFolder, ImageRecord, ImageRow, ImageUpdate, IndexedImage, Skipped

FEATURE = "feature"
ABOUT, WRITER, SKIPPED = "about", "writer", "skipped/"  # keys of rows in <name>_about; the last one is a prefix
SPREAD_BITS = 62
MARK = "images of searchengine"  # the description that marks our collections
_TEXT_BYTES = 65_535  # capacity of a VARCHAR
_NO_TIME = -(2**63)
_METRICS = {COSINE: "COSINE", INNER_PRODUCT: "IP"}  # "L2" for the others
LISTS = 512  # number of lists of IVF in a segment of a collection
INDEX_PARAMETERS = {
    "HNSW": {"M": 30, "efConstruction": 360},
    "IVF_FLAT": {"nlist": LISTS},
    "IVF_SQ8": {"nlist": LISTS},
}
_NUMBERS = ("id", "born", "spread", "root", "mtime", "width", "height")
_TEXTS = {"path": 3 * 4096, "raw": 2 * 4096, "content": 32, "format": 256, "camera": 1024, "taken": 32}

RECORD = ("id", "born", "root", "path", "raw", "content", "format", "width", "height", "facts")
EVERYTHING_BUT_FEATURE = ("place", "norm2", "facts", *_NUMBERS, *_TEXTS)


@dataclass(frozen=True, slots=True)
class About:
    """The index as a whole, as of one commit.

    Attributes:
        generation: the number of the last commit; rows with a larger number are not valid.
        dimension: the length of a feature vector.
        images: the number of images.
        last_id: the largest id ever given.
        squared: the sum of the squared norms of all features.
        updated: the time of the last commit, ISO 8601 in UTC.
        measured: the metric of Milvus's own index: "L2", "COSINE" or "IP".
        index_type: the type of that index.
        index_params: its parameters; empty if Milvus chooses them.
        roots: the image folders: id, path in hexadecimal digits, name.
        entries: the manifest.
    """

    generation: int
    dimension: int
    images: int
    last_id: int
    squared: float
    updated: str
    measured: str
    index_type: str
    roots: tuple[tuple[int, str, str], ...] = ()
    entries: Mapping[str, str] = field(default_factory=dict)
    index_params: Mapping[str, int] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric of searches that do not name one."""
        return self.entries.get("metric") or EUCLIDEAN

    @property
    def normalized(self) -> bool:
        """Whether all features have norm 1."""
        return self.entries.get("normalized") == "1"

    @property
    def content(self) -> object:
        """Differs whenever the content of the index does, even if the collection was created again."""
        return self.entries.get("created", ""), self.generation, self.roots

    def to_text(self) -> str:
        """Return JSON that fits into a row; IndexingError."""
        text = json.dumps(asdict(self))
        if len(text.encode()) > _TEXT_BYTES:
            raise IndexingError(
                "There are too many image folders for an index in Milvus, or their names are too long. Index fewer "
                "folders into this collection."
            )
        return text

    @classmethod
    def from_text(cls, text: str, address: object) -> About:
        """Parse the text of its row; IndexDamagedError."""
        try:
            values = parse_json(text)
            return cls(**{**values, "roots": tuple((id_, path, name) for id_, path, name in values["roots"])})
        except (ValueError, TypeError, KeyError) as error:
            raise IndexDamagedError(
                f"The description of the index at {address} cannot be read. Index the images into another collection."
            ) from error

    @property
    def image_folders(self) -> list[ImageFolder]:
        """(id, path, name) of each image folder."""
        return [(id_, bytes.fromhex(path), name) for id_, path, name in self.roots]


def measured_by(metric: str) -> str:
    """Return Milvus's metric for one of ours; it lacks Manhattan distance, whose index uses the Euclidean one."""
    return _METRICS.get(metric, "L2")


def create_collections(client: Any, name: str, about: About, *, partitions: int, timeout: float) -> None:
    """Create both collections, empty and loaded, and replace existing ones of these names.

    They become an index once the second one has the row ``ABOUT``.
    """
    from pymilvus import DataType

    for existing in (name, about_name(name)):
        if client.has_collection(existing, timeout=timeout):
            client.drop_collection(existing, timeout=timeout)

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=MARK)
    schema.add_field("place", DataType.INT64, is_primary=True)
    for number in _NUMBERS:
        schema.add_field(number, DataType.INT64, is_partition_key=bool(partitions) and number == "root")
    for text, size in _TEXTS.items():
        schema.add_field(text, DataType.VARCHAR, max_length=size)
    schema.add_field("norm2", DataType.DOUBLE)
    schema.add_field("facts", DataType.JSON)
    schema.add_field(FEATURE, DataType.FLOAT_VECTOR, dim=about.dimension)
    parameters = client.prepare_index_params()
    parameters.add_index(
        FEATURE,
        index_type=about.index_type,
        metric_type=about.measured,
        params=dict(about.index_params),
    )
    split = {"num_partitions": partitions} if partitions else {}
    client.create_collection(name, schema=schema, index_params=parameters, timeout=timeout, **split)

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=MARK)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=256)
    schema.add_field("text", DataType.VARCHAR, max_length=_TEXT_BYTES)
    schema.add_field(FEATURE, DataType.FLOAT_VECTOR, dim=2)  # Milvus requires a vector in every collection
    parameters = client.prepare_index_params()
    parameters.add_index(FEATURE, index_type="FLAT", metric_type="L2")
    client.create_collection(about_name(name), schema=schema, index_params=parameters, timeout=timeout)


def quoted(value: str) -> str:
    """Return a text as a literal for an expression."""
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)


def about_name(name: str) -> str:
    """Return the name of the second collection."""
    return f"{name}_about"


def about_row(key: str, text: str) -> dict[str, Any]:
    """Return a row of the second collection."""
    return {"key": key, "text": text, FEATURE: [0.0, 0.0]}


# -- images -----------------------------------------------------------------------------------------------------------


def spread_of(id_: int) -> int:
    """Return the bits of an id in reverse order; the ids with the smallest results are spread evenly over all ids."""
    return int(f"{id_:0{SPREAD_BITS}b}"[::-1], 2)


def image_row(image: ImageRow, id_: int, feature: NDArray[np.float32]) -> dict[str, Any]:
    """Return the row of a new image, or of a known one with new content, without its ``place`` and ``born``."""
    facts = {
        "labels": list(image.labels),
        "colour": image.colour,
        "has_path": image.path is not None,
        "has_shot": image.shot is not None,
    }
    row = {
        "id": id_,
        "spread": spread_of(id_),
        "content": "" if image.content_hash is None else image.content_hash.hex(),
        "format": image.format or "",
        "width": image.width or 0,
        "height": image.height or 0,
        "norm2": float(np.einsum("i,i", feature, feature, dtype=np.float64)),
        FEATURE: feature,
    }
    return row | _path(image.root, image.path) | _with_state(facts, image.state) | _shot(image.shot or Shot())


def moved_row(row: Mapping[str, Any], update: ImageUpdate) -> dict[str, Any]:
    """Return the row of a known image whose path, times or labels have changed."""
    facts = {**row["facts"], "labels": list(update.labels), "has_path": True}
    shot = {}
    if update.shot is not None:
        shot, facts["has_shot"] = _shot(update.shot), True
    return {**row} | _path(update.root, update.path) | _with_state(facts, update.state) | shot


def dated_row(row: Mapping[str, Any], shot: Shot) -> dict[str, Any]:
    """Return the row of a known image with its date and camera added."""
    return {**row, **_shot(shot), "facts": {**row["facts"], "has_shot": True}}


def _path(root: int | None, path: bytes | None) -> dict[str, Any]:
    shown = (path or b"").decode("utf-8", "replace")
    return {
        "root": -1 if root is None else root,
        "path": shown,
        "raw": "" if path is None or shown.encode() == path else path.hex(),
    }


def _with_state(facts: dict[str, Any], state: FileState | None) -> dict[str, Any]:
    return {
        "mtime": _NO_TIME if state is None else state.mtime_ns,
        "facts": facts
        | {
            "size": state and state.size,
            "settled": state and state.settled,
            "ctime": state and state.ctime_ns,
        },
    }


def _shot(shot: Shot) -> dict[str, Any]:
    return {"taken": shot.taken or "", "camera": shot.camera}


def path_of(row: Mapping[str, Any]) -> bytes | None:
    """Return an image's path in its image folder, as bytes from the file system, or None."""
    if not row["facts"]["has_path"]:
        return None
    return bytes.fromhex(row["raw"]) if row["raw"] else str(row["path"]).encode()


def root_of(row: Mapping[str, Any]) -> int | None:
    """Return the id of an image's folder, or None."""
    return None if row["root"] < 0 else int(row["root"])


def record_of(row: Mapping[str, Any], roots: Roots) -> ImageRecord:
    """Return the record of an image."""
    facts = row["facts"]
    shown, file = locate(row["id"], root_of(row), path_of(row), roots)
    return ImageRecord(
        row["id"],
        shown,
        file,
        tuple(facts["labels"]),
        row["width"] or None,
        row["height"] or None,
        facts["colour"],
        facts["size"],
        row["format"] or None,
        row["content"] or None,
    )


def indexed_image(row: Mapping[str, Any]) -> IndexedImage | None:
    """Return what a run compares the file of an image with, or None if the image has no file."""
    facts = row["facts"]
    if facts["size"] is None:
        return None
    state = FileState(facts["size"], row["mtime"], facts["settled"], facts["ctime"])
    digest = bytes.fromhex(row["content"])
    return IndexedImage(row["id"], row["place"], digest, state, tuple(facts["labels"]), facts["has_shot"])


def mtime_of(row: Mapping[str, Any]) -> int | None:
    """Return the mtime of an image's file in ns, or None."""
    return None if row["mtime"] == _NO_TIME else int(row["mtime"])


# -- skipped files ----------------------------------------------------------------------------------------------------


def skipped_key(root: int, path: bytes) -> str:
    """Return the key of the row of a skipped file."""
    return f"{SKIPPED}{root}/{hashlib.blake2b(path, digest_size=16).hexdigest()}"


def skipped_text(file: Skipped) -> str:
    """Return the text of the row of a skipped file."""
    return json.dumps(
        [file.root, file.path.hex(), file.reason, file.size, file.mtime_ns, file.ctime_ns], ensure_ascii=False
    )


def skipped_of(text: str) -> Skipped:
    """Parse the text of the row of a skipped file."""
    root, path, *others = parse_json(text)
    return Skipped(root, bytes.fromhex(path), *others)
