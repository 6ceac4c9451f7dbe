from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from searchengine.errors import ExtractorError, UnknownNameError, WeightsNotFoundError, closest_first
from searchengine.extractors import ExtractorSpec, load_extractor, make_spec
from searchengine.extractors.cache import entry_folder
from searchengine.extractors.extractor import preprocess
from searchengine.extractors.models import backbones
from searchengine.images import decode

pytestmark = pytest.mark.usefixtures("described_in_process")
HDF5 = b"\x89HDF\r\n\x1a\n"


def test_defaults() -> None:
    spec = make_spec()
    assert spec == ExtractorSpec("vgg16", "fc2", "none", "l2", "imagenet", (224, 224), full_decode=True)
    assert spec.title == "VGG16 fc2, ImageNet weights, L2-normalised"


def test_fingerprints_are_stable_and_distinct() -> None:
    spec = make_spec()
    assert spec.fingerprint == "918cfdf73fc9130e"  # stored in indexes, so it must not change
    others = [
        replace(spec, model="vgg19"),
        replace(spec, layer="fc1"),
        replace(spec, pooling="avg"),
        replace(spec, normalize="none"),
        replace(spec, weights="sha256:00"),
        replace(spec, input_size=(224, 256)),
        replace(spec, full_decode=False),
    ]
    assert len({one.fingerprint for one in [spec, *others]}) == 8


def test_scaled_decoding_is_a_different_spec_with_the_same_exported_model() -> None:
    full, scaled = make_spec(), make_spec(full_decode=False)
    assert full != scaled
    assert scaled.title == "VGG16 fc2, scaled decoding, ImageNet weights, L2-normalised"
    assert entry_folder(full) == entry_folder(scaled) == entry_folder(scaled.unnormalized)
    assert ExtractorSpec.from_json(scaled.to_json()) == scaled
    lite = make_spec("efficientnet-lite0")
    assert make_spec("efficientnet-lite0", full_decode=False) == lite  # its default
    assert lite.title == "EfficientNet-Lite0 avg_pool, ImageNet weights, L2-normalised"
    assert make_spec("efficientnet-lite0", full_decode=True).title.split(", ")[1] == "full decoding"
    assert lite.decoded_at_least == (336, 336)


def test_scaled_decoding_keeps_twice_the_input_size_and_the_picture() -> None:
    width, height = 2000, 1500
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    photo = Image.fromarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)))
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=95)
    scaled_spec = make_spec(full_decode=False)
    assert make_spec().decoded_at_least is None
    scaled = decode(stream.getvalue(), at_least=scaled_spec.decoded_at_least)
    assert scaled.pixels.shape == (750, 1000, 3)  # a quarter would be less than 448
    seen = preprocess(make_spec(), stream.getvalue()).pixels
    seen_scaled = preprocess(scaled_spec, stream.getvalue()).pixels
    assert seen.shape == seen_scaled.shape == (224, 224, 3)
    assert np.abs(seen.astype(int) - seen_scaled).mean() < 1


def test_json_round_trip() -> None:
    spec = make_spec("vgg19", layer="block5_pool", pooling="max", normalize="none")
    assert ExtractorSpec.from_json(spec.to_json()) == spec
    assert spec.title == "VGG19 block5_pool (max pooling), ImageNet weights, not normalised"


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[]", "{}", "null", '{"model": 1, "input_size": [1, 2]}'])
def test_invalid_spec(text: str) -> None:
    with pytest.raises(ExtractorError, match="Not a valid extractor description"):
        ExtractorSpec.from_json(text)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"no model 'vg16'. Choose one of: vgg16, vgg19"):
        load_extractor("vg16")
    with pytest.raises(UnknownNameError, match=r"no layer of VGG16 'fc_2'. Choose one of: fc2, fc1"):
        make_spec(layer="fc_2")
    with pytest.raises(UnknownNameError, match=r"no normalisation 'L2'. Choose one of: l2, none"):
        make_spec(normalize="L2")
    with pytest.raises(UnknownNameError, match=r"no pooling 'average'. Choose one of: avg"):
        make_spec(pooling="average")
    with pytest.raises(UnknownNameError, match=r"no precision 'bf16'. Choose one of: bfloat16"):
        load_extractor(precision="bf16")
    with pytest.raises(UnknownNameError, match=r"no runtime 'tensorflow'"):
        load_extractor(runtime="tensorflow")
    assert make_spec("VGG16") == make_spec()
    assert closest_first("abx", ["xyz", "abc", "ab"]) == ["ab", "abc", "xyz"]


def test_weights_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searchengine.extractors import cache

    file = tmp_path / "my.weights.h5"
    file.write_bytes(HDF5 + b"numbers")
    spec = make_spec(weights=file)
    assert spec.weights == f"sha256:{cache.file_hashes(file)['sha256']}"
    assert spec.title.startswith("VGG16 fc2, own weights ")

    # The published file, wherever it lies, is what "imagenet" means.
    monkeypatch.setattr(
        cache, "file_hashes", lambda path: {"sha256": "0", "md5": backbones()["vgg16"].with_head.digest or ""}
    )
    assert make_spec(weights=file) == make_spec()


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"nowhere\.h5 cannot be read: No such file.*--weights"):
        make_spec(weights=tmp_path / "nowhere.h5")
    with pytest.raises(WeightsNotFoundError, match="cannot be read"):
        make_spec(weights=tmp_path)


def test_no_weights_file(tmp_path: Path) -> None:
    file = tmp_path / "picture.h5"
    file.write_bytes(b"GIF89a, and a good deal more")
    with pytest.raises(ExtractorError, match="not HDF5"):
        make_spec(weights=str(file))
