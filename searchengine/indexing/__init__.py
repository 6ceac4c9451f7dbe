"""Folder -> index: what is new, changed, moved or gone; embedded in batches; resumed after a kill."""

from searchengine.indexing.options import IndexingOptions, Summary
from searchengine.indexing.run import update_index

__all__ = ["IndexingOptions", "Summary", "update_index"]
