"""A small file of each kind that takes its own path through the decoders, to be mutated."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from tests.images.pictures import chunk, encoded, every_format, orientation_exif, png, quadrants, tiff_of
from tests.images.test_arrays import COLOURS, MASKED, NETPBM, written
from tests.images.test_pages import OTHER_RAWS, REDUCED, TURNED, icon, page, sensor, tiff_raws
from tests.images.test_profiles import (
    CORNERS,
    DISPLAY_P3,
    LINEAR,
    cmyk_profile,
    curve,
    icc,
    press_profile,
    rgb_profile,
    with_chunks,
    with_nclx,
)
from tests.images.test_repair import ROWS, run_length_bmp, run_lengths


def seeds() -> dict[str, bytes]:
    """Return files to mutate, by description."""
    small, clear = quadrants(32, 16), Image.new("RGBA", (32, 16))
    animated = {"save_all": True, "append_images": [small.convert("RGBA")]}
    tall = encoded(quadrants(32, 16), "PNG")
    return {
        **every_format(),
        "progressive": encoded(small, "JPEG", progressive=True),
        "restarts": encoded(small, "JPEG", restart_marker_rows=1),
        "inks": encoded(small.convert("CMYK"), "JPEG", icc_profile=cmyk_profile()),
        "JPEG without an end": encoded(small, "JPEG")[:-2],
        "PNG without an end": tall[:-20],
        "PNG with text": tall[:33] + chunk(b"zTXt", b"a\0\0x", wrong=True) + tall[33:],
        "P3": encoded(small, "JPEG", icc_profile=rgb_profile(*DISPLAY_P3), exif=orientation_exif(6)),
        "grey profile": encoded(small.convert("L"), "PNG", icc_profile=icc(b"GRAY", b"XYZ ", {b"kTRC": curve(1.0)})),
        "16-bit colour": png(4, 2, 16, 6, (b"\0" + struct.pack(">16H", *range(0, 4096, 256))) * 2),
        "16-bit grey": encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)), "TIFF"),
        "floats": encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF", compression="tiff_lzw"),
        **{f"animated {name}": encoded(clear, name, **animated) for name in ("GIF", "PNG", "WEBP", "AVIF")},
        "line art": encoded(Image.new("RGBA", (8, 8), (255, 255, 255, 9)), "PNG"),
        "pages": tiff_of([page(small, REDUCED), page(small)], [page(small, REDUCED)]),
        **tiff_raws(64),
        **OTHER_RAWS,
        "ICO": encoded(small, "ICO", sizes=[(16, 16), (32, 32)]),
        "ICO of bitmaps": encoded(small, "ICO", sizes=[(16, 16)], bitmap_format="bmp"),
        "ICNS": encoded(quadrants(32, 32), "ICNS", sizes=[(32, 32)]),
        "JP2": encoded(small, "JPEG2000"),
        "PPM": encoded(small, "PPM"),
        "press": encoded(small.convert("CMYK"), "JPEG", icc_profile=press_profile()),
        "cICP": with_chunks(tall, chunk(b"cICP", bytes([12, 16, 0, 1]))),
        "gAMA and cHRM": with_chunks(tall, LINEAR, CORNERS),
        "nclx": with_nclx(9, 18),
        "a marker amid a scan": encoded(small, "JPEG")[:-30] + b"\xff\2" + encoded(small, "JPEG")[-28:],
        "run lengths": run_length_bmp(run_lengths(ROWS[::5])),
        **{f"icon of {bits} bits": icon(bits, alpha=0) for bits in (8, 24, 32)},
        "a turned preview": tiff_of([page(small, REDUCED, TURNED)], [page(small, REDUCED), sensor(64, 32)]),
        **{name: data for name, (data, _) in NETPBM.items()},
        **{f"masks {number}": data for number, data in enumerate(MASKED)},
        **{f"TIFF of {name}": written(samples, **options) for name, (samples, options) in COLOURS.items()},
    }
