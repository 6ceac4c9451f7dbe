"""A small table of features in every format."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ROWS, DIMENSION = 7, 5


@pytest.fixture
def features() -> NDArray[np.float32]:
    """(7, 5) float32 numbers that have no short decimal form."""
    return np.random.default_rng(1).standard_normal((ROWS, DIMENSION)).astype(np.float32)


def write(file: Path, features: NDArray[np.float32]) -> Path:
    """Write features with ids 11.., labels a, b, a, ... and paths, in the format of the suffix."""
    ids = list(range(11, 11 + len(features)))
    labels = ["ab"[i % 2] for i in range(len(features))]
    paths = [f"p/{id_}.png" for id_ in ids]
    if file.suffix == ".npz":
        np.savez(file, my=features, ids=ids, labels=labels, paths=paths)
    elif file.suffix == ".parquet":
        arrow = pytest.importorskip("pyarrow")
        table = arrow.table({"id": ids, "label": labels, "path": paths, "embedding": features.tolist()})
        import pyarrow.parquet

        pyarrow.parquet.write_table(table.cast(_float_lists(table.schema)), file)
    else:
        with file.open("w", newline="") as opened:
            out = csv.writer(opened)
            if file.stem == "wide":
                out.writerow(["id", "label", "path", *(f"f{i}" for i in range(features.shape[1]))])
                out.writerows(
                    [i, a, p, *map(float, row)] for i, a, p, row in zip(ids, labels, paths, features, strict=True)
                )
            else:
                out.writerow(["id", "image", "label", "path", "deep_features", "image_array"])
                for i, a, p, row in zip(ids, labels, paths, features.tolist(), strict=True):
                    text = f"array('d', {row})" if file.stem == "array" else f"[{' '.join(map(str, row))}]"
                    out.writerow([i, "Height: 32 Width: 32", a, p, text, "[73.0 77.0]"])
    return file


def _float_lists(schema: object) -> object:
    import pyarrow as arrow

    place = schema.get_field_index("embedding")  # type: ignore[attr-defined]
    return schema.set(place, arrow.field("embedding", arrow.list_(arrow.float32())))  # type: ignore[attr-defined]
