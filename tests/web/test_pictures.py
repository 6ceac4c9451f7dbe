"""Originals, thumbnails, static files and their headers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from PIL import Image

from searchengine.errors import IndexNotFoundError
from searchengine.settings import load_settings
from searchengine.web import create_app
from searchengine.web.pages import BUNDLES, folder
from tests.web.conftest import encoded, make_app
from tests.web.fake import COLOURS, FakeEngine, draw


def test_nonces_differ(client: FlaskClient) -> None:
    policies = {client.get("/").headers["Content-Security-Policy"] for _ in range(3)}
    assert len(policies) == 3


@pytest.mark.parametrize(("kind", "side"), [("thumbnails", 480), ("previews", 2048)])
def test_renditions_are_kept_and_revalidated(tmp_path: Path, kind: str, side: int) -> None:
    (tmp_path / "in").mkdir()
    draw(COLOURS["red"], (2400, 600)).save(tmp_path / "in" / "wide.tif")
    engine = FakeEngine(tmp_path / "in")
    client = make_app(engine, tmp_path).test_client()
    record = engine.index.record(1)
    assert record.content_hash is not None
    answer = client.get(f"/{kind}/1?v={record.content_hash[:8]}")
    assert answer.mimetype == "image/jpeg"
    assert Image.open(io.BytesIO(answer.data)).size == (side, side // 4)
    assert "immutable" in answer.headers["Cache-Control"]
    assert "private" in answer.headers["Cache-Control"]  # shared caches must not keep it
    assert [file.stem for file in (tmp_path / "cache").rglob("*.jpg")] == [record.content_hash]
    again = client.get(f"/{kind}/1", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    for address in (f"/{kind}/1", f"/{kind}/1?v=00000000"):
        assert "immutable" not in client.get(address).headers["Cache-Control"]
    assert f"/thumbnails/1?v={record.content_hash[:8]}" in client.get("/").text


def test_thumbnails_without_a_folder_to_keep_them_in(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    answer = make_app(engine, tmp_path).test_client().get("/thumbnails/1")
    assert (answer.status_code, answer.mimetype) == (200, "image/jpeg")


def test_original_and_download(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    data = encoded(draw(COLOURS["red"]), "JPEG")
    (folder / 'née\n"x".jpg').write_bytes(data)
    client = make_app(FakeEngine(folder), tmp_path).test_client()
    answer = client.get("/images/1", buffered=True)
    assert (answer.mimetype, answer.data) == ("image/jpeg", data)
    assert answer.headers["X-Accel-Buffering"] == "no"  # otherwise nginx writes all of it to disk at once
    assert client.get("/images/1", headers={"If-None-Match": answer.headers["ETag"]}, buffered=True).status_code == 304
    assert client.get("/images/1", headers={"Range": "bytes=0-9"}, buffered=True).data == data[:10]
    answer = client.get("/images/1?download=1", buffered=True)
    disposition = answer.headers["Content-Disposition"]
    assert disposition.startswith("attachment; filename=")
    assert "filename*=UTF-8''n%C3%A9e__x_.jpg" in disposition
    assert answer.data == data


def test_originals_do_not_say_where_they_were_taken(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    file = tmp_path / "photos" / "a.jpg"
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5)})
    draw(COLOURS["red"]).save(file, exif=exif)
    engine = FakeEngine(tmp_path / "photos")
    client = make_app(engine, tmp_path).test_client()
    whole = client.get("/images/1", buffered=True)
    assert len(whole.data) == whole.content_length == file.stat().st_size
    sent = Image.open(io.BytesIO(whole.data)).getexif()
    assert sent[0x010F] == "A camera"
    assert not sent.get_ifd(0x8825)
    assert client.get("/images/1?download=1", buffered=True).data == whole.data
    part = client.get("/images/1", headers={"Range": "bytes=20-299"}, buffered=True)
    assert (part.status_code, part.data) == (206, whole.data[20:300])
    assert part.headers["Content-Range"] == f"bytes 20-299/{file.stat().st_size}"
    assert client.get("/images/1", headers={"Range": "bytes=999999-"}, buffered=True).status_code == 416
    head = client.head("/images/1")
    assert (head.data, head.content_length, head.headers["ETag"]) == (b"", whole.content_length, whole.headers["ETag"])
    again = client.get("/images/1", headers={"If-None-Match": whole.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    kept = make_app(engine, tmp_path, KEEP_LOCATION=True).test_client().get("/images/1", buffered=True)
    assert kept.data == file.read_bytes()
    assert kept.headers["ETag"] != whole.headers["ETag"]


def test_details(tmp_path: Path) -> None:
    file = tmp_path / "photos" / "beach" / "née 1.jpg"
    file.parent.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS 5D"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:17 12:34:56"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5)})
    draw(COLOURS["red"], (64, 48)).save(file, exif=exif)
    modified = datetime(2024, 6, 1, 8, 0)
    os.utime(file, (modified.timestamp(),) * 2)
    client = make_app(FakeEngine(tmp_path / "photos"), tmp_path).test_client()
    details = client.get("/image/1/details").get_json()
    assert details == {
        "id": 1,
        "path": "beach/née 1.jpg",
        "absolute": str(file),
        "width": 64,
        "height": 48,
        "bytes": file.stat().st_size,
        "format": "JPEG",
        "taken": "2024-05-17T12:34:56",
        "modified": "2024-06-01T08:00:00",
        "camera": "Canon EOS 5D",
        "labels": [{"name": "beach", "address": "/?label=beach"}],
        "tags": [{"name": "red", "address": "/search?q=red"}],
        "thumbnail": "/thumbnails/1",
        "original": "/images/1",
        "download": "/images/1?download=1",
        "search": "/search?id=1",
    }
    assert client.get("/i/index/image/1/details").get_json()["original"] == "/i/index/images/1"
    for address in ("/image/2/details", "/image/x/details"):
        answer = client.get(address, headers={"Accept": "application/json"})
        assert (answer.status_code, list(answer.get_json())) == (404, ["error"])
    file.unlink()
    lost = client.get("/image/1/details").get_json()
    assert (lost["path"], lost["taken"], lost["modified"], lost["camera"]) == ("beach/née 1.jpg", None, None, None)


@pytest.mark.parametrize(
    ("peer", "host", "headers", "shown"),
    [
        ("127.0.0.1", "localhost:8000", {}, True),
        ("127.0.0.1", "127.0.0.1", {}, True),
        ("::1", "[::1]:8000", {}, True),
        ("192.0.2.7", "127.0.0.1", {}, False),
        ("127.0.0.1", "192.0.2.1", {}, False),
        ("127.0.0.1", "photos.example.org", {}, False),
        ("localhost", "localhost", {}, False),  # a Unix socket, used by a proxy
        ("", "localhost", {}, False),
        ("127.0.0.1", "localhost", {"X-Forwarded-For": "192.0.2.7"}, False),
        ("127.0.0.1", "localhost", {"Via": "1.1 proxy"}, False),
    ],
)
def test_only_browsers_on_this_machine_see_absolute_paths(
    engine: FakeEngine, tmp_path: Path, peer: str, host: str, headers: dict[str, str], shown: bool
) -> None:
    client = make_app(engine, tmp_path, HOSTS="*").test_client()
    answer = client.get(
        "/image/1/details", headers={"Host": host, **headers}, environ_overrides={"REMOTE_ADDR": peer}
    ).get_json()
    assert answer["absolute"] == (str(engine.index.record(1).file) if shown else None)


def test_an_original_with_endless_metadata_is_sent_as_jpeg(tmp_path: Path) -> None:
    """It cannot be checked whether such metadata has the location."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.gif").write_bytes(encoded(draw(COLOURS["red"]), "GIF") + b"II*\0" * 2001)
    client = make_app(FakeEngine(folder), tmp_path).test_client()
    for address in ("/images/1", "/images/1?download=1"):
        answer = client.get(address, buffered=True)
        assert (answer.status_code, answer.mimetype) == (200, "image/jpeg")


def test_original_with_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    data = encoded(draw(COLOURS["red"]), "JPEG")
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg")).write_bytes(data)
    engine = FakeEngine(folder)
    engine.index.change(1, path="caf\N{REPLACEMENT CHARACTER}.jpg")  # as in an index
    client = make_app(engine, tmp_path).test_client()
    assert client.get("/image/1/details").get_json()["absolute"] is None
    for address in ("/images/1", "/images/1?download=1"):
        answer = client.get(address, buffered=True)
        assert (answer.status_code, answer.data) == (200, data)
        known = {"If-None-Match": answer.headers["ETag"]}
        assert client.get(address, headers=known, buffered=True).status_code == 304
        part = client.get(address, headers={"Range": "bytes=2-5", "If-Range": answer.headers["ETag"]}, buffered=True)
        assert (part.status_code, part.data) == (206, data[2:6])
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg")).write_bytes(data + b"longer")
    assert client.get("/images/1", headers=known, buffered=True).status_code == 200


def test_original_in_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    draw(COLOURS["red"]).save(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    client = make_app(FakeEngine(Path("in")), tmp_path).test_client()
    assert client.get("/images/1", buffered=True).data == (tmp_path / "in" / "a.png").read_bytes()
    settings = load_settings(environ={"SEARCHENGINE_IMAGES_DIR": "in", "SEARCHENGINE_CACHE_DIR": "cache"})
    assert (settings.images_dir, settings.cache_dir) == (tmp_path / "in", tmp_path / "cache")


def test_formats_that_browsers_cannot_show_are_sent_as_jpeg(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    data = encoded(draw(COLOURS["green"], (64, 48)), "TIFF")
    (folder / "scan.tif").write_bytes(data)
    client = make_app(FakeEngine(folder), tmp_path).test_client()
    for _ in range(2):  # made, then kept on disk
        answer = client.get("/images/1", buffered=True)
        assert answer.mimetype == "image/jpeg"
        assert Image.open(io.BytesIO(answer.data)).size == (64, 48)
    answer = client.get("/images/1?download=1", buffered=True)
    assert (answer.mimetype, answer.data) == ("image/tiff", data)


def test_a_file_that_is_missing_or_no_longer_an_image(tmp_path: Path, collection: Path) -> None:
    folder = shutil.copytree(collection / "red", tmp_path / "in")
    engine = FakeEngine(folder)
    client = make_app(engine, tmp_path).test_client()
    first, second, third = (engine.index.record(number).file for number in (1, 2, 3))
    assert first is not None
    assert second is not None
    assert third is not None
    first.unlink()
    answer = client.get("/images/1", buffered=True)
    assert answer.status_code == 404
    assert "SEARCHENGINE_IMAGES_DIR" in answer.text
    answer = client.get("/thumbnails/1")
    assert (answer.status_code, answer.mimetype) == (404, "image/svg+xml")
    page = client.get("/search?id=1")
    assert page.status_code == 200
    assert "moved or deleted" in page.text
    # Whatever replaced the image is not sent.
    second.write_text("<script>alert(1)</script>")
    assert client.get("/images/2", buffered=True).status_code == 415
    assert client.get("/images/2?download=1", buffered=True).status_code == 415
    # Another image in its place is shown, but not kept under the hash of the old content.
    third.write_bytes(encoded(draw(COLOURS["blue"])))
    known = engine.index.record(3).content_hash
    assert known is not None
    answer = client.get(f"/thumbnails/3?v={known[:8]}")
    assert answer.status_code == 200
    assert "immutable" not in answer.headers["Cache-Control"]
    assert not list((tmp_path / "cache").rglob(f"{known}.jpg"))


def test_static_files(client: FlaskClient) -> None:
    page = client.get("/").text
    addresses = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert len(addresses) > 8
    for address in addresses:
        answer = client.get(address, buffered=True)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        other = re.sub(r"/static/[^/]+/", "/static/old/", address)
        assert "immutable" not in client.get(other, buffered=True).headers["Cache-Control"]
    assert client.get("/favicon.ico", buffered=True).mimetype == "image/svg+xml"
    assert client.get("/static/x/../../pyproject.toml").status_code == 404
    assert client.get("/static/x/%2e%2e/%2e%2e/pyproject.toml").status_code == 404


def test_styles_are_one_file_and_scripts_are_preloaded(client: FlaskClient) -> None:
    page = client.get("/").text
    styles = re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)
    assert len(styles) == 1
    whole = client.get(styles[0])
    assert whole.mimetype == "text/css"
    for name in BUNDLES["all.css"]:
        assert (folder("static") / name).read_text(encoding="utf-8") in whole.text
    assert client.get(styles[0], headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    named = [address.rsplit("/", 1)[-1] for address in re.findall(r'rel="modulepreload" href="([^"]+)"', page)]
    imported = {
        name
        for script in named
        for name in re.findall(r'from "\./([^"]+)"', (folder("static") / script).read_text(encoding="utf-8"))
    }
    assert imported < set(named)
    assert len(named) == len(set(named))
    assert client.get("/static/x/nothing.css").status_code == 404


def test_vendored_files_match_their_hashes(client: FlaskClient) -> None:
    vendor = folder("static") / "vendor"
    packages = json.loads((vendor / "vendor.json").read_bytes())
    listed = {
        f"{name}/{file}": sha256 for name, package in packages.items() for file, sha256 in package["sha256"].items()
    }
    files = [file for file in vendor.rglob("*") if file.is_file() and file.name != "vendor.json"]
    assert {file.relative_to(vendor).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files} == (
        listed
    )
    for name, package in packages.items():
        assert package["version"]
        assert package["licence"] in {"MIT", "Apache-2.0"}
        assert f"{name}/LICENSE" in listed
    served = [name for name in listed if not name.endswith("LICENSE")]
    assert [client.get(f"/static/x/vendor/{name}", buffered=True).status_code for name in served] == [200] * len(served)
    assert client.get("/static/x/vendor/vendor.json").status_code == 404


def test_a_missing_index_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match=str(tmp_path / "none")):
        create_app({"INDEX_DIR": tmp_path / "none"})
