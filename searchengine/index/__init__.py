"""The index: the features of all images, and a catalog of the images.

Start reading at ``protocol``, which defines how an index is read and written; ``types`` has the records that go in and
out, and ``storage`` opens an index. An index folder is read by ``local`` and written by ``writer``. Its SQLite file is
``catalog`` (with ``tables``, on top of ``database``), its matrix is ``features``, and ``state`` is a reader's view of
both at one moment. ``exact`` searches that with the ``distances`` of the ``metrics``, and ``approximate`` searches many
rows with what ``building`` has made. ``filters`` and ``columns`` restrict a search to some images. ``milvus`` does all
of this in a server.
"""
