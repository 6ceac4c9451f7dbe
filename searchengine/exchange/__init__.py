"""Ready-made features in, features out: .npy, .npz, Parquet and CSV."""

from searchengine.exchange.formats import Exported, export_index, read_features, read_vectors
from searchengine.exchange.importing import Imported, ImportOptions, import_features
from searchengine.exchange.table import Columns, FeatureTable

__all__ = [
    "Columns",
    "Exported",
    "FeatureTable",
    "ImportOptions",
    "Imported",
    "export_index",
    "import_features",
    "read_features",
    "read_vectors",
]
