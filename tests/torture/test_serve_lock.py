"""An environment installed from requirements-serve.lock serves, searches by upload and classifies, without TensorFlow.

It needs a package registry, and takes about a minute.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.torture.clients import MULTIPART
from tests.torture.served import Watched
from tests.web.fake import draw_collection
from tests.web.test_gunicorn import ROOT, free_port, wait_until_up
from tests.web.test_uploads import form

pytestmark = pytest.mark.torture

PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python")


@pytest.fixture(scope="module")
def serve_env(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with requirements-serve.lock and the wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("serve")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    pip = [*PIP, python]  # this environment's own: another takes seconds to make
    probe = [*pip, "download", "--no-deps", "--dest", folder / "probe", "itsdangerous"]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        pytest.skip("no package registry answers, so no environment can be installed from requirements-serve.lock")
    lock = ROOT / "requirements-serve.lock"
    install = [*pip, "install", "--no-compile", "--no-deps"]
    subprocess.run([*install, "--require-hashes", "-r", lock], check=True, capture_output=True)
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(wheel, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([*install, *folder.glob("*.whl")], check=True, capture_output=True)
    return python.parent


@pytest.fixture(scope="module")
def environment(cache_dir_of_the_run: Path) -> dict[str, str]:
    """One cache of models for both environments, and nothing that would show this one to the other."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SEARCHENGINE"))}
    return {**kept, "SEARCHENGINE_CACHE_DIR": str(cache_dir_of_the_run)}


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """An index of sixteen images with a fitted classifier, made by the full environment."""
    folder = tmp_path_factory.mktemp("collection")
    images = draw_collection(folder / "images", 16)
    for verb in (["index", images, "--model", "efficientnet-lite0"], ["classify", "--fit"]):
        command = [sys.executable, "-m", "searchengine", *verb, "--index-dir", folder / "index"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder / "index"


def test_tensorflow_is_absent_and_the_environment_small(serve_env: Path) -> None:
    for module in ("tensorflow", "keras", "sklearn"):
        done = subprocess.run([serve_env / "python", "-c", f"import {module}"], capture_output=True, text=True)
        assert f"No module named '{module}'" in done.stderr
    files = [file for file in serve_env.parent.rglob("*") if file.is_file() and not file.is_symlink()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    print(f"installed: {megabytes:.0f} MB")
    assert megabytes < 700


def test_it_serves_and_searches_by_upload(serve_env: Path, index_dir: Path, environment: dict[str, str]) -> None:
    port = free_port()
    process = subprocess.Popen(
        [serve_env / "searchengine", "serve", "--index-dir", index_dir, "--port", str(port)],
        cwd=index_dir, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    server = Watched(process, port, index_dir.parent / "images", index_dir)
    try:
        wait_until_up(server)
        assert "16 pictures" in server.ask("GET", "/")[2].decode()
        file = next(server.images.rglob("*.png"))
        status, _, body = server.ask("POST", "/search", form(("image", file.read_bytes(), "mine.png")), MULTIPART)
        assert status == 200
        hits = json.loads(body)["hits"]
        assert len(hits) == 16
        assert hits[0]["path"].endswith(file.name)
        assert hits[0]["distance"] == pytest.approx(0, abs=1e-2)
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "Traceback" not in log


def test_it_classifies_with_a_fitted_classifier(serve_env: Path, index_dir: Path, environment: dict[str, str]) -> None:
    file = next((index_dir.parent / "images").rglob("*.png"))
    done = subprocess.run(
        [serve_env / "searchengine", "classify", file, "--index-dir", index_dir, "--json"],
        cwd=index_dir, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (image,) = json.loads(done.stdout)["images"]
    assert sum(label["probability"] for label in image["logistic"]) == pytest.approx(1.0)
    assert image["vote"]


def test_a_model_that_was_not_prepared_is_refused_with_the_command_that_prepares_it(
    serve_env: Path, index_dir: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    file = next((index_dir.parent / "images").rglob("*.png"))
    done = subprocess.run(
        [serve_env / "searchengine", "search", file, "--index-dir", index_dir],
        cwd=tmp_path, env={**environment, "SEARCHENGINE_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "searchengine prepare" in done.stderr
