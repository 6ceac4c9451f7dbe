"""Pictures with known pixels in every format, shared by the tests of this folder."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOURS = {"R": (255, 0, 0), "G": (0, 255, 0), "B": (0, 0, 255), "W": (255, 255, 255), "K": (0, 0, 0)}


def quadrants(width: int = 64, height: int = 32) -> Image.Image:
    """Make a picture with red and green quarters above blue and white ones."""
    image = Image.new("RGB", (width, height))
    for name, box in zip("RGBW", ((0, 0), (width // 2, 0), (0, height // 2), (width // 2, height // 2)), strict=True):
        image.paste(_COLOURS[name], (*box, box[0] + width // 2, box[1] + height // 2))
    return image


def corners(pixels: NDArray[np.uint8]) -> str:
    """Return the colours of the four quarters in reading order: ``RGBW`` for an upright ``quadrants()``."""
    height, width, _ = pixels.shape
    seen = [pixels[y, x].astype(int) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return "".join(min(_COLOURS, key=lambda name: int(np.abs(colour - _COLOURS[name]).sum())) for colour in seen)


def encoded(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def orientation_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def every_format() -> dict[str, bytes]:
    """Return ``quadrants()`` in each format, by the names of ``sniff``. Animations have a black second frame."""
    image, black = quadrants(), Image.new("RGB", (64, 32))
    animated = {"save_all": True, "append_images": [black], "duration": 100}
    return {
        "JPEG": encoded(image, "JPEG"),
        "PNG": encoded(image, "PNG"),
        "GIF": encoded(image, "GIF", **animated),
        "WEBP": encoded(image, "WEBP", **animated),
        "BMP": encoded(image, "BMP"),
        "TIFF": encoded(image, "TIFF", compression="tiff_lzw", **animated),
        "AVIF": encoded(image, "AVIF", **animated),
        "HEIC": HEIC,
    }


def chunk(kind: bytes, body: bytes, *, wrong: bool = False) -> bytes:
    """Write a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)


def png(width: int, height: int, depth: int, colour_type: int, rows: bytes) -> bytes:
    """Write a PNG by hand; ``rows`` are raw, each with its filter byte."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


Entry = tuple[int, int, tuple[int, ...]]  # tag, type, values


def tiff_of(
    pages: Sequence[tuple[bytes, list[Entry]]],
    below: Sequence[tuple[bytes, list[Entry]]] = (),
    order: str = "<",
) -> bytes:
    """Write a TIFF of several pages; those ``below`` are sub-directories of the first."""
    file = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)

    def write(content: bytes, entries: list[Entry]) -> tuple[int, int]:
        """Return the offset of the directory, and that of its pointer to the next one."""
        start = len(file)
        file.extend(content)
        placed = []
        for tag, kind, values in sorted([*entries, (273, 4, (start,))]):
            packed = struct.pack(order + {1: "B", 3: "H", 4: "I"}[kind] * len(values), *values)
            if len(packed) > 4:
                placed.append((tag, kind, len(values), struct.pack(order + "I", len(file))))
                file.extend(packed)
            else:
                placed.append((tag, kind, len(values), packed.ljust(4, b"\0")))
        directory = len(file)
        file.extend(struct.pack(order + "H", len(placed)))
        for tag, kind, count, place in placed:
            file.extend(struct.pack(order + "HHI", tag, kind, count) + place)
        file.extend(bytes(4))
        return directory, len(file) - 4

    offsets = tuple(write(*each)[0] for each in below)
    link = 4
    for number, (content, entries) in enumerate(pages):
        with_below = [*entries, (330, 4, offsets)] if offsets and number == 0 else entries
        directory, following = write(content, with_below)
        file[link : link + 4] = struct.pack(order + "I", directory)
        link = following
    return bytes(file)


def tiff(
    width: int,
    pixels: bytes,
    *,
    bits: int,
    photometric: int = 1,
    samples: int = 1,
    sample_format: int = 1,
    order: str = "<",
    more: Sequence[Entry] = (),
) -> bytes:
    """Write an uncompressed TIFF of one row, whose pixels begin at byte 8."""
    entries = [
        (256, 4, (width,)), (257, 4, (1,)), (258, 3, (bits,)), (259, 3, (1,)), (262, 3, (photometric,)),
        (277, 3, (samples,)), (278, 4, (1,)), (279, 4, (len(pixels),)), (339, 3, (sample_format,)), *more,
    ]  # fmt: skip
    return tiff_of([(pixels, entries)], order=order)


def jpeg_of_size(width: int, height: int) -> bytes:
    """Make a small JPEG whose header claims the given size."""
    data = encoded(quadrants(), "JPEG")
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


# quadrants() in HEIC, turned by its `irot` box: upright it is 32 x 64 and reads BRWG. Made once with pillow-heif
# (`save(..., "HEIF", quality=60, exif=orientation_exif(6))`), because no HEVC encoder comes with pi-heif.
HEIC = base64.b85decode(
    b"0000SW^{RQXk}?*00000ZE0pPXk}?*ZE0a<0005VZDn*}000000000XXk=`10000000000aA{+700000000000000000000G-"
    b"+&aV*mgE07O6l0ssL300001>;M4(00000008*_0ssI200QLz0RR9100000Bme*aIB98aW&i*H00062000$fZf0cy000000RRAKc4ILB0000L"
    b"X>Mj^0ssI300IC2MR;ju000004sdC7Z2$lO00031009SSaB^?}008D`aAR)(004Gqc4I>U18@KU0FVFx0000U@BsY%`1k+-"
    b"4+CHT0RR|40Sp2E{{wIU00RJ!0009300RIXx&lC90096hLID8-"
    b"Z~y=U0FVFx0{{R603M(qfd!W8<fgf}2xu@M00096AOHXZ03l)k0RRR>0l{;?i2wiq6Ju{|a&BX6cmM$a4FCp!0000KX>)L8000000000$000"
    b"0$0000eV{Bn?0000$000010000W000010000000002|NsBs000020000GaA|mH000000|*ER00009X>xCL0{{R38EJ5BVE_OC000000RRC8f"
    b"dT^sgoXeB02*m>Wo7^X0000001jhhb7KGk009620003cZDe6|0002>C;_ht;2}9QAOG?@zyI>Ec3-"
    b"?lsuYSp`^IRm@bkF;*)3e`#TAJArA0WLJ?&A|Xd!_gbG1svOcr}o4Gzk}lAG^(w-"
    b"51L5C5E$cl#X$|H?59!ZxS>fx4YO0&5q~)py(fz}}4#bhqWty7JrYe<|+EhRgd_Xx=LW;uTgtH_@zQ4DVemq~i{6tY|ilf0%}(2{2Tqf^J!@"
    b"mIrjSIKT}KbmEKq(DbR>M5^4~S}uD2?aBd#%K&mXy{bnzaBLhr`7i!(^}PYez^8&UhV~}gHnfOQi?nRT(uv!$eW%&l5Bjud4R4EgM<Tg$@9e"
    b"Cz&Hw-a21R&jW&i+9O#mtY000O80Ra*K0{{R30RRR70000000"
)
