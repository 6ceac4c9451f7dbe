"""An index of imported features: rows without a picture, and no model to embed uploads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient

from searchengine.exchange.importing import ImportOptions, import_features
from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.fakes import write_pictures
from tests.web.conftest import JSON, picture


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    """A client of five rows: four on a line, one apart; the last has a picture."""
    write_pictures(tmp_path / "in", five=50)
    features = np.array([[0, 0], [1, 0], [3, 0], [7, 0], [0, 9]], dtype=np.float32)
    paths = ["one.png", "two.png", "three.png", "four.png", "five.png"]
    np.savez(tmp_path / "f.npz", features=features, labels=["cat", "dog", "cat", "dog", "<b>ship"], paths=paths)
    import_features(tmp_path / "f.npz", tmp_path / "index", ImportOptions(images=tmp_path / "in"))
    engine = ServedEngine.open(tmp_path / "index")
    engine.warm()  # needs no model
    yield create_app({"TESTING": True, "CACHE_DIR": tmp_path / "cache"}, engine).test_client()
    engine.close()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[FlaskClient]:
    """A client of three rows without any metadata."""
    np.save(tmp_path / "f.npy", np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32))
    import_features(tmp_path / "f.npy", tmp_path / "bare")
    engine = ServedEngine.open(tmp_path / "bare")
    yield create_app({"TESTING": True, "CACHE_DIR": tmp_path / "cache"}, engine).test_client()
    engine.close()


def test_an_image_with_id_0(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", features=np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32), ids=[0, 1, 2])
    import_features(tmp_path / "f.npz", tmp_path / "index")
    engine = ServedEngine.open(tmp_path / "index")
    client = create_app({"TESTING": True, "CACHE_DIR": tmp_path / "cache"}, engine).test_client()
    assert [hit["id"] for hit in client.get("/search?id=0", headers=JSON).get_json()["hits"]] == [0, 2, 1]
    assert client.get("/search?like=0&dislike=1", headers=JSON).status_code == 200
    assert client.get("/search?id=00").status_code == client.get("/search?id=1&k=0").status_code == 400
    engine.close()


def test_rows_without_a_picture_have_a_placeholder(bare: FlaskClient) -> None:
    page = bare.get("/").text
    assert page.count('class="photo blank"') == 3
    assert "/thumbnails/" not in page
    assert "/images/" not in page
    assert "#2" in page
    page = bare.get("/search?id=2").text
    assert page.count('class="photo blank"') == 2
    assert '<span class="name">#2</span>' in page
    assert "moved or deleted" not in page


def test_search_by_row(client: FlaskClient) -> None:
    hits = client.get("/search?id=2", headers=JSON).get_json()["hits"]
    assert [(hit["id"], hit["distance"]) for hit in hits[:4]] == [(2, 0.0), (1, 1.0), (3, 2.0), (4, 6.0)]
    assert client.get("/search?id=2").status_code == 200
    assert client.get("/compare?id=2").status_code == 200
    assert client.get("/search?id=9").status_code == 404


def test_rows_with_a_picture_show_it(client: FlaskClient) -> None:
    page = client.get("/").text
    assert "<b>ship" not in page
    assert re.findall(r'<img src="/thumbnails/(\d)', page) == ["5"]
    assert client.get("/images/5", buffered=True).mimetype == "image/png"


def test_a_row_has_no_original(bare: FlaskClient) -> None:
    answer = bare.get("/images/1")
    assert answer.status_code == 404
    assert "is an imported feature" in answer.text
    assert bare.get("/thumbnails/1").mimetype == "image/svg+xml"


def test_uploads_are_refused_with_a_reason(client: FlaskClient) -> None:
    page = client.get("/").text
    assert 'type="file"' not in page
    assert "without the model" in page
    for address in ("/search", "/compare"):
        answer = client.post(address, data={"image": picture()}, headers=JSON)
        assert answer.status_code == 400
        assert "imported without the model" in answer.get_json()["error"]
        assert answer.get_json()["error"].endswith(".")


def test_there_is_no_field_for_words(bare: FlaskClient) -> None:
    assert 'name="q"' not in bare.get("/").text
    refused = bare.get("/search?q=dog")
    assert refused.status_code == 400
    assert "a picture or words" in refused.text
