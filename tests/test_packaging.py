"""The wheel is complete: installed without a checkout, it indexes and serves pages with styles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.fakes import picture
from tests.web.test_gunicorn import free_port

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment with the wheel, and with the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    home = folder / "env"
    venv.create(home, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home)]  # this environment's own: another takes seconds to make
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True, capture_output=True)
    # A .pth file in a folder that was added by a .pth file is not read, so our own editable install is not seen.
    (site,) = (home / "lib").glob("python*/site-packages")
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return home / "bin"


def test_the_wheel_serves_pages_with_their_styles(installed: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        (photos / f"{i}.png").write_bytes(picture((i * 80, 10, 10), (64, 48)))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    where = subprocess.run(
        [installed / "python", "-c", "import searchengine; print(searchengine.__file__)"],
        cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(installed.parent))
    done = subprocess.run(
        [installed / "searchengine", "index", "photos", "--model", "efficientnet-lite0", "--json"],
        cwd=tmp_path, env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["images"] == 3
    port = free_port()
    server = subprocess.Popen(
        [installed / "searchengine", "serve", "--port", str(port)],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        home = f"http://127.0.0.1:{port}/"
        page = get(home, server)
        assert "3 images" in re.sub(r"<[^>]+>", "", page) or "3 pictures" in re.sub(r"<[^>]+>", "", page)
        styles = re.findall(r'<link rel="stylesheet" href="(/[^"]+)"', page)
        assert styles
        for style in styles:
            assert "{" in get(home.rstrip("/") + style, server)
        scripts = re.findall(r'<script type="module" src="(/[^"]+)"', page)
        assert scripts
        for script in scripts:
            assert get(home.rstrip("/") + script, server)
    finally:
        server.terminate()
        server.communicate(timeout=60)


def get(address: str, server: subprocess.Popen[str]) -> str:
    """Send a GET request, waiting at most a minute for the server to start."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(address, timeout=20) as answer:
                return str(answer.read().decode())
        except ConnectionError:
            pass
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
        assert server.poll() is None, server.stderr.read() if server.stderr else ""
        time.sleep(0.2)
    raise AssertionError("the server did not come up")
