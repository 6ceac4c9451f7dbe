"""Features for Windows also work if the modules and functions that only POSIX has are hidden.

A simulation: paths, locks and files are those of the system that runs the test.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import write_pictures

_HIDDEN = """
import os, select, signal, sys, warnings
for module in "fcntl resource pwd grp termios tty pty syslog".split():
    sys.modules[module] = None
import tempfile, subprocess, socket, threading  # before the functions go that they use
for module, names in {
    os: "O_CLOEXEC O_DIRECTORY O_NONBLOCK O_NOCTTY pread pwrite fork forkpty register_at_fork sched_getaffinity "
        "statvfs getuid geteuid getgid killpg mkfifo nice",
    select: "poll epoll",
    signal: "SIGKILL SIGXCPU SIGHUP SIGALRM pthread_sigmask",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
warnings.simplefilter("ignore")  # filelock says that it has soft locks only
"""
# All modules but the one that runs, and those for gunicorn, which is for POSIX alone.
_IMPORTS = """
import importlib, pkgutil, searchengine
for module in pkgutil.walk_packages(searchengine.__path__, "searchengine."):
    if module.name != "searchengine.__main__" and not module.name.startswith("searchengine.web.gunicorn_"):
        importlib.import_module(module.name)
"""
_VERBS = """
import json
from pathlib import Path
from searchengine import open_index, update_index
from searchengine.cli import main
from searchengine.errors import IndexLockedError
from searchengine.files import is_locked
from searchengine.index.storage import storage_of
from tests.fakes import FakeExtractor
photos, index = Path(sys.argv[1]), Path(sys.argv[2])
update_index(photos, index, extractor=FakeExtractor())
(photos / "a.png").unlink()
done = update_index(photos, index, extractor=FakeExtractor(), check_content=True)
with storage_of(index).writing("noon"):
    held = is_locked(index / "writer.lock")
    try:
        update_index(photos, index, extractor=FakeExtractor())
    except IndexLockedError as error:
        refusal = str(error)
paths = open_index(index).paths
codes = [main([verb, "--index-dir", str(index)]) for verb in ("info", "verify")]
codes.append(main(["search", "--index-dir", str(index), "--id", "2"]))
codes.append(main(["export", "--index-dir", str(index), "--out", str(index / "out.npz")]))
print(json.dumps([done.removed, held, refusal, is_locked(index / "writer.lock"), paths, codes]))
"""


def run(code: str, *arguments: Path) -> Any:
    return subprocess.run(
        [sys.executable, "-c", _HIDDEN + code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_every_module_can_be_imported() -> None:
    done = run(_IMPORTS)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_index_is_made_changed_locked_read_checked_and_searched(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", **{f"n{i}": i for i in range(8)}, a=99)
    (tmp_path / "photos" / "b.gif").write_bytes(b"GIF89a broken")  # not ordinary: otherwise decoded by a worker
    done = run(_VERBS, tmp_path / "photos", tmp_path / "index")
    assert done.returncode == 0, done.stderr
    removed, held, refusal, held_later, paths, codes = json.loads(done.stdout.splitlines()[-1])
    assert (removed, held, held_later) == (1, True, False)
    assert "Another run is writing to" in refusal
    assert "since noon" in refusal
    assert paths == [f"n{i}.png" for i in range(8)]
    assert codes == [0, 0, 0, 0]
