"""The same picture in different colour spaces looks the same."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from searchengine.extractors import make_spec
from searchengine.extractors.extractor import batches, preprocess
from searchengine.images import decode, full_jpeg, thumbnail
from tests.fakes import SPEC
from tests.images.pictures import HEIC, chunk, corners, encoded, quadrants

# The columns of the matrix from linear RGB to XYZ under D50, and the exponent of the curve.
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)), 2.2
DISPLAY_P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2
ADOBE_RGB = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446)), 2.19921875
PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8


def icc(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Write a profile by hand: ICC.1:2001-04, version 2."""
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    table, content = b"", b""
    for name, tag in tags.items():
        padded = tag + bytes(-len(tag) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(tag))
        content += padded
    body = struct.pack(">I", len(tags)) + table + content
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = (
        struct.pack(">I", 128 + len(body)) + b"none" + b"\2\x40\0\0" + kind + space + connection + bytes(12) + b"acsp"
    )
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + body


def xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def curve(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def rgb_profile(columns: Sequence[Sequence[float]], exponent: float) -> bytes:
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {name: xyz(*column) for name, column in zip(names, columns, strict=True)}
    return icc(b"RGB ", b"XYZ ", {**tags, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(exponent))})


LINEAR_GREY = icc(b"GRAY", b"XYZ ", {b"kTRC": curve(1.0)})  # a half is as bright as 188 in sRGB


def cmyk_profile() -> bytes:
    """Make a profile of inks with inverted colours, so that a test sees whether the profile was used."""
    tables = bytearray()
    for corner in range(16):  # the first ink changes slowest
        inks = [corner >> shift & 1 for shift in (3, 2, 1, 0)]
        tables += bytes([255 * inks[0], 128, 128])  # L* grows with the first ink: white is much of it
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0])
    lut += (
        struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
        + bytes(range(256)) * 4
        + bytes(tables)
        + bytes(range(256)) * 3
    )
    return icc(b"CMYK", b"Lab ", {b"A2B0": lut})


def press_profile() -> bytes:
    """Make a profile of inks on paper, roughly: black is a dark grey."""
    steps = np.linspace(0, 1, 9)
    paper = 1 - np.stack(np.meshgrid(steps, steps, steps, steps, indexing="ij"), axis=-1)  # (9, 9, 9, 9, CMYK)
    light = 95 * paper[..., :3].mean(axis=-1) * paper[..., 3] ** 0.7 + 5
    lab = np.stack(
        [
            light * 2.55,
            128 + 70 * paper[..., 3] * (paper[..., 0] - paper[..., 1]),
            128 + 80 * paper[..., 3] * (paper[..., 1] - paper[..., 2]),
        ],
        axis=-1,
    )
    lut = b"mft1" + bytes(4) + bytes([4, 3, 9, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    curves = bytes(range(256))
    lut += curves * 4 + np.clip(np.rint(lab), 0, 255).astype(np.uint8).tobytes() + curves * 3
    return icc(b"CMYK", b"Lab ", {b"A2B0": lut})


def photo() -> Image.Image:
    """Return soft colours, which are within every colour space."""
    noise = np.random.default_rng(0).integers(60, 200, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)


def in_space(image: Image.Image, profile: bytes) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, srgb, ImageCms.ImageCmsProfile(io.BytesIO(profile)), outputMode="RGB")
    assert converted is not None
    return converted


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """Make a PNG with chunks after the header."""
    return png[:33] + b"".join(chunks) + png[33:]


# The curves of Display P3, of gamma 2.2, and of linear light.
CORNERS = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
HALF, LINEAR = (chunk(b"gAMA", struct.pack(">I", exponent)) for exponent in (45455, 100000))


def with_nclx(primaries: int, transfer: int, picture: Image.Image | None = None) -> bytes:
    """Make an AVIF."""
    picture = picture or Image.new("RGB", (16, 16), (200, 100, 40))
    data = encoded(picture, "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def difference(pixels: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    return int(np.abs(pixels.astype(int) - other).max())


@pytest.mark.parametrize("space", [DISPLAY_P3, ADOBE_RGB, PROPHOTO])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "JPEG", "WEBP"])
def test_a_wide_colour_space_is_converted_to_srgb(format_: str, space: tuple[Sequence[Sequence[float]], float]) -> None:
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format_, {})
    profile, expected = rgb_profile(*space), np.asarray(photo())
    stored = in_space(photo(), profile)
    assert difference(np.asarray(stored), expected) > 12
    data = encoded(stored, format_, icc_profile=profile, **options)
    assert difference(decode(data).pixels, expected) <= (16 if format_ == "JPEG" else 6)
    small = decode(data, size=(24, 32), preview=32)
    assert small.preview is not None
    assert difference(small.pixels, np.asarray(photo().resize((32, 24), Image.Resampling.BICUBIC))) <= 10
    assert difference(small.preview, small.pixels) <= 12
    shown = thumbnail(data)
    assert "icc_profile" not in Image.open(io.BytesIO(shown)).info
    assert np.abs(decode(shown).pixels.astype(int) - expected).mean() < 4
    if format_ == "TIFF":
        assert np.abs(decode(full_jpeg(data)).pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_published_models_see_the_numbers_as_keras_does(mode: str) -> None:
    """Profiles apply only with reduced JPEGs, where features differ from those of Keras anyway."""
    profile = {"RGB": rgb_profile(*ADOBE_RGB), "L": LINEAR_GREY, "CMYK": cmyk_profile()}[mode]
    image = photo().convert(mode)
    data = encoded(image, "TIFF", icc_profile=profile)
    stored = np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC))
    vgg16, scaled = make_spec("vgg16"), make_spec("vgg16", full_decode=False)
    assert difference(preprocess(vgg16, data).pixels, stored) <= 1
    assert difference(preprocess(scaled, data).pixels, stored) > 10
    if mode == "RGB":
        opened = Image.open(io.BytesIO(data))
        assert difference(next(batches(vgg16, [opened], 1))[0], stored) <= 1
        assert difference(next(batches(scaled, [opened], 1))[0], stored) > 10


def test_transparency_and_palettes_in_a_wide_space() -> None:
    profile = rgb_profile(*ADOBE_RGB)
    image = in_space(photo(), profile).convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    pixels = decode(encoded(image, "PNG", icc_profile=profile)).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert difference(pixels[1:], np.asarray(photo())[1:]) <= 6
    flat = in_space(Image.new("RGB", (8, 8), (90, 120, 60)), profile).quantize(4)
    assert (
        difference(
            decode(encoded(flat, "PNG", icc_profile=profile)).pixels, np.full((8, 8, 3), (90, 120, 60), np.uint8)
        )
        <= 6
    )


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        b"nonsense",
        b"",
        rgb_profile(*ADOBE_RGB)[:300],
        bytes(16) + b"RGB " + bytes(200),
        bytes(16) + b"RGB " + bytes(5 * 2**20),
        LINEAR_GREY,  # for another space than that of the picture
        cmyk_profile(),
    ],
)
def test_srgb_and_unusable_profiles_leave_the_pixels_unchanged(profile: bytes) -> None:
    data = encoded(photo(), "TIFF", icc_profile=profile)
    assert np.array_equal(decode(data).pixels, np.asarray(photo()))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF"])
def test_grey_by_its_profile(format_: str) -> None:
    pixels = decode(encoded(Image.new("L", (16, 16), 128), format_, icc_profile=LINEAR_GREY)).pixels
    assert np.abs(pixels.astype(int) - 188).max() <= 2
    with_alpha = encoded(Image.new("LA", (16, 16), (128, 255)), "PNG", icc_profile=LINEAR_GREY)
    assert decode(with_alpha).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_inks_by_their_profile(format_: str) -> None:
    for inks, seen in (((255, 0, 0, 0), 255), ((0, 255, 255, 0), 0), ((0, 0, 0, 255), 255)):  # black is all three
        data = encoded(Image.new("CMYK", (16, 16), inks), format_, icc_profile=cmyk_profile())
        assert np.abs(decode(data).pixels.astype(int) - seen).max() <= 4
        assert np.abs(decode(thumbnail(data)).pixels.astype(int) - seen).max() <= 4
    broken = encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), format_, icc_profile=cmyk_profile()[:200])
    assert np.abs(decode(broken).pixels.astype(int) - (0, 255, 255)).max() <= 2


def test_the_profile_of_a_pillow_image_is_applied_too() -> None:
    profile = rgb_profile(*DISPLAY_P3)
    data = encoded(in_space(photo(), profile), "PNG", icc_profile=profile)
    (of_file,), (of_image,) = batches(SPEC, [data], 1), batches(SPEC, [Image.open(io.BytesIO(data))], 1)
    assert difference(of_file, of_image) <= 4


def test_an_orientation_and_a_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(quadrants(), "JPEG", exif=exif.tobytes(), icc_profile=rgb_profile(*DISPLAY_P3))
    assert corners(decode(data).pixels) == "BRWG"


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_profile_of_grey(mode: str) -> None:
    greys = np.full((8, 8), 128, np.uint8)
    image = Image.fromarray(greys.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(greys).convert(mode)
    if mode == "I;16":
        image.putpixel((7, 7), 65535)
    pixels = decode(encoded(image, "PNG", icc_profile=LINEAR_GREY)).pixels
    assert np.abs(pixels[0, 0].astype(int) - 188).max() <= 1
    if mode == "LA":
        image.putalpha(0)
        image.putpixel((0, 0), (128, 255))
        pixels = decode(encoded(image, "PNG", icc_profile=LINEAR_GREY)).pixels
        assert (abs(int(pixels[0, 0, 0]) - 188) <= 1, pixels[1, 1, 0]) == (True, 255)


def test_a_transparent_grey_with_a_profile() -> None:
    image = Image.fromarray(np.array([[128, 40]], np.uint8))
    pixels = decode(encoded(image, "PNG", icc_profile=LINEAR_GREY, transparency=40)).pixels
    assert (abs(int(pixels[0, 0, 0]) - 188) <= 1, pixels[0, 1].tolist()) == (True, [255, 255, 255])


def test_display_p3_given_as_numbers() -> None:
    """Numbers count like a profile; test_as_browsers_show.py has the rest."""
    expected, stored = np.asarray(photo()), in_space(photo(), rgb_profile(*DISPLAY_P3))
    png = encoded(stored, "PNG")
    for data in (
        with_chunks(png, chunk(b"cICP", bytes([12, 4, 0, 1]))),
        with_chunks(png, HALF, CORNERS),
        with_nclx(12, 4, stored),
    ):
        assert difference(decode(data).pixels, expected) <= 8
    heic = HEIC.replace(b"colrnclx\0\1", b"colrnclx\0\6")
    assert 20 < difference(decode(heic).pixels, decode(HEIC).pixels) < 80
