"""Uploads that are refused, and the reasons given."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image

from searchengine.errors import DecodingKilledError
from searchengine.images import isolation
from searchengine.web import uploads
from searchengine.web.requests import RequestError
from searchengine.web.uploads import DecodingTurns
from tests.images import misbehaving
from tests.waiting import wait_until
from tests.web.conftest import encoded
from tests.web.fake import COLOURS, FakeEngine, draw

PNG = encoded(draw(COLOURS["red"]))
NOISE = encoded(Image.frombytes("RGB", (400, 400), os.urandom(400 * 400 * 3)))


JPEG, TIFF = (encoded(draw(COLOURS["red"]), format_) for format_ in ("JPEG", "TIFF"))


def form(*files: tuple[str, bytes, str]) -> bytes:
    """Return the body of a form with boundary "b"; werkzeug's test client would put a large one into a file."""
    parts = [
        f'--b\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for field, content, name in files
    ]
    return b"".join(parts) + b"--b--\r\n"


def post(client: FlaskClient, *files: tuple[str, bytes, str], **options: Any) -> Any:
    return client.post("/search", data=form(*files), content_type="multipart/form-data; boundary=b", **options)


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ([], 400, "Choose a picture first"),
        ([("image", b"", "")], 400, "Choose a picture first"),
        ([("image", b"", "empty.png")], 400, "The file is empty"),
        ([("file", PNG, "a.png")], 400, "in the field “image”"),
        ([("image", PNG, "a.png"), ("image", PNG, "b.png")], 400, "one picture at a time"),
        ([("image", PNG, "a.png"), ("other", PNG, "b.png")], 400, "one picture at a time"),
        ([("image", b"dear diary", "notes.png")], 415, ""),
        ([("image", b"<svg onload='alert(1)'/>", "a.svg")], 415, ""),
        ([("image", NOISE[: len(NOISE) // 2], "a.png")], 422, ""),
        ([("image", NOISE * 3, "large.png")], 413, "larger than 1 MB"),
        ([("image", encoded(Image.new("L", (2000, 1001))), "wide.png")], 413, "SEARCHENGINE_MAX_UPLOAD_MEGAPIXELS"),
    ],
)
def test_invalid_uploads(
    client: FlaskClient, engine: FakeEngine, files: list[tuple[str, bytes, str]], status: int, words: str
) -> None:
    page = post(client, *files)
    assert page.status_code == status
    assert page.mimetype == "text/html"
    assert "data-error" in page.text
    assert words in page.text
    assert 'name="image"' in page.text  # and the reader can try again at once
    answer = post(client, *files, headers={"Accept": "application/json"})
    assert answer.status_code == status
    assert words in answer.get_json()["error"]
    assert answer.get_json()["error"].endswith(".")
    assert engine.queries == []


def test_decoding_without_a_worker_process(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    isolation._POOL.close()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    page = post(client, ("image", encoded(draw(COLOURS["red"]), "TIFF"), "scan.tif"))
    assert page.status_code == 503
    assert "No process can be started to decode images" in page.text


def test_requests_without_a_form(client: FlaskClient) -> None:
    for content_type in ("image/png", "application/x-www-form-urlencoded", "application/json"):
        answer = client.post("/search", data=PNG, content_type=content_type)
        assert answer.status_code == 400
        assert "multipart/form-data" in answer.text
    assert client.post("/search", data=b"junk", content_type="multipart/form-data; boundary=x").status_code == 400


def test_too_many_bytes_are_refused_whatever_content_length_says(client: FlaskClient) -> None:
    body = form(("image", NOISE * 3, "a.png"))
    answer = client.open(
        "/search",
        environ_overrides={
            "wsgi.input": io.BytesIO(body),
            "wsgi.input_terminated": True,
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": "multipart/form-data; boundary=b",
            "CONTENT_LENGTH": "",
        },
    )
    assert answer.status_code == 413
    # A body longer than its Content-Length is cut there.
    answer = client.open(
        "/search",
        environ_overrides={
            "wsgi.input": io.BytesIO(body),
            "REQUEST_METHOD": "POST",
            "CONTENT_TYPE": "multipart/form-data; boundary=b",
            "CONTENT_LENGTH": "200",
        },
    )
    assert 400 <= answer.status_code < 500


def test_nothing_is_written(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("an upload was written to a file")

    assert post(client, ("image", NOISE, "noise")).status_code == 200  # compiles all templates
    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    assert post(client, ("image", NOISE, "../../etc/passwd")).status_code == 200


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_ordinary_and_slow_formats_can_be_searched_by(client: FlaskClient, format_: str) -> None:
    picture = encoded(draw(COLOURS["green"]), format_)
    answer = post(client, ("image", picture, "picture"), headers={"Accept": "application/json"})
    assert answer.get_json()["hits"][0]["label"] == "green"


@pytest.mark.parametrize("address", ["/search", "/compare?left=photos&right=photos&right_by=manhattan"])
def test_previews_are_made_for_pages_only(client: FlaskClient, engine: FakeEngine, address: str) -> None:
    for accept in ("application/json", "text/html"):
        body = {"image": (io.BytesIO(PNG), "a.png")}
        assert client.post(address, data=body, headers={"Accept": accept}).status_code == 200
    assert engine.previews == [None, 480]


def test_ordinary_photos_do_not_wait_for_slow_formats() -> None:
    turns = DecodingTurns()

    def take() -> None:
        with turns.turn(TIFF):
            pass

    with ThreadPoolExecutor(uploads._MAX_WAITING) as pool, turns.turn(TIFF), turns.turn(TIFF):
        queue = [pool.submit(take) for _ in range(uploads._MAX_WAITING)]
        wait_until(lambda: turns._waiting == uploads._MAX_WAITING)
        with turns.turn(JPEG):
            pass
        with pytest.raises(RequestError, match="Too many pictures") as caught:
            take()
        assert caught.value.status == 503
    assert all(thread.exception() is None for thread in queue)


def test_slow_decoding_stops_when_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_MAX_SECONDS", 0)
    turns = DecodingTurns()

    def spin() -> None:
        with turns.turn(TIFF):
            misbehaving.spin(TIFF, max_pixels=10**9)

    with ThreadPoolExecutor(1) as pool, turns.turn(TIFF):
        spinning = pool.submit(spin)
        wait_until(lambda: turns._slow._value == 0)
        with turns.turn(TIFF):
            pass
        assert isinstance(spinning.exception(), DecodingKilledError)
