"""Repairs files that violate their format, but that browsers show, so that Pillow can read them.

Repair is tried only if a file could not be read.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import GifImagePlugin, Image, ImageChops, JpegImagePlugin

from searchengine.images.formats import png_chunks, reader

_LOST = 0.05  # the share of a picture that may be missing at its end
_DIFFERENT = 24  # steps of 255 from which two pixels count as different
_PROFILE_BYTES = 2**20  # Pillow does not read larger profiles
_END_OF_IMAGE = b"\xff\xd9"


def repaired(data: bytes, format_: str, max_pixels: int, *, pixels: bool) -> bytes | None:
    """Return a valid file with the same picture, or nearly all of it; None if that is impossible.

    ``pixels`` is True if the pixels could not be read, False if it was the header.
    """
    if format_ == "PNG":
        return _png(data, max_pixels, pixels=pixels)
    if format_ == "JPEG":
        return _jpeg(data)
    if format_ == "BMP":
        return _bmp(data)
    if format_ == "GIF":
        return _gif(data)
    return None


# -- JPEG: markers among the pixels, and a missing end -----------------------------------------------------------------

_STRAY_MARKER = re.compile(rb"\xff(?![\0\xd0-\xd7])")  # among pixels: neither a byte of 255 nor a restart marker


def _jpeg(data: bytes) -> bytes | None:
    """Escape stray markers of a baseline JPEG, or else add an end if little is missing.

    Decoders fill in missing pixels. Those are the pixels that change when different bytes are appended.
    """
    end = data.rfind(_END_OF_IMAGE)
    start = data.find(b"\xff\xda")
    if b"\xff\xc0" in data[:start] and start < end and data.count(b"\xff\xda", start, end) == 1:
        pixels = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        mended = _STRAY_MARKER.sub(b"\xff\0", data[pixels:end])
        if len(mended) > end - pixels:
            return data[:pixels] + mended + _END_OF_IMAGE
    data = data.removesuffix(b"\xff")  # half of a marker
    first, second = (_small_jpeg(data + noise + _END_OF_IMAGE) for noise in (b"", _noise(data)))
    unlike = np.asarray(ImageChops.difference(first, second)) >= _DIFFERENT  # (h, w) or (h, w, channels)
    lost = float(unlike.reshape(*unlike.shape[:2], -1).any(axis=2).mean())
    if lost > _LOST or (b"\xff\xc2" in data and not _is_in_last_scan(data)):
        return None
    return data + _END_OF_IMAGE


def _noise(data: bytes) -> bytes:
    """Return bytes that could continue a JPEG, for half its length, with restart markers if it has any."""
    noise = bytes(7 + 37 * i % 241 for i in range(241)) * 8  # without the byte 255
    restarts = [bytes([0xFF, 0xD0 + i]) for i in range(8)]
    last = max(range(8), key=lambda i: data.rfind(restarts[i]))
    if restarts[last] not in data:
        return noise * (len(data) // 2 // len(noise) + 1)
    intervals = sum(map(data.count, restarts)) // 8 + 8
    return b"".join(noise + restarts[(last + 1 + i) % 8] for i in range(intervals))


def _is_in_last_scan(data: bytes) -> bool:
    """Return whether a progressive JPEG ends within the scan of the last bits of the last coefficients."""
    missing = set()  # component, last coefficient of a scan
    for start in _positions(data, b"\xff\xc2"):
        missing = {(data[at], end) for at in range(start + 10, start + 10 + 3 * data[start + 9], 3) for end in (0, 63)}
    for start in _positions(data, b"\xff\xda"):
        components = data[start + 5 : start + 5 + 2 * data[start + 4] : 2]
        _, last, bits = data[start + 5 + 2 * data[start + 4] :][:3]
        if bits & 15 == 0:
            missing -= {(component, last) for component in components}
    return not missing


def _positions(data: bytes, marker: bytes) -> Iterator[int]:
    at = data.find(marker)
    while 0 <= at < len(data) - 40:
        yield at
        at = data.find(marker, at + 2)


def _small_jpeg(data: bytes) -> Image.Image:
    file = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    file.draft(None, (1000, 1000))
    file.load()
    return file


# -- PNG: chunks that do not matter, and a missing end ----------------------------------------------------------------

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that affect the picture are kept if they are intact. Others are dropped: texts, times, resolutions, thumbnails.
_OPTIONAL = {b"tRNS", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT"}
_TRANSPARENT_BYTES = {b"\0": 2, b"\2": 6}  # for grey and RGB
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def _png(data: bytes, max_pixels: int, *, pixels: bool) -> bytes | None:
    kept = [_SIGNATURE]
    compressed: list[bytes] = []
    header, ended = b"", False
    for kind, body, intact in _chunks(data):
        if kind == b"IEND":
            ended = True
            break
        if kind == b"IDAT":
            compressed.append(body)
        elif kind == b"IHDR":
            header = body
        if (kind in (b"IHDR", b"PLTE", b"IDAT") and intact) or (
            kind in _OPTIONAL and intact and _is_usable(kind, body, header)
        ):
            kept.append(_chunk(kind, body))
    if len(header) != 13 or not compressed:
        return None
    if pixels or not ended:
        filled = _filled(header, b"".join(compressed), max_pixels)
        if filled is None:
            return None
        dropped = (b"IDAT", b"acTL", b"fcTL", b"fdAT")
        kept = [chunk for chunk in kept if chunk[4:8] not in dropped] + [_chunk(b"IDAT", filled)]
    return b"".join([*kept, _chunk(b"IEND", b"")])


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield the type and content of each chunk, and whether its checksum is right. The last may be cut short."""
    for kind, at, size in png_chunks(reader(data)):
        body, checksum = data[at : at + size], data[at + size : at + size + 4]
        yield kind, body, checksum == struct.pack(">I", zlib.crc32(kind + body))


def _is_usable(kind: bytes, body: bytes, header: bytes) -> bool:
    if kind == b"tRNS":
        return len(body) >= _TRANSPARENT_BYTES.get(header[9:10], 1)
    if kind != b"iCCP":
        return True
    try:
        decompressor = zlib.decompressobj()
        decompressor.decompress(body.split(b"\0", 1)[1][1:], _PROFILE_BYTES)
    except (IndexError, zlib.error):
        return False
    return decompressor.eof


def _filled(header: bytes, compressed: bytes, max_pixels: int) -> bytes | None:
    """Compress the pixels of a PNG again with the right checksum. If they are cut short, repeat the last row."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if kind not in _CHANNELS or width * height > max_pixels:
        return None
    row = 1 + (width * depth * _CHANNELS[kind] + 7) // 8
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        raw = decompressor.decompress(compressed[2:], 2 * row * height)  # interlaced pictures have more rows
    except zlib.error:
        return None
    rows = len(raw) // row
    if decompressor.eof or rows >= height:
        return zlib.compress(raw, 1)
    if interlaced or rows < (1 - _LOST) * height:
        return None
    repeated = b"\2" + bytes(row - 1)  # a row equal to the one above
    return zlib.compress(raw[: rows * row] + repeated * (height - rows), 1)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# -- BMP: a missing end -----------------------------------------------------------------------------------------------

_RLE8, _RLE4 = 1, 2


def _bmp(data: bytes) -> bytes | None:
    """Append zeros, the first colour, for the missing pixels, which in most files are at the top."""
    start = int.from_bytes(data[10:14], "little")
    width, height, bits, compression = struct.unpack("<ii2xHI", data[18:34].ljust(16, b"\0"))
    if compression in (_RLE8, _RLE4):
        return _run_lengths(data, start, width, abs(height), nibbles=compression == _RLE4)
    size = (width * bits + 31) // 32 * 4 * abs(height)
    missing = start + size - len(data)
    return data + bytes(missing) if 0 < missing <= _LOST * size else None


def _run_lengths(data: bytes, start: int, width: int, height: int, *, nibbles: bool) -> bytes | None:
    """Complete a run-length encoded BMP. If it has an end marker, it may leave out any number of pixels."""
    at, y, ended = start, 0, False
    while y < height and at + 1 < len(data):
        count, code = data[at : at + 2]
        at += 2
        if count:
            continue
        if code == 0:
            y += 1
        elif code == 1:
            at, ended = at - 2, True
            break
        elif code == 2:
            y, at = y + int.from_bytes(data[at + 1 : at + 2]), at + 2
        else:
            size = (code + 1) // 2 if nibbles else code
            if at + size > len(data):
                at -= 2
                break
            at += size + size % 2
    if not ended and y < (1 - _LOST) * height:
        return None
    row = b"\xff\0" * (width // 255) + bytes([width % 255, 0]) * (width % 255 > 0) + b"\0\0"
    return data[:at] + row * (height - y + 1)


# -- GIF: a missing end of the first frame ----------------------------------------------------------------------------


def _gif(data: bytes) -> bytes | None:
    """Append the first colour of the palette for the missing pixels: its code is zero, with any number of bits."""
    tile = GifImagePlugin.GifImageFile(io.BytesIO(data)).tile[0]
    left, top, right, bottom = tile.extents or (0, 0, 0, 0)
    block = at = tile.offset  # blocks of data, each preceded by its length; an empty block is the last
    while at < len(data):
        if data[at] == 0:
            return None
        block, at = at, at + 1 + data[at]
    rest = data[block + 1 :]
    fewest_bits = min(data[tile.offset - 1] + 1, 12)  # per code, which is one pixel here
    zeros = bytes(int(_LOST * (right - left) * (bottom - top) * fewest_bits / 8))
    blocks = [rest, *(zeros[start : start + 255] for start in range(0, len(zeros), 255))]
    return data[:block] + b"".join(bytes([len(each)]) + each for each in blocks if each) + b"\0;"
