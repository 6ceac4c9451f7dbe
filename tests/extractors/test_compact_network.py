"""The compact model: its architecture, and the files that are shipped."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from searchengine.errors import ExtractorError, WeightsNotFoundError
from searchengine.extractors import compact
from tests.small_compact import HEADLESS, SMALL, cosines, pictures

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# TensorFlow and what it brings warn while they are imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]
shipped = pytest.mark.skipif(not (compact.MODEL_FOLDER / compact.CARD).exists(), reason="no model is packaged")


# --- architecture


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "width"), [(SMALL, 24), (HEADLESS, 16)])
def test_a_feature_has_the_width_of_the_head_or_of_the_last_stage(shape: compact.CompactShape, width: int) -> None:
    model = compact.build_compact(48, shape)
    feature = np.asarray(model(pictures(3, 48)))
    assert feature.shape == (3, width) == (3, shape.pooled)
    assert feature.dtype == np.float32
    assert (feature >= 0).all()
    shipped = compact.build_compact(48, shape, folded=True, whitened=True)
    assert shipped.output_shape == (None, shape.dimension) == (None, 16)


@pytest.mark.parametrize("size", [0, 32, 72])
def test_sizes_that_do_not_halve_are_refused(size: int) -> None:
    pytest.importorskip("keras")
    with pytest.raises(ValueError, match="multiple of 16"):
        compact.build_compact(size)


@pytest.mark.slow
def test_the_default_shape_is_within_its_promises() -> None:
    model = compact.build_compact(64)
    assert compact.CompactShape().dimension <= 384
    assert model.count_params() < 5e6


@pytest.mark.slow
def test_folding_batch_norm_changes_nothing() -> None:
    model = compact.build_compact(48, SMALL)
    rng = np.random.default_rng(1)
    weights = {
        name: rng.uniform(0.5, 1.5, value.shape).astype(np.float32) if "_norm/" in name else value
        for name, value in compact.named_weights(model).items()
    }
    compact.set_named_weights(model, weights)
    folded = compact.build_compact(48, SMALL, folded=True)
    compact.set_named_weights(folded, compact.fold_batch_norm(weights))
    np.testing.assert_allclose(folded(pictures(4, 48)), model(pictures(4, 48)), rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused() -> None:
    model = compact.build_compact(48, SMALL)
    weights = compact.named_weights(model)
    with pytest.raises(ExtractorError, match="do not fit"):
        compact.set_named_weights(model, {**weights, "more/kernel": np.zeros(1)})
    with pytest.raises(ExtractorError, match="has shape"):
        compact.set_named_weights(model, {**weights, "stem_conv/kernel": np.zeros((1, 1))})


@pytest.mark.slow
def test_the_feature_is_the_generalised_mean_of_the_last_stage() -> None:
    model = compact.build_compact(64, SMALL)
    last = type(model)(model.input, model.get_layer("head_relu").output)
    cubes = np.maximum(np.asarray(last(pictures(3, 64)), np.float64), 1e-6) ** 3  # (3, 4, 4, 24)
    windows = [cubes[:, y : y + 3, x : x + 3].mean(axis=(1, 2)) for y in range(2) for x in range(2)]
    np.testing.assert_allclose(np.asarray(model(pictures(3, 64))), np.mean(windows, axis=0) ** (1 / 3), rtol=1e-4)


# --- what is shipped


@shipped
def test_the_package_is_small_and_whole() -> None:
    card = compact.read_card()
    assert {compact.GRAPH, compact.GRAPH_WEIGHTS, compact.KERAS_WEIGHTS} == set(card["sha256"])
    for name in card["sha256"]:
        compact.checked_file(name)
    assert sum(path.stat().st_size for path in compact.MODEL_FOLDER.iterdir()) < 20 * 2**20
    assert 64 <= card["size"] <= 128
    assert card["dimension"] <= 384


@shipped
def test_a_tampered_file_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(compact.MODEL_FOLDER, folder)
    path = folder / compact.GRAPH_WEIGHTS
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExtractorError, match="not the file that was released"):
        compact.graph_file(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"compact\.json"):
        compact.graph_file(tmp_path)
    (tmp_path / compact.CARD).write_text(json.dumps({"sha256": {compact.GRAPH_WEIGHTS: "0"}}))
    with pytest.raises(WeightsNotFoundError, match=r"compact\.bin"):
        compact.checked_file(compact.GRAPH_WEIGHTS, tmp_path)


@shipped
def test_single_pictures_and_batches_agree() -> None:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(compact.graph_file(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    card = compact.read_card()
    several = pictures(5, card["size"])
    together = compiled([several])[0]
    assert together.shape == (5, card["dimension"])
    assert together.dtype == np.float32
    for row, picture in enumerate(several):
        assert cosines(compiled([picture[None]])[0], together[row : row + 1]) >= 0.9999


@shipped
@pytest.mark.slow
def test_the_graph_is_the_keras_model() -> None:
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(compact.graph_file(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    several = pictures(8, compact.read_card()["size"])
    rebuilt = np.asarray(compact.load_compact()(several))
    assert (cosines(compiled([several])[0], rebuilt) >= 0.999).all()
