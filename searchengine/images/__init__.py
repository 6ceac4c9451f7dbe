"""Find, check and decode image files: RGB, upright, bounded."""

from searchengine.images.browser import for_browser, thumbnail
from searchengine.images.decoding import DECODING, DecodedImage, Part, average_colour, decode, read_image, resize
from searchengine.images.finding import LINKS_OUT, FoundFile, LeftOut, Unreadable, Walk, find
from searchengine.images.formats import HEAD_BYTES, sniff, why_not
from searchengine.images.isolation import MAX_PIXELS

__all__ = [
    "DECODING",
    "HEAD_BYTES",
    "LINKS_OUT",
    "MAX_PIXELS",
    "DecodedImage",
    "FoundFile",
    "LeftOut",
    "Part",
    "Unreadable",
    "Walk",
    "average_colour",
    "decode",
    "find",
    "for_browser",
    "read_image",
    "resize",
    "sniff",
    "thumbnail",
    "why_not",
]
