"""Comparisons by a picture that one index does not hold, so that its file is used instead."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from searchengine.errors import DamagedImageError
from searchengine.web import create_app
from tests.web.conftest import JSON, encoded, picture
from tests.web.fake import COLOURS, FakeEngine, draw


@pytest.fixture
def two(collection: Path) -> dict[str, FakeEngine]:
    """Two indexes of the same pictures, except that picture 3 is in the first only."""
    unit, raw = FakeEngine(collection, name="unit"), FakeEngine(collection, name="raw", normalized=False)
    raw.index.forget(3)
    return {"unit": unit, "raw": raw}


@pytest.fixture
def client(two: dict[str, FakeEngine], tmp_path: Path) -> FlaskClient:
    config = {"TESTING": True, "CACHE_DIR": tmp_path / "cache", "MAX_UPLOAD_MEGAPIXELS": 1}
    return create_app(config, *two.values()).test_client()


def with_file(engine: FakeEngine, image_id: int, file: Path, data: bytes) -> None:
    file.write_bytes(data)
    engine.index.change(image_id, file=file)


@pytest.mark.parametrize(("data", "why"), [(encoded(draw(COLOURS["red"]))[:200], "damaged"), (b"text", "not an image")])
def test_an_unreadable_file_affects_one_side_only(
    client: FlaskClient, two: dict[str, FakeEngine], tmp_path: Path, data: bytes, why: str
) -> None:
    with_file(two["unit"], 3, tmp_path / "changed.png", data)
    answer = client.get("/compare?id=3&k=5", headers=JSON)
    assert answer.status_code == 200
    left, right = answer.get_json()["sides"]
    assert (left["error"], len(left["hits"])) == (None, 5)
    assert "is not in raw, and its file cannot be used" in right["error"]
    assert why in right["error"]
    assert str(tmp_path) not in right["error"]
    page = client.get("/compare?id=3&k=5")
    assert page.status_code == 200
    assert 'name="right_by"' in page.text  # another index or metric can be chosen


def test_a_file_of_the_collection_may_be_larger_than_an_upload(
    client: FlaskClient, two: dict[str, FakeEngine], tmp_path: Path
) -> None:
    with_file(two["unit"], 3, tmp_path / "large.png", encoded(draw(COLOURS["red"], (1200, 1000))))
    left, right = client.get("/compare?id=3&k=5", headers=JSON).get_json()["sides"]
    assert (left["error"], right["error"]) == (None, None)
    assert len(right["hits"]) == 5
    upload = {"image": (io.BytesIO((tmp_path / "large.png").read_bytes()), "large.png")}
    assert client.post("/compare", data=upload).status_code == 413


def test_an_upload_that_one_side_cannot_read(
    client: FlaskClient, two: dict[str, FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise DamagedImageError("This PNG image is damaged.")

    monkeypatch.setattr(two["raw"], "preprocess", fail)
    upload = {"image": picture()}
    answer = client.post("/compare", data={**upload, "k": "5"}, headers=JSON)
    assert answer.status_code == 200
    left, right = answer.get_json()["sides"]
    assert len(left["hits"]) == 5
    assert right["error"] == "This PNG image is damaged."
