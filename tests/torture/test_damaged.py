"""Files of an index flipped, truncated, emptied, lost or replaced: the damage is reported with its repair."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from searchengine.cli import main, offline_index
from searchengine.errors import IndexDamagedError, IndexVersionError, SearchEngineError
from searchengine.indexing import IndexingOptions, update_index
from searchengine.indexing.verify import verify
from tests.fakes import FakeExtractor
from tests.torture.conftest import sizes
from tests.torture.looking import answers, contents
from tests.torture.photographs import write

Said = pytest.CaptureFixture[str]
Damage = Callable[[Path], None]


def cut(name: str, tenth: int) -> Damage:
    def damage(index: Path) -> None:
        file = index / name
        os.truncate(file, file.stat().st_size * tenth // 10)

    return damage


def lose(*names: str) -> Damage:
    def damage(index: Path) -> None:
        for name in names:
            (index / name).unlink()

    return damage


def format_number(number: int) -> Damage:
    def damage(index: Path) -> None:
        with closing(sqlite3.connect(index / "catalog.sqlite")) as catalog:
            catalog.execute(f"PRAGMA user_version = {number}")

    return damage


def overwrite(name: str, start: int, length: int) -> Damage:
    def damage(index: Path) -> None:
        with (index / name).open("r+b") as file:
            file.seek(start)
            file.write(b"\xa5" * length)

    return damage


DAMAGES: dict[str, Damage] = {
    **{f"catalog cut to {tenth}0 percent": cut("catalog.sqlite", tenth) for tenth in (0, 1, 5, 9)},
    "catalog lost": lose("catalog.sqlite"),
    "catalog without its head": overwrite("catalog.sqlite", 0, 100),
    "catalog's pages overwritten": overwrite("catalog.sqlite", 4096, 9000),
    "matrix cut to nothing": cut("features.npy", 0),
    "matrix cut in half": cut("features.npy", 5),
    "matrix lost": lose("features.npy"),
    "matrix without its head": overwrite("features.npy", 0, 20),
    "matrix with another row": overwrite("features.npy", 300, 9),
    "older format": format_number(0),
    "newer format": format_number(7),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an index with the packaged model, of a folder whose name needs quotes in a shell."""
    folder = tmp_path_factory.mktemp("an index")
    images = write(folder / "l'été $HOME", range(12))
    arguments = [
        str(images),
        "--index-dir",
        str(folder / "the index"),
        "--model",
        "efficientnet-lite0",
        "--normalize",
        "none",
    ]
    assert offline_index(arguments) == 0
    (images / "label0" / "000003.png").rename(images / "another name.png")  # or ids would be those of a first run
    assert offline_index(arguments) == 0
    return folder / "the index"


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_what_verify_names_mends_it(name: str, made: Path, tmp_path: Path, capsys: Said) -> None:
    index = shutil.copytree(made, tmp_path / "a copy")
    whole = contents(index)
    assert whole is not None
    DAMAGES[name](index)
    assert main(["verify", "--index-dir", str(index)]) == 1
    said = capsys.readouterr()
    assert str(index) in said.out
    if name != "matrix with another row":  # which only a look at all of it can tell
        with pytest.raises((IndexDamagedError, IndexVersionError), match=r"rebuild it with: .* --rebuild") as caught:
            contents(index) if name != "matrix without its head" else answers(index)
        assert shlex.quote(str(index)) in str(caught.value)
        assert main(["search", "--id", "1", "--index-dir", str(index)]) == 1
        assert "Traceback" not in capsys.readouterr().err
    program, verb, *arguments = shlex.split(said.out.rsplit("Repair it with: ", 1)[1])
    assert (program, verb) == ("searchengine", "index")
    assert "--model" not in arguments  # what made it is known
    assert main([verb, *arguments]) == 0
    assert main(["verify", "--index-dir", str(index)]) == 0
    assert answers(index) == 12
    mended = contents(index)
    assert mended == whole  # ids, too
    if "row" not in name:
        assert [*index.glob("damaged-*/*")] or "lost" in name


def test_without_its_copy_all_but_the_ids_comes_back(made: Path, tmp_path: Path, capsys: Said) -> None:
    index = shutil.copytree(made, tmp_path / "copy")
    whole = contents(index)
    assert whole is not None
    lose("catalog.sqlite", "backup.sqlite")(index)
    assert main(["verify", "--index-dir", str(index)]) == 1
    line = capsys.readouterr().out.rsplit("Repair it with: ", 1)[1]
    assert "IMAGES" in line
    assert "--model MODEL" in line  # nobody knows any more
    arguments = shlex.split(line)[2:]
    arguments[arguments.index("IMAGES")] = str(made.parent / "l'été $HOME")
    arguments[arguments.index("MODEL")] = "efficientnet-lite0"
    assert offline_index([*arguments, "--normalize", "none"]) == 0
    again = contents(index)
    assert again is not None
    assert again.rows == whole.rows


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an index quickly, with labels, a skipped file, and ids that differ from those of a first run."""
    folder = tmp_path_factory.mktemp("fake")
    photos = write(folder / "photos", range(60))
    (photos / "no image.jpg").write_text("no image")
    make(photos, folder / "index")
    for file in sorted(photos.rglob("*.png"))[:8]:
        file.unlink()
    (photos / "label2" / "000023.png").rename(photos / "another name.png")
    write(photos, range(80, 90))
    make(photos, folder / "index")
    return folder / "index"


def make(photos: Path, index: Path, **options: bool) -> None:
    update_index(
        [photos],
        index,
        extractor=FakeExtractor(),
        options=IndexingOptions(batch_size=16, **options),  # type: ignore[arg-type]
    )


def flip(fake: Path, index: Path, name: str, chance: random.Random) -> str:
    """Change one byte to any other, and return a description."""
    shutil.copytree(fake, index)
    data = bytearray((index / name).read_bytes())
    at = chance.randrange(len(data))
    data[at] ^= chance.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
    (index / name).write_bytes(data)
    return f"{name}, byte {at} of {len(data)}, to {data[at]}"


def flipped_bytes_are_told_and_mended(fake: Path, tmp_path: Path, name: str, times: int) -> int:
    chance = random.Random(name)
    whole = contents(fake)
    assert whole is not None
    told = 0
    for turn in range(times):
        index = tmp_path / f"{turn}"
        what = flip(fake, index, name, chance)
        result = verify(index)
        if result.sound:  # a byte that says nothing: of a free page, of a row that is dead
            assert contents(index) == whole, what
            answers(index)
        else:
            told += 1
            assert result.repair is not None
            words = shlex.split(result.repair)
            assert words[-2:] == ["--index-dir", str(index)] or words[-1] == "--rebuild", what
            try:
                contents(index)
                update_index([fake.parent / "photos"], index, extractor=FakeExtractor())
            except SearchEngineError:
                pass  # and nothing else
            make(fake.parent / "photos", index, rebuild=words[-1] == "--rebuild")
            result = verify(index)
            assert result.sound, (what, result.problems)
            assert contents(index) == whole, what
        shutil.rmtree(index)
    return told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["catalog.sqlite", "features.npy", "backup.sqlite"])
def test_a_few_flipped_bytes(name: str, fake: Path, quick: Path) -> None:
    assert flipped_bytes_are_told_and_mended(fake, quick, name, 12) > 2


@pytest.mark.torture
@pytest.mark.parametrize(("name", "part"), [("catalog.sqlite", 1.0), ("features.npy", 0.25), ("backup.sqlite", 0.25)])
@pytest.mark.parametrize("flips", sizes("TORTURE_FLIPS", 40, 300))
def test_many_flipped_bytes(name: str, part: float, flips: int, fake: Path, quick: Path) -> None:
    times = round(flips * part)
    told = flipped_bytes_are_told_and_mended(fake, quick, name, times)
    print(f"{name}: of {times} flipped bytes {told} were told and mended; the others changed nothing")
