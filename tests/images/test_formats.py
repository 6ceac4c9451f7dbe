"""The table of formats, its readers, and the table of docs/FORMATS.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchengine.images import sniff, why_not
from searchengine.images.formats import FORMATS
from searchengine.images.opening import OPENERS
from tests.images.seeds import seeds

_LINES = (Path(__file__).parents[2] / "docs/FORMATS.md").read_text().splitlines()
# The columns: names, which picture, upright by, sent to browsers.
_ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in _LINES if line.count("|") == 5][2:]


def test_each_format_has_a_reader_and_a_file_among_the_seeds() -> None:
    assert {*OPENERS} == {*FORMATS}
    assert {*map(sniff, seeds().values())} >= {*FORMATS} - {"JXL"}


@pytest.mark.parametrize("name", FORMATS)
def test_the_documentation_agrees_with_the_table(name: str) -> None:
    format_ = FORMATS[name]
    (row,) = [row for row in _ROWS if format_.title in row[0].replace(":", ",").split(", ")]
    assert row[3] == ("as JPEG" if format_.media_type is None else "as it is")
    assert ("the first frame with content" in row[1]) == format_.is_animated
    if name not in ("AVIF", "JXL"):  # their decoders report their own boxes as EXIF
        assert row[2].startswith("EXIF") == format_.is_turned_by_exif
    assert format_.title in why_not(b"something else")
