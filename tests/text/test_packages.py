"""Missing packages are named with the command that installs them; the encoder is installed by hash, without PyTorch."""

from __future__ import annotations

import hashlib
import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from searchengine.errors import MissingPackageError
from searchengine.text import encoder
from searchengine.text.encoder import check_packages, install_packages

ROOT = Path(__file__).parent.parent.parent


def test_the_wheel_is_the_locked_one() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    entry = lock[lock.index(encoder.ENCODER) :].partition("# via")[0]
    assert f"--hash=sha256:{encoder.ENCODER_SHA256}" in entry
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    requirements = [*project["project"]["optional-dependencies"]["text"], *project["dependency-groups"]["encoder"]]
    assert {*requirements} - {"sentencepiece>=0.2"} == {*encoder.MODULES.values()}  # only SigLIP needs this one


def test_nothing_is_missing_here() -> None:
    check_packages()


def test_what_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "MODULES", {"no_such_encoder": "no-such-encoder==1", "numpy": "numpy>=2"})
    with pytest.raises(MissingPackageError, match=r"needs no-such-encoder, which is not .*: searchengine words --ins"):
        check_packages()
    monkeypatch.setattr(encoder, "MODULES", {"no_such_encoder": "no-such-encoder==1", "nor_this": "nor-this>=2"})
    with pytest.raises(MissingPackageError, match=r"no-such-encoder and nor-this, which are not installed"):
        check_packages()


def fake_wheel(folder: Path) -> str:
    """Write a wheel with an unavailable dependency and return its hash."""
    file = folder / "no_such_encoder-1.0-py3-none-any.whl"
    about = "no_such_encoder-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr("no_such_encoder/__init__.py", "")
        wheel.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: no-such-encoder\nVersion: 1.0\nRequires-Dist: no-such-transformers\n",
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_encoder_is_installed_alone_and_only_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = fake_wheel(tmp_path)
    monkeypatch.setattr(encoder, "ENCODER", "no-such-encoder==1.0")
    monkeypatch.setattr(encoder, "MODULES", {"no_such_encoder": "no-such-encoder==1.0"})
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(tmp_path)), ("TARGET", str(tmp_path / "site"))):
        monkeypatch.setenv(f"PIP_{name}", value)
    messages: list[str] = []
    with pytest.raises(MissingPackageError, match=re.compile("Installing failed:.*(hash|HASH)", re.DOTALL)):
        install_packages(messages.append)  # with the hash of the real one
    assert not (tmp_path / "site").exists()
    monkeypatch.setattr(encoder, "ENCODER_SHA256", digest)
    install_packages(messages.append)
    assert (tmp_path / "site" / "no_such_encoder" / "__init__.py").exists()
    assert messages == ["installing no-such-encoder==1.0 (84 MB) ..."] * 2
