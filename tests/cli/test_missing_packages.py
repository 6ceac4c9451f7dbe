"""A Python without the required packages: a message with the way to get them, and no traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from searchengine.errors import missing_package

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    "command", [["offline_index.py", "photos"], ["app.py"], ["-m", "searchengine", "info"], ["-m", "searchengine"]]
)
def test_the_system_python_explains_how_to_activate_the_environment(command: list[str]) -> None:
    # -S: without site-packages
    ended = subprocess.run([sys.executable, "-S", "-E", *command], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    (sentence,) = ended.stderr.splitlines()
    assert f"is missing from this Python ({sys.executable})." in sentence


def test_the_advice_fits_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = ModuleNotFoundError("No module named 'numpy.linalg'", name="numpy.linalg")
    monkeypatch.setattr("searchengine.errors.__file__", str(tmp_path / "searchengine" / "errors.py"))
    assert missing_package(missing).endswith("Install it: pip install numpy")
    (tmp_path / "Makefile").touch()
    activate = tmp_path / ".venv" / "bin" / "activate"
    assert missing_package(missing).endswith(f"make install && source {activate}")
    activate.parent.mkdir(parents=True)
    activate.touch()
    assert missing_package(missing).endswith(f"Activate the environment that has it: source {activate}")
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    assert missing_package(missing).endswith("Install it: make install")


def test_a_missing_module_of_the_package_is_raised() -> None:
    with pytest.raises(ModuleNotFoundError):
        missing_package(ModuleNotFoundError("No module named 'searchengine.nowhere'", name="searchengine.nowhere"))
