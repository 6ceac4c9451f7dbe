"""kill -9 and crashes: a run that ends at any moment leaves a usable index, and the same command finishes it."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchengine.analyse.map import MAP
from searchengine.engine import open_index
from searchengine.errors import IndexDamagedError
from searchengine.index.approximate import StructureSheet
from searchengine.index.local import LocalIndex
from searchengine.learn import load_classifier
from tests.torture.conftest import sizes
from tests.torture.forks import CRASHED, KILLED, REFUSED, Forks
from tests.torture.looking import Contents, answers, contents
from tests.torture.photographs import png, write


@dataclass
class Scene:
    """A folder with images and maybe an index, and the run to be ended midway."""

    folder: Path
    operation: str = "update"
    arguments: dict[str, Any] = field(default_factory=dict)
    before: Contents | None = None
    damaged: bool = False
    gone: frozenset[str] = frozenset()  # paths that this run takes out, or replaces

    def copy(self, to: Path) -> Path:
        """Copy the case to another place, except the image folder, whose path the index records."""
        if (self.folder / "index").exists():
            shutil.copytree(self.folder / "index", to)
        return to

    def run(self, forks: Forks, index: Path, **ending: Any) -> tuple[int, float]:
        return forks.timed(self.operation, **self.arguments, index=str(index), **ending)


Make = Callable[[Path, Forks], Scene]


def first_run(folder: Path, forks: Forks, count: int = 40) -> Scene:
    return Scene(folder, arguments={"photos": str(write(folder / "photos", range(count)))})


def busy_day(folder: Path, forks: Forks, count: int = 40) -> Scene:
    """Images of an index are deleted, changed, moved, swapped and added, so that it is compacted."""
    scene = first_run(folder, forks, count)
    photos, index = folder / "photos", folder / "index"
    write(photos, [500, 501, 502, 503])
    (photos / "no image.jpg").write_text("no image")
    assert scene.run(forks, index)[0] == 0
    scene.before = contents(index)
    files = sorted(photos.rglob("*.png"))
    gone, changed, moved = files[0 : count // 2], files[count // 2], files[count // 2 + 1]
    for file in gone:
        file.unlink()
    changed.write_bytes(png(777))
    moved.rename(photos / "elsewhere.png")
    first, second = files[-2:]
    first.rename(photos / "between")
    second.rename(first)
    (photos / "between").rename(second)
    (photos / "no image.jpg").unlink()
    write(photos, range(900, 900 + count // 4))
    scene.arguments["prune"] = True
    touched = [*gone, changed, moved, first, second]
    scene.gone = frozenset(str(file.relative_to(photos)) for file in touched)
    return scene


def rebuilding(folder: Path, forks: Forks, count: int = 40) -> Scene:
    scene = first_run(folder, forks, count)
    assert scene.run(forks, folder / "index")[0] == 0
    scene.before = contents(folder / "index")
    scene.arguments |= {"rebuild": True, "other": True}
    return scene


def rebuilding_a_damaged_one(folder: Path, forks: Forks, count: int = 40) -> Scene:
    """The matrix is truncated, so that the index cannot be searched, but its ids are known."""
    scene = first_run(folder, forks, count)
    photos, index = folder / "photos", folder / "index"
    (photos / "label0" / "000000.png").rename(photos / "later")  # or ids would be the same by the order of names alone
    assert scene.run(forks, index)[0] == 0
    (photos / "later").rename(photos / "label0" / "000000.png")
    assert scene.run(forks, index)[0] == 0
    with (index / "features.npy").open("r+b") as matrix:
        matrix.truncate(300)
    scene.arguments |= {"rebuild": True}
    scene.damaged = True
    return scene


def relabelling(folder: Path, forks: Forks, count: int = 40) -> Scene:
    scene = first_run(folder, forks, count)
    assert scene.run(forks, folder / "index")[0] == 0
    scene.before = contents(folder / "index")
    assert scene.before is not None
    lines = [f"{path},{'even' if i % 2 else 'odd'}\n" for i, path in enumerate(scene.before.rows)]
    (folder / "labels.csv").write_text("path,label\n" + "".join(lines))
    scene.arguments |= {"labels": str(folder / "labels.csv"), "metric": "cosine"}
    return scene


def importing(folder: Path, forks: Forks, count: int = 40) -> Scene:
    features = np.random.default_rng(3).standard_normal((count, 40)).astype(np.float32)
    write(folder / "photos", range(count // 2))
    paths = [f"label{i // 10 % 10}/{i:06d}.png" for i in range(count)]
    for name, rows in (("first", slice(count // 2)), ("second", slice(count // 2, count))):
        np.savez(folder / f"{name}.npz", features=features[rows], paths=paths[rows], labels=list("ab") * (count // 4))
    return Scene(folder, "import", {"file": folder / "first.npz", "images": folder / "photos"})


def appending(folder: Path, forks: Forks, count: int = 40) -> Scene:
    scene = importing(folder, forks, count)
    assert scene.run(forks, folder / "index")[0] == 0
    scene.before = contents(folder / "index")
    scene.arguments |= {"file": folder / "second.npz", "append": True}
    return scene


def finished(scene: Scene, forks: Forks, index: Path, clean: Contents) -> None:
    """Check that an ended run leaves an intact index, and that the same command finishes it as a clean run would."""
    held = answers_or_damaged(scene, index)
    if scene.before is not None and held is not None:
        now = contents(index)
        assert now is not None
        for path, id_ in scene.before.ids.items():
            if path not in scene.gone:
                assert now.ids[path] == id_  # nothing that was there is lost
    status, _ = scene.run(forks, index)
    if scene.operation == "import" and status == REFUSED:
        assert contents(index) == clean  # it had come to its end before, and is not taken in twice
    else:
        assert status == 0
    assert answers(index) == len(clean.rows)
    assert contents(index) == clean
    left = {
        file.name for file in index.iterdir() if not file.name.startswith(("damaged-", "catalog", "backup", ".backup"))
    }
    assert len(left) == 1, left  # the matrix, and nothing left over
    opened = open_index(index)
    assert opened.status().run is None
    opened.close()


def answers_or_damaged(scene: Scene, index: Path) -> int | None:
    """Return the number of images; None if the index was damaged from the start and not yet replaced."""
    try:
        return answers(index)
    except IndexDamagedError:
        assert scene.damaged
        return None


def clean_run(scene: Scene, forks: Forks, index: Path) -> tuple[Contents, float]:
    """Return the result of an uninterrupted run, and its duration in seconds."""
    scene.copy(index)
    status, seconds = scene.run(forks, index)
    assert status == 0
    made = contents(index)
    assert made is not None
    assert answers(index) == len(made.rows)
    assert len(made.rows) > 3
    return made, seconds


SCENES: dict[str, Make] = {
    "first run": first_run,
    "busy day": busy_day,
    "rebuild": rebuilding,
    "rebuild of a damaged one": rebuilding_a_damaged_one,
    "other labels": relabelling,
    "import": importing,
    "import more": appending,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name == "import" else pytest.mark.torture) for name in SCENES],
)
def test_crashed_at_each_step(name: str, forks: Forks, quick: Path) -> None:
    scene = SCENES[name](quick / "scene", forks, 8 if "import" in name else 6)  # type: ignore[call-arg]
    clean, _ = clean_run(scene, forks, quick / "clean")
    assert name != "busy day" or (quick / "clean" / "features-2.npy").exists()  # it was compacted
    for step in range(500):
        index = scene.copy(quick / "index")
        status, _ = scene.run(forks, index, crash_at=step)
        if status == 0:
            break
        assert status == CRASHED
        finished(scene, forks, index, clean)
        shutil.rmtree(index)
    assert contents(index) == clean
    assert step > 10


@pytest.mark.torture
@pytest.mark.parametrize(("name", "part"), [("first run", 1.0), ("busy day", 0.3), ("rebuild", 0.3), ("import", 0.2)])
@pytest.mark.parametrize("kills", sizes("TORTURE_KILLS", 15, 100))
def test_killed_at_random_moments(name: str, part: float, kills: int, forks: Forks, quick: Path) -> None:
    chance = random.Random(name)
    scene = SCENES[name](quick / "scene", forks)  # type: ignore[call-arg]
    clean, seconds = clean_run(scene, forks, quick / "clean")
    held = []
    killed = 0
    for _ in range(round(kills * part)):
        index = scene.copy(quick / "index")
        while True:
            status, _ = scene.run(forks, index, kill_after=chance.uniform(0.0, seconds))
            if status == KILLED:
                break
            assert status == 0  # it was quicker than that
            shutil.rmtree(index)
            scene.copy(index)
        killed += 1
        held.append(answers_or_damaged(scene, index))
        finished(scene, forks, index, clean)
        shutil.rmtree(index)
    assert killed == round(kills * part)
    counts = sorted(Counter(held).items())  # type: ignore[type-var]
    print(f"{name}: {killed} kills of a run of {seconds:.2f} s; images held after it, and how often: {counts}")


@pytest.mark.slow
def test_killed_again_and_again(forks: Forks, quick: Path) -> None:
    """A run that is killed again and again loses nothing from one time to the next, and finishes in the end."""
    chance = random.Random(5)
    scene = first_run(quick / "scene", forks, 60)
    clean, seconds = clean_run(scene, forks, quick / "clean")
    index, held = quick / "index", [0]
    while len(held) <= 12 or held[-1] == 0:
        scene.run(forks, index, kill_after=chance.uniform(0.0, seconds / 2))
        held.append(answers(index))
        assert held[-1] >= held[-2]
        seconds *= 1.1  # until one gets as far as its first batch, however long that takes here
    finished(scene, forks, index, clean)


@pytest.mark.slow
def test_what_is_kept_beside_the_index_is_the_old_or_the_new(forks: Forks, quick: Path) -> None:
    """A crash while the classifier or the map is rewritten leaves the previous one intact."""
    scene = first_run(quick / "scene", forks, 12)
    index = quick / "index"
    assert scene.run(forks, index)[0] == 0

    def seeds() -> tuple[float, float]:
        opened = open_index(index)
        classifier, places = load_classifier(opened), MAP.load(index)
        opened.close()
        assert classifier is not None
        assert places is not None
        for seed, array in (
            (classifier.report.regularization, classifier.coefficients),
            (places.sheet.seed, places.arrays["places"]),
        ):
            assert set(array.ravel().tolist()) == {float(seed)}  # no mixture
        return float(classifier.report.regularization), float(places.sheet.seed)

    for operation in ("classify", "place"):
        assert forks.run(operation, index=index, seed=0) == 0
    for at, operation in enumerate(("classify", "place")):
        last = seeds()[at]
        for step in range(100):
            status = forks.run(operation, index=index, seed=step + 1, crash_at=step)
            now = seeds()[at]
            assert now in (last, float(step + 1))
            last = now
            assert answers(index) == 12
            if status == 0:
                break
            assert status == CRASHED
        assert step > 3
        assert now == step + 1
    assert not list(index.glob(".*.part"))
    assert [file.name for file in index.glob("classifier*")] == ["classifier.npz"]


@pytest.mark.torture
def test_a_structure_is_the_old_one_or_the_new(forks: Forks, quick: Path) -> None:
    """After a build ends at any step or moment, searches find the same images, and the next build succeeds."""
    features = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    np.save(quick / "features.npy", features)
    index, chance = quick / "index", random.Random(3)
    assert forks.run("import", file=quick / "features.npy", index=index) == 0

    def sheet() -> StructureSheet | None:
        with closing(LocalIndex.open(index)) as opened:
            hits = opened.search(features[:40], 5)
            assert [each[0].id for each in hits] == [*range(1, 41)]
            return opened.approximation()

    old, seconds = sheet(), 1.0
    assert old is None
    for step in range(100):
        status, seconds = forks.timed("build", index=index, crash_at=step)
        assert status in (CRASHED, 0)
        now = sheet()
        assert old is None or now is not None  # none is lost
        old = now
        if status == 0:
            break
    assert step > 6
    for _ in range(4):
        status, _ = forks.timed("build", index=index, kill_after=chance.uniform(0.0, seconds))
        assert status in (KILLED, 0)
        assert sheet() is not None
    assert forks.run("build", index=index) == 0
    kept = sheet()
    assert kept is not None
    assert {file.name for file in index.glob("*approximate*")} == {"approximate.json", kept.file}
