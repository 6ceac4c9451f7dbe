"""The extractor of a run: the one that was requested, or else the one that made the index."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import searchengine
from searchengine.errors import ExtractorMismatchError
from searchengine.extractors import ExtractorRecipe, ExtractorSpec, make_spec
from searchengine.extractors.custom import CustomSource
from searchengine.extractors.networks import LayerInfo, NetworkInfo
from searchengine.index.storage import storage_of
from searchengine.indexing import model
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.verify import Recorded
from tests.fakes import OTHER_SPEC, FakeExtractor, write_pictures


def asked(**options: Any) -> ExtractorSpec:
    return model.choose_spec(IndexingOptions(**options), storage_of("index"))[0]


@pytest.mark.slow
@pytest.mark.usefixtures("described_in_process")
def test_only_the_given_options_change(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_spec("resnet50", layer="conv4_block6_out", pooling="gem", normalize="none", full_decode=False)
    monkeypatch.setattr(model, "recorded", lambda folder: Recorded(made, "", (), None, None))
    assert asked() == asked(layer=()) == made
    assert asked(normalize="l2") == make_spec("resnet50", layer="conv4_block6_out", pooling="gem", full_decode=False)
    assert asked(pooling="avg").pooling == "avg"
    assert asked(pooling="avg").layer == "conv4_block6_out"
    assert asked(layer="avg_pool") == make_spec("resnet50", layer="avg_pool", normalize="none", full_decode=False)
    assert asked(model="vgg16") == make_spec("vgg16")
    monkeypatch.setattr(model, "recorded", lambda folder: None)
    assert asked(normalize="none") == make_spec("vgg16", normalize="none")


def test_an_index_of_a_model_file(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = LayerInfo("top", "Dense", (8,))
    network = NetworkInfo(None, 8, layer, {"top": layer})
    monkeypatch.setattr(CustomSource, "describe", lambda source, file: network)
    monkeypatch.setattr("searchengine.extractors.custom.identify", lambda file: "0" * 64)
    made = make_spec("mine.keras", layer="top", preprocessing="unit", input_size=64)
    monkeypatch.setattr(model, "recorded", lambda folder: Recorded(made, "mine.keras", (), None, None))
    assert asked(normalize="none") == replace(made, normalize="none")
    assert asked(input_size=96) == replace(made, input_size=(96, 96))
    assert asked(preprocessing="tf") == replace(made, preprocessing="tf")


@pytest.mark.slow
@pytest.mark.usefixtures("described_in_process")
def test_the_documented_call_needs_only_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[ExtractorRecipe] = []

    def load(recipe: ExtractorRecipe, say: Any) -> FakeExtractor:
        loaded.append(recipe)
        return FakeExtractor(recipe.spec)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ExtractorRecipe, "load", load)
    write_pictures(tmp_path / "photos", a=1, b=2, no=3)
    done = searchengine.update_index(
        "photos", "index", model="vgg16", layer="fc1", precision="float32", exclude="no.png", batch_size=1
    )
    assert (done.added, done.images) == (2, 2)
    assert loaded[0].spec == make_spec("vgg16", layer="fc1")
    assert loaded[0].precision == "float32"
    again = searchengine.update_index(Path("photos"), exclude=["no.png"])  # uses the choices of the index
    assert (again.images, again.embedded) == (2, 0)
    with pytest.raises(ExtractorMismatchError, match="fc1"):
        searchengine.update_index(["photos"], layer="fc2", exclude="no.png")


def test_a_flag_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="modle"):
        searchengine.update_index(tmp_path, tmp_path / "index", modle="vgg16")


def test_an_extractor_of_your_own(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", a=1)
    searchengine.update_index(tmp_path / "photos", tmp_path / "index", extractor=FakeExtractor())
    np.testing.assert_array_equal(searchengine.open_index(tmp_path / "index").features, np.ones((1, 12)))
    with pytest.raises(ExtractorMismatchError):
        searchengine.update_index(tmp_path / "photos", tmp_path / "index", extractor=FakeExtractor(OTHER_SPEC))
