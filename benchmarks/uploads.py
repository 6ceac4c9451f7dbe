"""Time and memory of the worst uploads.

    python benchmarks/uploads.py

These are images of 80 megapixels in each format that compress to few bytes, and files of 25 MB that take as long as
possible to decode. Each is decoded as an upload is, in a separate process. Memory is the increase over the initial
memory, of the process itself and of its worker.
"""

from __future__ import annotations

import argparse
import base64
import io
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import say
from PIL import Image

_SIDE = 8944  # px; its square is within the limit of the page
_MAX_PIXELS = 80_000_000


def _saved(mode: str, format_: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (_SIDE, _SIDE)).save(out, format_, **options)
    return out.getvalue()


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def _png(depth: int, kind: int, samples: int, *, more: bytes = b"", interlaced: int = 0) -> bytes:
    """Return a black PNG; the bytes of interlaced rows are an upper bound."""
    rows = _zeros(_SIDE * (1 + _SIDE * samples * depth // 8) + interlaced * 8 * _SIDE)
    header = _SIDE.to_bytes(4) * 2 + bytes([depth, kind, 0, 0, interlaced])
    chunks = _png_chunk(b"IHDR", header) + more + _png_chunk(b"IDAT", rows) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _zeros(count: int) -> bytes:
    """Return this number of zeros, compressed; at least a megabyte, which is compressed once and repeated."""
    whole, rest = divmod(count, 2**20)
    packer = zlib.compressobj(9, wbits=-15)
    piece = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = (count % 65_521 << 16) + 1  # RFC 1950
    return b"\x78\xda" + piece * whole + packer.compress(bytes(rest)) + packer.flush() + checksum.to_bytes(4)


def _run_length_bmp() -> bytes:
    """Return a BMP with runs of one pixel each, of the maximum upload size."""
    width, height = 4000, 3000
    rows = (b"\x01\x05" * width + b"\0\0") * height
    info = (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
    info += b"\x01\0\x08\0" + (1).to_bytes(4, "little") + len(rows).to_bytes(4, "little") + bytes(16)
    start = 14 + len(info) + 1024
    head = b"BM" + (start + len(rows)).to_bytes(4, "little") + bytes(4) + start.to_bytes(4, "little")
    return head + info + bytes(1024) + rows


def _float_tiff() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((_SIDE, _SIDE), np.float32)).save(out, "TIFF", compression="tiff_adobe_deflate")
    return out.getvalue()


# 512 x 512 pixels of grey: the configuration of the decoder, and the picture. Made with pillow-heif.
_HEVC_CONFIGURATION = base64.b85decode(
    "0RwOV0058x00000TJQk;{rLC*01pFT0096PKmiN^|NjGU00093kN^M!00093TDk&2VE_RDD?$MQ18@KU0|1Z!00RI30{~i}1OfnnS#G3~n&#jkp"
    "um6t01SWt00RJoVgLaE2SfqEa<F1R"
)
_HEVC_PICTURE = base64.b85decode(
    "0002bC;_h%5NOz4b(K=)$Y@jl|GML+lwqK9kxczR*{Cse003(M0M!5sZ~y=U0PujL8S574008y?0?Ys#zyJUP0009300RP6lK=q`01H3>00RI30"
    "{{R60009300RT+hX4Qr0009300RI30{{R60009300RM80009300RI30{{R60009300RI30|IUU00RI30{{R60009300RI30{{SKKmY&(0009300"
    "RI30{{R60009315yA00{{R60009300RI30{{R601ns"
)


def _box(name: bytes, *content: bytes, version: int | None = None) -> bytes:
    """Return a box of ISO 14496-12; with a version it is a full box, whose ``version`` includes the flags."""
    body = (b"" if version is None else version.to_bytes(4)) + b"".join(content)
    return (8 + len(body)).to_bytes(4) + name + body


def _heic() -> bytes:
    """Return a grid of 17 x 17 tiles that are all the same picture."""
    columns, side = 17, 512
    tiles = [item.to_bytes(2) for item in range(1, columns**2 + 1)]
    whole, count = (columns**2 + 1).to_bytes(2), columns**2 + 1
    grid = bytes([0, 1, columns - 1, columns - 1]) + (columns * side).to_bytes(4) * 2
    items = [_box(b"infe", tile, b"\0\0hvc1\0", version=0x2000000) for tile in tiles]
    items.append(_box(b"infe", whole, b"\0\0grid\0", version=0x2000000))
    tiles_of_whole = _box(b"dimg", whole, len(tiles).to_bytes(2), *tiles)
    sizes = [_box(b"ispe", pixels.to_bytes(4) * 2, version=0) for pixels in (side, columns * side)]
    properties_of_items = [*(tile + b"\2\x81\2" for tile in tiles), whole + b"\1\3"]
    head = _box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(start: int) -> bytes:
        picture = b"\0\0\0\1" + start.to_bytes(4) + len(_HEVC_PICTURE).to_bytes(4)
        layout = b"\0\0\0\1" + (start + len(_HEVC_PICTURE)).to_bytes(4) + len(grid).to_bytes(4)
        return _box(
            b"meta",
            _box(b"hdlr", bytes(4), b"pict", bytes(13), version=0),
            _box(b"pitm", whole, version=0),
            _box(b"iloc", b"\x44\0", count.to_bytes(2), *(tile + picture for tile in tiles), whole + layout, version=0),
            _box(b"iinf", count.to_bytes(2), *items, version=0),
            _box(b"iref", tiles_of_whole, version=0),
            _box(
                b"iprp",
                _box(b"ipco", _box(b"hvcC", _HEVC_CONFIGURATION), *sizes),
                _box(b"ipma", count.to_bytes(4), *properties_of_items, version=0),
            ),
            version=0,
        )

    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + _box(b"mdat", _HEVC_PICTURE, grid)


def _strips_tiff() -> bytes:
    """Return a TIFF with 1.5 million strips of one row each, all of them the same."""
    count, width = 1_500_000, 8
    start = 8 + 2 + 9 * 12 + 4
    tags = [(256, width), (257, count), (258, 8), (259, 1), (262, 1), (277, 1), (278, 1)]
    entries = [tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + value.to_bytes(4, "little") for tag, value in tags]
    for place, (tag, at) in enumerate(((273, start), (279, start + 4 * count))):
        counted = tag.to_bytes(2, "little") + b"\4\0" + count.to_bytes(4, "little") + at.to_bytes(4, "little")
        entries.insert(5 if place == 0 else len(entries), counted)
    head = b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + b"".join(entries) + bytes(4)
    return head + (start + 8 * count).to_bytes(4, "little") * count + width.to_bytes(4, "little") * count + bytes(width)


def _extensions_gif() -> bytes:
    """Return a GIF with eight million empty comments."""
    picture = _saved_small("GIF")
    start = 13 + 3 * 2 ** (1 + (picture[10] & 7))
    return picture[:start] + b"\x21\xfe\0" * 8_000_000 + picture[start:]


def _comments_gif() -> bytes:
    """Return a GIF with a comment in pieces of one byte."""
    picture = _saved_small("GIF")
    start = 13 + 3 * 2 ** (1 + (picture[10] & 7))
    return picture[:start] + b"\x21\xfe" + b"\1a" * 12_000_000 + b"\0" + picture[start:]


def _saved_small(format_: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, format_)
    return out.getvalue()


UPLOADS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: _saved("RGB", "JPEG", subsampling=0),
    "JPEG, progressive": lambda: _saved("RGB", "JPEG", subsampling=0, progressive=True),
    "JPEG, CMYK": lambda: _saved("CMYK", "JPEG"),
    "PNG, RGBA": lambda: _png(8, 6, 4),
    "PNG, RGBA of 16 bits": lambda: _png(16, 6, 4),
    "PNG, RGB of 16 bits, a colour transparent": lambda: _png(16, 2, 3, more=_png_chunk(b"tRNS", b"\0\1" * 3)),
    "PNG, grey of 16 bits": lambda: _png(16, 0, 1),
    "GIF": lambda: _saved("P", "GIF", transparency=0),
    "BMP, run-length": _run_length_bmp,
    "WebP, RGBA": lambda: _saved("RGBA", "WEBP", lossless=True, quality=0, method=0),
    "HEIC": _heic,
    "AVIF": lambda: _saved("RGBA", "AVIF", speed=10),
    "TIFF, float": _float_tiff,
    "TIFF, RGBA, LZW": lambda: _saved("RGBA", "TIFF", compression="tiff_lzw"),
    "TIFF, CMYK, Deflate": lambda: _saved("CMYK", "TIFF", compression="tiff_adobe_deflate"),
    "TIFF, fax": lambda: _saved("1", "TIFF", compression="group4"),
}
SLOW: dict[str, Callable[[], bytes]] = {
    "TIFF of 1.5 million strips": _strips_tiff,
    "GIF of 8 million comments": _extensions_gif,
    "GIF of a comment in 12 million pieces": _comments_gif,
    "PPM of 12 million comments": lambda: b"P6\n" + b"#\n" * 12_000_000 + b"64 64\n255\n" + bytes(64 * 64 * 3),
    "PPM of a long comment": lambda: b"P6\n#" + b"a" * 24_000_000 + b"\n64 64\n255\n" + bytes(64 * 64 * 3),
    "PGM, plain": lambda: b"P2\n3500 3500\n255\n" + b"0 " * 3500**2,
    "PNG, interlaced": lambda: _png(8, 6, 4, interlaced=1),
}


def main() -> None:
    """Print a line for each upload."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    upload = parser.parse_args().decode
    if upload is not None:
        _decode(upload.read_bytes())
        return
    say("| upload | bytes | seconds | of processor | here, MB | worker, MB | |")
    say("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in {**UPLOADS, **SLOW}.items():
            file = Path(folder, "upload")
            file.write_bytes(make())
            command = [sys.executable, __file__, "--decode", str(file)]
            line = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            say(f"| {name} | {file.stat().st_size:,} | {line}")


def _decode(data: bytes) -> None:
    from searchengine.errors import ImageError
    from searchengine.extractors import make_spec
    from searchengine.extractors.extractor import preprocess
    from searchengine.images import isolation

    spec, before, start = make_spec("efficientnet-lite0"), _peak(_STATUS.read_text()), time.monotonic()
    processor = time.process_time()
    try:
        preprocess(spec, data, _MAX_PIXELS, 480)
        result = ""
    except ImageError as error:
        result = str(error)
    seconds, processor, here = time.monotonic() - start, time.process_time() - processor, _peak(_STATUS.read_text())
    worker = 0.0
    if not isolation.is_ordinary(data):
        limits = isolation.Limits(10, 2**30)  # the worker that was used last is asked
        worker = _peak(isolation._POOL.call(_STATUS.read_text, limits=limits))
        processor += isolation._POOL.call(time.process_time, limits=limits)
    print(f"{seconds:.1f} | {processor:.1f} | {here - before:.0f} | {worker:.0f} | {result} |")


_STATUS = Path("/proc/self/status")


def _peak(status: str) -> float:
    """Return the peak memory of a process in megabytes."""
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
