"""An index in a collection of a Milvus server: the same contract as the index in a folder."""

from searchengine.index.milvus.reader import MilvusIndex
from searchengine.index.milvus.writer import MilvusWriter

__all__ = ["MilvusIndex", "MilvusWriter"]
