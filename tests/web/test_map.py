"""The pages of the map and the groups, without a browser."""

from __future__ import annotations

import json
import re
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from searchengine.analyse.map import MAP
from searchengine.index.local import LocalIndex
from tests.analyse.filled import fill
from tests.web.mapped import app_of, fill_index, read_only_mount, store_groups, store_map


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    return fill_index(tmp_path, 30)


@pytest.fixture
def client(index: LocalIndex, tmp_path: Path) -> FlaskClient:
    return app_of(index, tmp_path / "cache").test_client()


def unpacked(data: bytes) -> dict[str, Any]:
    size = struct.unpack("<I", data[:4])[0]
    head = json.loads(data[4 : 4 + size])
    assert (4 + size) % 8 == 0
    for name, (kind, at, length) in head["columns"].items():
        assert at % 8 == 0
        head[name] = np.frombuffer(data, kind, length, 4 + size + at).tolist()
    return dict(head)


def test_without_a_map_the_page_names_the_command(client: FlaskClient) -> None:
    page = client.get("/map").text
    assert "No map yet" in page
    assert "<canvas" not in page
    answer = client.get("/map/points", headers={"Accept": "application/json"})
    assert answer.status_code == 404
    assert 'href="/map"' in client.get("/").text


@pytest.mark.parametrize(("page", "command"), [("map", "map"), ("groups", "cluster"), ("evaluation", "evaluate")])
def test_the_whole_command_is_shown_on_this_machine_only(
    page: str, command: str, client: FlaskClient, index: LocalIndex
) -> None:
    whole = f"searchengine {command} --index-dir {index.folder.absolute()}"
    assert f"<code>{whole}</code>" in client.get(f"/{page}").text
    assert f'data-copy="{whole}"' in client.get(f"/{page}").text
    for elsewhere in ({"REMOTE_ADDR": "192.0.2.7"}, {"HTTP_X_FORWARDED_FOR": "192.0.2.7"}):
        text = client.get(f"/{page}", environ_overrides=elsewhere).text
        assert f"searchengine {command} --index-dir DIR" in text
        assert str(index.folder) not in text


def test_points_agree_with_the_map(client: FlaskClient, index: LocalIndex) -> None:
    store_map(index, 30)
    answer = client.get("/map/points")
    points = unpacked(answer.data)
    assert points["count"] == 30
    assert points["id"] == list(range(1, 31))
    assert points["x"][:3] == [-10, 0, 10]
    assert points["labels"] == ["blue", "green", "red"]
    assert points["label"][:3] == [2, 1, 0]
    assert set(points["cluster"]) == {0xFFFF}
    assert points["ratio"][0] == 1333
    assert points["colour"][3:6] == [1, 0x80, 0x40]
    record = index.records([5])[0]
    assert record.content_hash is not None
    assert f"{points['version'][4]:08x}" == record.content_hash[:8]
    assert "Content-Security-Policy" in answer.headers

    same = client.get("/map/points", headers={"If-None-Match": answer.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")
    store_groups(index, 30)
    other = client.get("/map/points", headers={"If-None-Match": answer.headers["ETag"]})
    assert other.status_code == 200
    assert unpacked(other.data)["cluster"][:4] == [0, 1, 2, 0]


def test_paths_of_selected_images(client: FlaskClient) -> None:
    assert client.post("/map/paths", data="2,1,99,x").get_json() == ["green 001.png", "red 000.png"]
    # In several batches, including the last one.
    assert client.post("/map/paths", data="99," * 1200 + "3").get_json() == ["blue 002.png"]


def test_paths_may_contain_line_breaks(tmp_path: Path) -> None:
    index = fill_index(tmp_path, 3)
    path = 'a\nb, "c".png'
    with sqlite3.connect(index.folder / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE images SET path = ? WHERE id = 1", (path.encode(),))
    catalog.close()
    client = app_of(LocalIndex.open(index.folder), tmp_path / "cache").test_client()
    assert client.post("/map/paths", data="1,2").get_json() == [path, "green 001.png"]


def test_changes_are_reported_on_a_read_only_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_only_mount(monkeypatch)
    index = fill_index(tmp_path, 30)
    store_map(index, 30)
    client = app_of(index, tmp_path / "cache").test_client()
    assert unpacked(client.get("/map/points").data)["id"] == list(range(1, 31))
    for gone in (1, 2):
        fill(tmp_path / "index", np.empty((0, 6), np.float32), gone=[gone])
        assert unpacked(client.get("/map/points").data)["id"] == list(range(gone + 1, 31))


def test_changes_are_reported(client: FlaskClient, index: LocalIndex, tmp_path: Path) -> None:
    store_map(index, 27)
    store_groups(index, 27)
    assert "3 pictures were added" in client.get("/map").text
    assert f"searchengine cluster --index-dir {index.folder.absolute()}" in client.get("/groups").text
    fill(tmp_path / "index", np.empty((0, 6), np.float32), gone=[1, 2])
    assert "2 pictures were removed" in client.get("/map").text
    assert unpacked(client.get("/map/points").data)["id"] == list(range(3, 28))
    assert client.get("/groups?cluster=1").status_code == 200
    (MAP.path(index.folder)).write_bytes(b"nothing")
    page = client.get("/map")
    assert page.status_code == 200
    assert "cannot be read" in page.text


def test_groups_open(client: FlaskClient, index: LocalIndex) -> None:
    store_groups(index, 30)
    page = client.get("/groups").text
    assert "3 groups" in page
    assert "silhouette is 0.900" in page  # in the collapsed part
    assert page.count('class="group"') == 5
    one = client.get("/groups?cluster=2").text
    # The most typical image first, and only images of the group.
    assert re.findall(r'<li class="tile[^"]*" id="i(\d+)"', one) == [str(number) for number in range(2, 31, 3)]
    assert "mostly green" in one
    assert one.count('data-judge="like"') == 10
    assert re.findall(r'<li class="tile[^"]*" id="i(\d+)"', client.get("/groups?duplicates=2").text) == ["2", "5"]
    assert re.findall(r'id="i(\d+)"', client.get("/groups?cluster=2&start=8").text) == ["26", "29"]
    for address in ("/groups?cluster=9", "/groups?cluster=x", "/groups?duplicates=0"):
        assert client.get(address).status_code == 404
