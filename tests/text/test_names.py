"""Searching for a name: a label, a file or a folder that is called exactly that."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchengine import update_index
from searchengine.index.local import LocalIndex
from tests.fakes import FakeExtractor, write_pictures


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LocalIndex:
    folder = tmp_path_factory.mktemp("names")
    images = folder / "images"
    write_pictures(images, red_car__one=10, red_car__my_Dog=20, dogs__two=30, **{"Größe__100%": 40, "x_y__z": 50})
    (images / "dogs" / "two.png").rename(images / "dogs" / "Red-Car.2.png")
    broken = bytes(images / "dogs") + b"/caf\xe9.png"
    Path(broken.decode("utf-8", "surrogateescape")).write_bytes((images / "red_car" / "one.png").read_bytes())
    update_index(images, folder / "index", extractor=FakeExtractor())
    return LocalIndex.open(folder / "index")


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("red car", ["red_car/my_Dog.png", "red_car/one.png"]),
        ("RED-car", ["red_car/my_Dog.png", "red_car/one.png"]),
        ("red car 2", ["dogs/Red-Car.2.png"]),
        ("my dog", ["red_car/my_Dog.png"]),
        ("my dog.png", ["red_car/my_Dog.png"]),
        ("dog", []),
        ("GRÖSSE", ["Größe/100%.png"]),
        ("größe", ["Größe/100%.png"]),
        ("100%", ["Größe/100%.png"]),
        ("x y", ["x_y/z.png"]),
        ("x%", []),
        ("\\", []),
        ("", []),
        ("' OR 1=1 --", []),
    ],
)
def test_named(index: LocalIndex, text: str, paths: list[str]) -> None:
    ids = index.named(text)
    assert ids == sorted(ids)
    assert sorted(record.path for record in index.records(ids)) == paths


def test_a_path_that_is_no_text(index: LocalIndex) -> None:
    assert [record.path for record in index.records(index.named("dogs"))] == [
        "dogs/Red-Car.2.png",
        "dogs/caf\ufffd.png",
    ]
