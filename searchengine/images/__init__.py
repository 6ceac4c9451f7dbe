"""Find, check and decode image files: RGB, upright, bounded.

Start reading at ``decoding``: a file is recognised (``formats``), opened (``opening``, with ``containers`` and
``arrays`` for what Pillow does not read), turned into RGB of 8 bits (``rgb``, ``depth``, ``colour``) and resized
(``resizing``); ``repair`` is for broken files, and ``isolation`` has unusual ones decoded in worker processes.
"""

from searchengine.images.decoding import DECODING, DecodedImage, decode, full_jpeg, read_image, thumbnail
from searchengine.images.finding import LINKS_OUT, FoundFile, LeftOut, Unreadable, Walk, find
from searchengine.images.formats import HEAD_BYTES, sniff, why_not
from searchengine.images.isolation import MAX_PIXELS
from searchengine.images.resizing import FILTERS, WHOLE, Part, Pixels, Resizing, average_colour, resize

__all__ = [
    "DECODING",
    "FILTERS",
    "HEAD_BYTES",
    "LINKS_OUT",
    "MAX_PIXELS",
    "WHOLE",
    "DecodedImage",
    "FoundFile",
    "LeftOut",
    "Part",
    "Pixels",
    "Resizing",
    "Unreadable",
    "Walk",
    "average_colour",
    "decode",
    "find",
    "full_jpeg",
    "read_image",
    "resize",
    "sniff",
    "thumbnail",
    "why_not",
]
