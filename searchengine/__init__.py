"""A visual search engine for a folder of images.

    >>> import searchengine
    >>> index = searchengine.open_index("index")                      # doctest: +SKIP
    >>> index.features.shape, index.paths[0]                          # doctest: +SKIP
    ((5000, 4096), '000000000139.jpg')
    >>> engine = searchengine.SearchEngine.open("index")              # doctest: +SKIP
    >>> engine.search("holiday.jpg", k=5)                             # doctest: +SKIP
    >>> engine.search(searchengine.Query.of(7, liked=[12, 40]))       # doctest: +SKIP

Importing it loads neither TensorFlow nor OpenVINO; they come in where they are first used.
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

_WHERE = {
    "Box": "searchengine.query",
    "Cursor": "searchengine.index.filters",
    "Example": "searchengine.query",
    "Filter": "searchengine.index.filters",
    "Hit": "searchengine.index.types",
    "ImageRecord": "searchengine.index.types",
    "IndexStatus": "searchengine.index.types",
    "Query": "searchengine.query",
    "Results": "searchengine.engine",
    "SearchEngine": "searchengine.engine",
    "SearchEngineError": "searchengine.errors",
    "load_extractor": "searchengine.extractors",
    "open_index": "searchengine.engine",
    "update_index": "searchengine.indexing",
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
    """Load what is asked for when it is asked for (PEP 562)."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
