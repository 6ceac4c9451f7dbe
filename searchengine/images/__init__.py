"""Finds, checks and decodes image files: RGB, upright, bounded.

Start reading at ``decoding``: a file is recognised (``formats``), opened (``opening``, with ``containers`` and
``arrays`` for files that Pillow does not read), converted to 8-bit sRGB (``rgb``, ``depth``) and resized
(``resizing``). ``repair`` mends broken files, and ``isolation`` decodes unusual ones in worker processes.
"""

from searchengine.images.decoding import DECODING, DecodedImage, decode, full_jpeg, read_image, thumbnail
from searchengine.images.finding import LINKS_OUT, FoundFile, LeftOut, Unreadable, Walk
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
    "full_jpeg",
    "read_image",
    "resize",
    "sniff",
    "thumbnail",
    "why_not",
]
