"""A folder of problematic files: usable ones are indexed, the others are reported, and the run continues."""

from __future__ import annotations

from pathlib import Path

from searchengine.engine import open_index
from searchengine.indexing import update_index
from searchengine.indexing.verify import verify
from searchengine.progress import Progress
from tests.fakes import FakeExtractor
from tests.images.hostile import make_hostile


class SkippedNames(Progress):
    """A progress that records the skipped files."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def skipped(self, path: str, reason: str) -> None:
        assert reason
        self.names.add(path)


def test_a_hostile_collection(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    expected = make_hostile(photos)
    usable = {path for path, outcome in expected.items() if outcome == "ok"}
    refused = {path for path, outcome in expected.items() if outcome == "skipped"}
    skipped_names = SkippedNames()
    done = update_index([photos], tmp_path / "index", extractor=FakeExtractor(), progress=skipped_names)
    assert done.images == len(usable)
    assert done.skipped == len(refused)
    assert skipped_names.names == {path.decode("utf-8", "replace") for path in refused}
    index = open_index(tmp_path / "index")
    assert set(index.paths) == {path.decode("utf-8", "replace") for path in usable}
    assert index.status().skipped == len(refused)
    for record in index.records(index.ids.tolist()):
        assert record.file is not None
        assert record.file.is_file()  # even if its name is not UTF-8
    index.close()
    assert verify(tmp_path / "index").sound
    again = update_index([photos], tmp_path / "index", extractor=FakeExtractor())
    assert (again.embedded, again.images, again.missing, again.skipped) == (0, len(usable), 0, len(refused))
