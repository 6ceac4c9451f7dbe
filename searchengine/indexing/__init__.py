"""Indexes folders of images: new, changed, moved and deleted files, in batches that a killed run resumes."""

from searchengine.indexing.options import IndexingOptions, Summary
from searchengine.indexing.run import update_index

__all__ = ["IndexingOptions", "Summary", "update_index"]
