"""`find` and `decode` on the hostile collection; tests/indexing has the same for the indexer."""

from __future__ import annotations

import os
from pathlib import Path

from searchengine.errors import ImageError
from searchengine.images import Unreadable, decode, find
from tests.images.hostile import make_hostile


def test_each_file_has_the_expected_outcome(tmp_path: Path) -> None:
    expected = make_hostile(tmp_path)
    seen = dict.fromkeys(expected, "ignored")
    content = set()
    for file in find(tmp_path):
        seen[file.path] = "skipped"
        if isinstance(file, Unreadable):
            continue
        data = (tmp_path / os.fsdecode(file.path)).read_bytes()
        try:
            decode(data)
        except ImageError:
            continue
        seen[file.path] = "ok"
        assert data not in content
        content.add(data)
    assert seen == expected
    assert list(expected.values()).count("ok") > 30
    assert list(expected.values()).count("skipped") > 30
    assert max(file.stat().st_size for file in (tmp_path / "bad").iterdir()) < 10_000
