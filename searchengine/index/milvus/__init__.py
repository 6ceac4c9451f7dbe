"""An index in a collection of a Milvus server, with the same interfaces as an index folder.

Start reading at ``schema``, which explains how commits work without transactions. ``reader`` and ``writer`` implement
the interfaces; ``snapshot`` has the rows and searches as of one commit, ``connection`` the requests to the server, and
``lease`` the right to write.
"""

from searchengine.index.milvus.reader import MilvusIndex
from searchengine.index.milvus.writer import MilvusWriter

__all__ = ["MilvusIndex", "MilvusWriter"]
