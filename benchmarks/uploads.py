"""Time and memory of the worst upload of each format: 80 megapixels, as flat as can be, so that few bytes make them.

    python benchmarks/uploads.py

Each is decoded as an upload is, in a process of its own. Memory is that beyond what the process takes before, of the
process itself and of its worker.
"""

from __future__ import annotations

import argparse
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


def _png(depth: int, kind: int, samples: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    packer, row = zlib.compressobj(9), bytes(1 + _SIDE * samples * depth // 8)
    rows = b"".join(packer.compress(row) for _ in range(_SIDE)) + packer.flush()
    header = _SIDE.to_bytes(4) * 2 + bytes([depth, kind, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _run_length_bmp() -> bytes:
    """A BMP of runs of one pixel each, up to the size of an upload."""
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


UPLOADS: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: _saved("RGB", "JPEG", subsampling=0),
    "JPEG, progressive": lambda: _saved("RGB", "JPEG", subsampling=0, progressive=True),
    "JPEG, CMYK": lambda: _saved("CMYK", "JPEG"),
    "PNG, RGBA": lambda: _png(8, 6, 4),
    "PNG, RGBA of 16 bits": lambda: _png(16, 6, 4),
    "PNG, grey of 16 bits": lambda: _png(16, 0, 1),
    "GIF": lambda: _saved("P", "GIF", transparency=0),
    "BMP, run-length": _run_length_bmp,
    "WebP, RGBA": lambda: _saved("RGBA", "WEBP", lossless=True, quality=0, method=0),
    "AVIF": lambda: _saved("RGBA", "AVIF", speed=10),
    "TIFF, float": _float_tiff,
    "TIFF, RGBA, LZW": lambda: _saved("RGBA", "TIFF", compression="tiff_lzw"),
    "TIFF, CMYK, Deflate": lambda: _saved("CMYK", "TIFF", compression="tiff_adobe_deflate"),
    "TIFF, fax": lambda: _saved("1", "TIFF", compression="group4"),
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
        for name, make in UPLOADS.items():
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
    """The most memory that a process has taken, in megabytes."""
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
