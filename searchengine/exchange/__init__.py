"""Import ready-made features and export those of an index: .npy, .npz, Parquet and CSV."""

from searchengine.exchange.formats import export_index, read_features, read_vectors
from searchengine.exchange.importing import ImportOptions, import_features
from searchengine.exchange.table import Columns

__all__ = [
    "Columns",
    "ImportOptions",
    "export_index",
    "import_features",
    "read_features",
    "read_vectors",
]
