"""An index of the compact model, which is no longer included: what still works, and what to do."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from searchengine import SearchEngine
from searchengine.cli import serve
from searchengine.cli.main import main
from searchengine.errors import IndexingError, QueryError
from searchengine.extractors import ExtractorSpec
from searchengine.indexing import update_index
from searchengine.web import create_app
from searchengine.web.engines import ServedEngine
from tests.fakes import FakeExtractor, picture, write_pictures

COMPACT = ExtractorSpec("compact", None, "none", "l2", "compact:57d915fe7ad7328d", (112, 112), full_decode=False)
REBUILD = "--model efficientnet-lite0 --rebuild"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "photos", a=1, b=40, c=80, d=120)
    update_index(tmp_path / "photos", tmp_path / "index", extractor=FakeExtractor(COMPACT))
    return tmp_path / "index"


@pytest.fixture
def client(index: Path, tmp_path: Path) -> Iterator[FlaskClient]:
    engine = ServedEngine.open(index)
    engine.warm()  # needs no model
    yield create_app({"TESTING": True, "CACHE_DIR": tmp_path / "cache"}, engine).test_client()
    engine.close()


def test_browsing_and_searching_by_its_own_images(client: FlaskClient) -> None:
    home = client.get("/")
    assert home.status_code == 200
    assert REBUILD in home.text
    hits = client.get("/search?id=1", headers={"Accept": "application/json"}).get_json()["hits"]
    assert hits[0]["id"] == 1
    assert len(hits) == 4


def test_an_upload_gets_the_command_to_rebuild_it(client: FlaskClient) -> None:
    answer = client.post(
        "/search",
        data={"image": (io.BytesIO(picture((1, 2, 3))), "a.png")},
        headers={"Accept": "application/json"},
    )
    assert answer.status_code == 400
    assert REBUILD in answer.get_json()["error"]


def test_a_query_and_an_update_name_the_command_to_rebuild_it(
    index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(SearchEngine.open(index)) as engine:
        assert [hit.id for hit in engine.search(2, k=1)]
        with pytest.raises(QueryError, match=REBUILD):
            engine.search(tmp_path / "photos" / "a.png")
    with pytest.raises(IndexingError, match=REBUILD):
        update_index(tmp_path / "photos", index)
    assert main(["index", str(tmp_path / "photos"), "--index-dir", str(index), "--model", "compact"]) == 1
    assert REBUILD in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_rebuilds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    served: list[object] = []
    monkeypatch.setattr(serve, "become_server", served.append)
    write_pictures(tmp_path / "demo" / "photos", a=1, b=40)
    update_index(tmp_path / "demo" / "photos", tmp_path / "demo" / "index", extractor=FakeExtractor(COMPACT))
    main(["demo", "--dir", str(tmp_path / "demo")])
    assert "made with another model" in capsys.readouterr().err
    assert len(served) == 1
    with closing(SearchEngine.open(tmp_path / "demo" / "index")) as engine:
        assert engine.spec.model == "efficientnet-lite0"
        assert engine.search(tmp_path / "demo" / "photos" / "a.png", k=1)[0].path.endswith("a.png")
