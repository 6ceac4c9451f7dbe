"""Contact sheets in a folder: which are drawn, which are kept, and which files are never touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from searchengine.analyse.sheets import Entry, Sheet, SheetFolder, draw_sheet, tiles
from searchengine.index.types import ImageRecord
from searchengine.progress import QUIET
from tests.fakes import picture

NONE = frozenset[int]()


def record(id_: int, file: Path | None = None, colour: str | None = None) -> ImageRecord:
    return ImageRecord(id_, f"{id_}.png", file, (), None, None, colour, None, None, str(id_))


def test_a_sheet_has_its_pictures_in_rows_and_names_those_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture((250, 0, 0), (64, 32)))
    entries = [Entry(record(1, tmp_path / "red.png"), ("query", "a name " * 20), framed=True)]
    entries += [Entry(record(2, tmp_path / "none.png"), ("1 · 0.5", "none.png")), Entry(record(3))]
    sheet, missing = draw_sheet(Sheet("1.jpg", entries, 2, "Three pictures"))
    assert missing == {2, 3}
    assert sheet.size == (12 + 2 * 172, 12 + 24 + 2 * (172 + 32))
    assert np.abs(np.subtract(sheet.getpixel((12 + 80, 36 + 80)), (250, 0, 0))).max() < 12
    sheet, missing = draw_sheet(Sheet("1.jpg", entries[:1], 6))
    assert (sheet.size, missing) == ((12 + 172, 12 + 172 + 32), NONE)


def test_tiles_come_in_order_and_an_unreadable_one_is_its_colour(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture((250, 0, 0), (64, 32)))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    records = [record(2, tmp_path / "broken.png", "#0000ff"), record(1, tmp_path / "red.png"), record(3)]
    colours = [tile.convert("RGB").getpixel((3, 3)) for tile in tiles(records, 16)]
    assert [tile.size for tile in tiles(records, 16)] == [(16, 16), (16, 8), (16, 16)]
    assert colours[0] == (0, 0, 255)
    assert np.abs(np.subtract(colours[1], (250, 0, 0))).max() < 12


def test_a_folder_knows_what_its_sheets_show(tmp_path: Path) -> None:
    red, out = tmp_path / "red.png", tmp_path / "out"
    (tmp_path / "blue.png").write_bytes(picture((0, 0, 250), (64, 32)))
    first = Sheet("1.jpg", [Entry(record(7, red))], 6)
    second = Sheet("2.jpg", [Entry(record(8, tmp_path / "blue.png"))], 6)

    def draw(*sheets: Sheet) -> tuple[int, frozenset[int]]:
        return SheetFolder(out).draw(sheets, QUIET)

    assert draw(first, second) == (2, {7})
    assert draw(first, second) == (0, {7})
    assert draw(replace(first, title="another"), second) == (1, {7})
    red.write_bytes(picture((250, 0, 0), (64, 32)))
    assert draw(replace(first, title="another"), second) == (1, NONE)  # picture 7 exists now
    red.unlink()
    assert draw(replace(first, title="another")) == (0, {7})  # a sheet that shows it is not drawn over
    (out / "2.jpg").write_bytes(b"cut short")
    assert draw(second) == (1, NONE)
    (out / "2.jpg").write_bytes(b"cut short")
    assert SheetFolder(out).remove_others(()) == 1  # 2.jpg is another file by now
    assert not (out / "1.jpg").exists()
    assert (out / "2.jpg").exists()


def test_a_sheet_is_drawn_again_when_a_damaged_picture_is_whole_again(tmp_path: Path) -> None:
    red = tmp_path / "red.png"
    red.write_bytes(b"damaged")
    sheet = Sheet("1.jpg", [Entry(record(7, red))], 6)
    assert SheetFolder(tmp_path / "out").draw([sheet], QUIET) == (1, {7})
    red.write_bytes(picture((250, 0, 0), (64, 32)))
    assert SheetFolder(tmp_path / "out").draw([sheet], QUIET) == (1, NONE)
    assert SheetFolder(tmp_path / "out").draw([sheet], QUIET) == (0, NONE)


@pytest.mark.parametrize("text", ["", "[]", '{"1.jpg": {"key": 1}}', '{"1.jpg"'])
def test_every_sheet_is_drawn_again_if_the_list_is_damaged(text: str, tmp_path: Path) -> None:
    (tmp_path / "sheets.json").write_text(text)
    (tmp_path / "1.jpg").write_bytes(b"a sheet")
    assert SheetFolder(tmp_path).remove_others(()) == 0
    (tmp_path / "sheets.json").write_text(text)
    assert SheetFolder(tmp_path).draw([Sheet("1.jpg", [Entry(record(1))], 6)], QUIET) == (1, {1})


def test_nothing_outside_the_folder_is_deleted(tmp_path: Path) -> None:
    outside = tmp_path / "mine.jpg"
    outside.write_bytes(b"mine")
    planted = {"../mine.jpg": {"key": "", "bytes": 4}, str(outside): {"key": "", "bytes": 4}}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sheets.json").write_text(json.dumps(planted))
    assert SheetFolder(tmp_path / "out").remove_others(()) == 0
    assert outside.exists()
