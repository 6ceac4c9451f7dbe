"""Clients of a server, each asking for one thing after the other: pages, pictures, searches by id and by upload."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.images.pictures import encoded
from tests.web.test_uploads import form

MULTIPART = {"Content-Type": "multipart/form-data; boundary=b", "Accept": "application/json"}
WITHOUT_FILES = ("/", "/search", "/search", "/healthz", "upload")  # what an index answers whose images are missing
_WAYS = (*WITHOUT_FILES, "/images", "/thumbnails", "/thumbnails")


@dataclass(frozen=True)
class Answer:
    """``way`` is what was asked for; ``status`` is 0 where none came, ``good`` whether it was what it should be."""

    way: str
    status: int
    good: bool
    seconds: float


def a_photo(seed: int, size: tuple[int, int] = (1200, 900), *, format_: str = "JPEG") -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), format_)


def ask_all(
    port: int, clients: int, done: Callable[[], bool], *, ids: int, ways: Sequence[str] = _WAYS
) -> list[Answer]:
    """All answers that so many clients get until they are done, of an index whose ids are 1 to ``ids``."""
    with ThreadPoolExecutor(clients) as pool:
        each = pool.map(lambda seed: ask(port, seed, done, ids, ways), range(clients))
        return [answer for answers in each for answer in answers]


def ask(port: int, seed: int, done: Callable[[], bool], ids: int, ways: Sequence[str] = _WAYS) -> list[Answer]:
    """The answers that one client gets."""
    chance = random.Random(seed)
    photos = [a_photo(seed * 3 + i, (400 + 100 * i, 300)) for i in range(3)]
    answers = []
    while not done():
        way, id_ = chance.choice(ways), chance.randint(1, ids)
        if way == "upload":
            answers.append(upload(port, chance.choice(photos), way))
        elif way in ("/", "/healthz"):
            answers.append(get(port, way))
        else:
            answers.append(get(port, f"/search?id={id_}&k=20" if way == "/search" else f"{way}/{id_}", way))
    return answers


def get(port: int, address: str, way: str = "") -> Answer:
    began = time.monotonic()
    status, body = _answer(port, "GET", address)
    return Answer(way or address, status, status == 200 and len(body) > 20, time.monotonic() - began)


def upload(port: int, photo: bytes, way: str = "upload") -> Answer:
    began = time.monotonic()
    status, body = _answer(port, "POST", "/search", form(("image", photo, "a.jpg")))
    return Answer(way, status, status == 200 and len(json.loads(body)["hits"]) > 0, time.monotonic() - began)


def _answer(port: int, method: str, address: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, address, body, MULTIPART if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
