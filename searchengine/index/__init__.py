"""The index: what is known of the images, and their features.

``storage`` opens one, ``protocol`` says what can be asked of it and written to it, ``types`` has what goes in and out.
In a folder, ``local`` reads it and ``writer`` writes it: ``catalog`` (with ``tables``, over ``database``) is its SQLite
file, ``features`` its matrix, and ``state`` what a reader holds of both at one moment. ``exact`` searches that, by the
``distances`` of each of the ``metrics``; ``structure``, ``building``, ``calibration`` and ``approximate`` are for many
rows, ``filters`` and ``columns`` for choosing among them. ``milvus`` does all of it in a server.
"""
