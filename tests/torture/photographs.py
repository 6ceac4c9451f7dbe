"""Writes many small picture files quickly, each with different content."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path


def png(number: int) -> bytes:
    """Make a plain 8 x 6 PNG of 80 bytes whose colour encodes its number, and is not black."""
    colour = bytes((32 + (number >> 12), 32 + (number >> 6 & 63), 32 + (number & 63)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", 8, 6, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress((b"\0" + colour * 8) * 6, 1)),
            (b"IEND", b""),
        )
    )


def write(folder: Path, numbers: range | list[int], *, seconds_ago: float = 60.0) -> Path:
    """Write ``folder/<label>/<number>.png``, labels by tens, with mtimes old enough to be trusted."""
    then = time.time_ns() - int(seconds_ago * 1e9)
    for number in numbers:
        place = folder / f"label{number // 10 % 10}"
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{number:06d}.png"
        file.write_bytes(png(number))
        os.utime(file, ns=(then, then))
    return folder
