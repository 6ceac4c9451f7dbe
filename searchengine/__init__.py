"""A visual search engine for folders of images.

    >>> import searchengine
    >>> index = searchengine.open_index("index")                      # doctest: +SKIP
    >>> index.features.shape, index.paths[0]                          # doctest: +SKIP
    ((5000, 4096), '000000000139.jpg')
    >>> engine = searchengine.SearchEngine.open("index")              # doctest: +SKIP
    >>> engine.search("holiday.jpg", k=5)                             # doctest: +SKIP
    >>> engine.search(searchengine.Query.of(7, liked=[12, 40]))       # doctest: +SKIP

Importing the package loads neither TensorFlow nor OpenVINO; they are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from searchengine.engine import Results, SearchEngine, open_index
    from searchengine.errors import SearchEngineError
    from searchengine.extractors import load_extractor
    from searchengine.index.filters import Cursor, Filter
    from searchengine.index.types import Hit, ImageRecord, IndexStatus
    from searchengine.indexing import update_index
    from searchengine.query import Box, Example, Query

__version__ = "0.1.0"

_MODULES = {
    "searchengine.engine": ("Results", "SearchEngine", "open_index"),
    "searchengine.errors": ("SearchEngineError",),
    "searchengine.extractors": ("load_extractor",),
    "searchengine.index.filters": ("Cursor", "Filter"),
    "searchengine.index.types": ("Hit", "ImageRecord", "IndexStatus"),
    "searchengine.indexing": ("update_index",),
    "searchengine.query": ("Box", "Example", "Query"),
}

__all__ = [
    "Box",
    "Cursor",
    "Example",
    "Filter",
    "Hit",
    "ImageRecord",
    "IndexStatus",
    "Query",
    "Results",
    "SearchEngine",
    "SearchEngineError",
    "load_extractor",
    "open_index",
    "update_index",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
