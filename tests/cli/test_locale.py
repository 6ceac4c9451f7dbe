"""Names that the locale cannot encode: files and labels are found nevertheless."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from searchengine.files import path_from_text, path_to_text
from tests.fakes import picture

_RUN = """
import os, sys
from searchengine import update_index
from searchengine.cli import main
from searchengine.progress import Bar
from tests.fakes import FakeExtractor
photos, index, labels = sys.argv[1:]
for choice in (labels, None):
    with Bar() as bar:
        update_index(photos, index, labels=choice, extractor=FakeExtractor(), progress=bar)
for verb in (["info", "--skipped"], ["search", "--id", "1"], ["search", "--id", "1", "--json"], ["verify"]):
    assert main([*verb, "--index-dir", index]) == 0, verb
"""
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ASCII_OUTPUT = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii"}
UTF_8 = {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8"}


@pytest.mark.parametrize(
    ("environment", "labels"),
    [(C_LOCALE, "Schöne.csv".encode()), (C_LOCALE, b"sch\xf6ne.csv"), (ASCII_OUTPUT, b"a.csv"), (UTF_8, b"\xf6.csv")],
)
def test_names_that_the_locale_cannot_encode(tmp_path: Path, environment: dict[str, str], labels: bytes) -> None:
    folder = os.fsencode(tmp_path) + b"/"
    photos, table, index = folder + "Bücher".encode(), folder + labels, folder + "índice".encode()
    files = {
        photos + "/ü日.png".encode(): picture((1, 2, 3)),
        photos + b"/latin-\xe9.png": picture((1, 2, 4)),
        photos + "/kaputt-ß.jpg".encode(): b"no image",
        table: "path,label\nü日.png,日本\n".encode(),
    }
    Path(os.fsdecode(photos)).mkdir()
    for name, data in files.items():
        Path(os.fsdecode(name)).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, photos, index, table],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert ("[日本]" if environment is UTF_8 else "[\\u65e5\\u672c]") in done.stdout.decode()
    if environment is C_LOCALE:
        assert "índice: ".encode() in done.stdout  # a name from the command line goes out as it came in


@pytest.mark.parametrize("name", [b"plain.csv", "Schöne.csv".encode(), b"sch\xf6ne 100%.csv"])
def test_paths_as_text(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    text = path_to_text(path)
    text.encode("utf-8")  # can be stored
    assert path_from_text(text) == path
    assert path_from_text(str(path)) == path
