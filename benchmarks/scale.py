"""Resources for a collection of any size: some sizes are measured, others are estimated, in docs/SCALE.md.

    python benchmarks/scale.py --measure 10000 100000 --dimension 256 1280 4096     measure, and write those rows
    python benchmarks/scale.py                                                      estimate from the measured tables

Every figure of the estimated tables comes from the measured ones of docs/SCALE.md and docs/BENCHMARKS.md by the
formulas below, or is an assumption in ``Assumed``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from every import splice
from filters import make_index
from measuring import load_average, say, table

DOCS = Path(__file__).parent.parent / "docs"
PAGE, BENCHMARKS = DOCS / "SCALE.md", DOCS / "BENCHMARKS.md"
MEASURED = ("images", "numbers", "catalog, bytes an image", "matrix, bytes an image", "written, images/s",
            "one query at best, ms", "memory beside the matrix, MiB", "load")  # fmt: skip
NUMBERS = {"EfficientNet-Lite0": 1280, "VGG16": 4096}  # of a feature
_EXACT_SECONDS = 0.05  # beyond which a run builds a structure for approximate search
_QUERIES = 11
_K = 30


@dataclass(frozen=True)
class Assumed:
    """Assumptions that are not measured: a typical rented server, and how Milvus stores its indexes."""

    cores: int = 16
    memory: float = 128e9  # bytes
    ssd: float = 4e12  # bytes
    usable: float = 0.7  # of the memory, for vectors
    network_overhead: float = 1.15  # of embedding by Ray on several machines: photos come over the network
    hnsw_links: int = 128 + 16  # bytes of a vector beside its numbers, for M = 16
    sq8_bytes: float = 1.1  # of a number, with lists and ids
    diskann_memory: float = 0.125  # of the vectors, for the codes that are held in memory
    diskann_disk: float = 1.3  # of the vectors, with the graph


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(rows: int, dimension: int) -> tuple[object, ...]:
    """Return a row of the measured table, measured in a separate process."""
    say(f"{rows} x {dimension} ...")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        command = [sys.executable, __file__, "--one", str(rows), str(dimension), folder]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return (
        rows, dimension, f"{found['catalog'] / rows:.0f}", f"{found['matrix'] / rows:.0f}",
        f"{rows / found['written']:.0f}", f"{found['query'] * 1e3:.2f}", f"{found['memory'] / 2**20:.0f}",
        load_average(),
    )  # fmt: skip


def measure_here(rows: int, dimension: int, folder: Path) -> dict[str, float]:
    from searchengine.index.local import LocalIndex

    start = time.perf_counter()
    make_index(folder, rows, dimension)
    written = time.perf_counter() - start
    index = LocalIndex.open(folder)
    queries = np.random.default_rng(9).standard_normal((_QUERIES + 2, dimension)).astype(np.float32)
    seconds = []
    for query in queries:
        start = time.perf_counter()
        index.search(query, _K)
        seconds.append(time.perf_counter() - start)
    status = Path("/proc/self/status").read_text()
    memory = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert memory is not None
    sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
    return {
        "written": written,
        "catalog": sum(size for name, size in sizes.items() if name.startswith("catalog")),
        "matrix": sizes["features.npy"],
        "query": min(seconds[2:]),
        "memory": int(memory[1]) * 1024,
    }


# -- what stands in the pages ------------------------------------------------------------------------------------------


def rows_of(page: Path, mark: str) -> Iterator[dict[str, str]]:
    """Return the rows of the tables between two marks of a page, by their columns."""
    text = page.read_text(encoding="utf-8")
    between = text[text.index(f"<!-- {mark} -->") : text.index(f"<!-- /{mark} -->")]
    header: list[str] = []
    for line in between.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif set(cells[0]) != {"-"}:
            yield dict(zip(header, cells, strict=True))


def number(cell: str) -> float:
    """Return the first number of a cell."""
    found = re.search(r"-?\d[\d ]*\.?\d*", cell)
    assert found is not None, cell
    return float(found[0].replace(" ", ""))


@dataclass(frozen=True)
class Slopes:
    """Costs per image or per byte, from the largest sizes that were measured."""

    catalog_bytes: float
    memory_bytes: float
    query_seconds_a_byte: float
    build_seconds: float  # of a processor, for the structure of a million images
    run_bytes: float  # of memory of the process that indexes
    embedded_a_core_second: dict[str, float]  # by model
    written_a_second: dict[int, float]  # by the numbers of a feature

    @classmethod
    def read(cls) -> Slopes:
        measured = [{name: number(cell) for name, cell in row.items()} for row in rows_of(PAGE, "measured")]
        most = max(measured, key=lambda row: row["images"])
        least = min((row for row in measured if row["numbers"] == most["numbers"]), key=lambda row: row["images"])
        memory = (most["memory beside the matrix, MiB"] - least["memory beside the matrix, MiB"]) * 2**20
        searched = {row["features"]: number(row["one query"]) / 1e3 for row in rows_of(BENCHMARKS, "exact_search")}
        by_bytes = {4 * math.prod(map(int, shape.split(" x "))): seconds for shape, seconds in searched.items()}
        largest = max(by_bytes)
        indexing = list(rows_of(BENCHMARKS, "indexing"))
        *_, smaller, larger = (
            (number(row["images"]), number(row["peak"]) * 2**20) for row in rows_of(BENCHMARKS, "growth")
        )

        def a_core_second(model: str) -> float:
            row = next(row for row in indexing if row.get("model") == model.lower())
            bracket = re.search(r"\(([\d.]+)\)", row["indexer"])
            assert bracket is not None
            return float(bracket[1])

        return cls(
            catalog_bytes=most["catalog, bytes an image"],
            memory_bytes=memory / (most["images"] - least["images"]),
            query_seconds_a_byte=by_bytes[largest] / largest,
            build_seconds=next(
                number(row["result"]) for row in rows_of(BENCHMARKS, "million") if row["what"] == "build"
            ),
            run_bytes=(larger[1] - smaller[1]) / (larger[0] - smaller[0]),
            embedded_a_core_second={model: a_core_second(model) for model in NUMBERS},
            written_a_second={
                int(row["numbers"]): row["written, images/s"]
                for row in sorted(measured, key=lambda row: row["images"])  # the largest last
            },
        )


# -- estimates --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collection:
    """A number of images, and of numbers in a feature."""

    images: float
    numbers: int

    @property
    def matrix(self) -> float:
        """Return the bytes of the float32 matrix."""
        return 4.0 * self.images * self.numbers

    def disk(self, slopes: Slopes) -> float:
        """Return the bytes of an index folder."""
        return self.matrix + slopes.catalog_bytes * self.images

    def exact_memory(self, slopes: Slopes) -> float:
        """Return the bytes for exact search at memory speed: the mapped matrix, and the memory beside it."""
        return self.matrix + slopes.memory_bytes * self.images

    def exact_query(self, slopes: Slopes) -> float:
        """Return seconds, on the machine that was measured."""
        return slopes.query_seconds_a_byte * self.matrix

    @property
    def factory(self) -> str:
        """Return the structure for approximate search that is tried first, as a FAISS factory string."""
        from searchengine.index.building import _factories

        return _factories(int(self.images), self.numbers)[0]

    @property
    def components(self) -> int:
        """Return the components of a feature in the structure."""
        reduced = re.search(r"PCA(\d+)", self.factory)
        return self.numbers if reduced is None else int(reduced[1])

    def structure(self) -> float:
        """Return the bytes of the structure: a byte per component, or one for two of them, and an id."""
        return self.images * (self.components * (0.25 if "PQ" in self.factory else 1) + 8)

    def build(self, slopes: Slopes, assumed: Assumed) -> float:
        """Return the seconds of its build: each image is compared with the centroid of each list."""
        work = self.images * self.lists * self.components
        million = Collection(1e6, 1280)
        return slopes.build_seconds * work / (1e6 * million.lists * million.components) / assumed.cores

    @property
    def lists(self) -> int:
        """Return the number of lists of the structure."""
        found = re.search(r"IVF(\d+)", self.factory)
        assert found is not None
        return int(found[1])

    def milvus(self, assumed: Assumed) -> tuple[str, float, float]:
        """Return the index type with the best recall that fits within reason, and its memory and disk in bytes."""
        usable = assumed.usable * assumed.memory
        hnsw = self.matrix + assumed.hnsw_links * self.images
        quantized = assumed.sq8_bytes * self.images * self.numbers
        if hnsw <= 4 * usable:
            return "HNSW", hnsw, hnsw
        if quantized <= 8 * usable:
            return "IVF_SQ8", quantized, self.matrix + quantized
        return "DISKANN", assumed.diskann_memory * self.matrix, assumed.diskann_disk * self.matrix


SIZES = [Collection(images, numbers) for images in (1e7, 1e8, 1e9) for numbers in (256, 1280, 4096)]
MACHINES = (1, 4, 16, 64)


def storage(slopes: Slopes, assumed: Assumed) -> str:
    """Return disk, memory and machines."""
    lines: list[tuple[object, ...]] = []
    for size in SIZES:
        kind, memory, disk = size.milvus(assumed)
        machines = math.ceil(memory / (assumed.usable * assumed.memory))
        lines.append(
            (count(size.images), size.numbers, bytes_of(size.disk(slopes)), bytes_of(size.exact_memory(slopes)),
             seconds_of(size.exact_query(slopes)), bytes_of(size.structure()),
             seconds_of(size.build(slopes, assumed)), kind, bytes_of(memory),
             bytes_of(disk), machines)
        )  # fmt: skip
    header = ("images", "numbers", "index folder", "memory, exact", "one query, exact",
              "structure, approximate", "its build", "Milvus index", "its memory", "its disk",
              "query nodes")  # fmt: skip
    return table(header, lines)


def embedding(slopes: Slopes, assumed: Assumed) -> str:
    """Return the hours of embedding on these numbers of machines."""
    lines: list[tuple[object, ...]] = []
    for images in (1e7, 1e8, 1e9):
        for model, rate in slopes.embedded_a_core_second.items():
            cells = [
                seconds_of(
                    images / (rate * assumed.cores * machines) * (assumed.network_overhead if machines > 1 else 1)
                )
                for machines in MACHINES
            ]
            written = seconds_of(images / slopes.written_a_second[NUMBERS[model]])
            lines.append((count(images), model, *cells, written, bytes_of(slopes.run_bytes * images)))
    header = ("images", "model", *(f"{machines} machine{'s' * (machines > 1)}" for machines in MACHINES),
              "one process writes", "its memory")  # fmt: skip
    return table(header, lines)


def limits(slopes: Slopes, assumed: Assumed) -> str:
    """Return the largest number of images for each setup."""
    lines: list[tuple[object, ...]] = []
    for numbers in (256, 1280, 4096):
        image = Collection(1, numbers)
        quick = _EXACT_SECONDS / image.exact_query(slopes)
        laptop, server = (assumed.usable * memory / image.exact_memory(slopes) for memory in (16e9, assumed.memory))
        lines.append((numbers, *map(count, (quick, laptop, server, assumed.ssd / image.disk(slopes)))))
    header = ("numbers", f"exact search within {seconds_of(_EXACT_SECONDS)}", "the matrix in memory of 16 GB",
              f"of {assumed.memory / 1e9:.0f} GB", f"on a disk of {bytes_of(assumed.ssd)}")  # fmt: skip
    return table(header, lines)


@dataclass(frozen=True)
class Example:
    """A collection, and the machines for it."""

    title: str
    size: Collection
    model: str
    cores: int
    machines: int = 1


EXAMPLES = [
    Example("COCO, on a laptop", Collection(123_000, 1280), "EfficientNet-Lite0", 4),
    Example("COCO, on a laptop", Collection(123_000, 4096), "VGG16", 4),
    Example("Open Images, on one server", Collection(9e6, 1280), "EfficientNet-Lite0", 16),
    Example("Open Images, on one server", Collection(9e6, 4096), "VGG16", 16),
    Example("100 M, on a cluster", Collection(1e8, 1280), "EfficientNet-Lite0", 16, 16),
]


def examples(slopes: Slopes, assumed: Assumed) -> str:
    """Return the resources of each example."""
    lines: list[tuple[object, ...]] = []
    for example in EXAMPLES:
        size, rate = example.size, slopes.embedded_a_core_second[example.model] * example.cores * example.machines
        hours = size.images / rate * (assumed.network_overhead if example.machines > 1 else 1)
        kind, memory, _ = size.milvus(assumed)
        nodes = math.ceil(memory / (assumed.usable * assumed.memory))
        where = f"{kind}, {bytes_of(memory)}, on {nodes}" if example.machines > 1 else "not needed"
        lines.append(
            (example.title, count(size.images), f"{example.model}, {size.numbers}",
             f"{example.machines} x {example.cores}", seconds_of(hours), bytes_of(size.disk(slopes)),
             seconds_of(size.exact_query(slopes)), where)
        )  # fmt: skip
    header = ("collection", "images", "model, numbers", "machines x cores", "embedding", "index folder",
              "one query, exact", "Milvus")  # fmt: skip
    return table(header, lines)


# -- words for figures ------------------------------------------------------------------------------------------------


def count(images: float) -> str:
    """Format with two or three digits: 123 000, 10 M, 1 B."""
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if images >= size:
            return f"{two_digits(images / size)} {unit}"
    return f"{round(images, 2 - math.floor(math.log10(images))):,.0f}".replace(",", " ")


def bytes_of(value: float) -> str:
    """Format with two digits, in GB or TB."""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if value >= size:
            return f"{two_digits(value / size)} {unit}"
    return f"{two_digits(value / 1e6)} MB"


def seconds_of(value: float) -> str:
    """Format with two digits, in ms, seconds, minutes, hours or days."""
    for unit, size in (("days", 86400 * 2), ("h", 3600), ("min", 60), ("s", 1)):
        if value >= size:
            return f"{two_digits(value / (86400 if unit == 'days' else size))} {unit}"
    return f"{two_digits(value * 1e3)} ms"


def two_digits(value: float) -> str:
    """Round to two digits; nothing here is known more precisely."""
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(0, digits)}f}".removesuffix(".0").replace(",", " ")


RECKONED: dict[str, Callable[[Slopes, Assumed], str]] = {
    "limits": limits,
    "storage": storage,
    "embedding": embedding,
    "examples": examples,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", type=int, nargs="+", metavar="IMAGES", help="measure collections of these sizes")
    parser.add_argument("--dimension", type=int, nargs="+", default=[256, 1280, 4096])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_here(int(options.one[0]), int(options.one[1]), Path(options.one[2]))))
        return
    if options.measure:
        known = {(row["images"], row["numbers"]): tuple(row.values()) for row in rows_of(PAGE, "measured")}
        for rows in options.measure:
            for dimension in options.dimension:
                row = tuple(map(str, measure(rows, dimension)))
                known[row[:2]] = row
        ordered = sorted(known.values(), key=lambda row: (int(row[1]), int(row[0])))
        splice(PAGE, "measured", table(MEASURED, ordered).strip())
    slopes, assumed = Slopes.read(), Assumed()
    for mark, reckon in RECKONED.items():
        splice(PAGE, mark, reckon(slopes, assumed).strip())


if __name__ == "__main__":
    main()
