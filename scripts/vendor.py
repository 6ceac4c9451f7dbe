"""Copy unmodified files of published npm packages to static/vendor/: `python scripts/vendor.py`; needs npm.

``PACKAGES`` lists the packages with their files and versions. static/vendor/vendor.json describes each file, and a test
compares the files with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "static" / "vendor"

# name -> version, and the files of the package that are served, beside its licence
PACKAGES = {
    "photoswipe": ("5.4.4", ("dist/photoswipe.esm.min.js", "dist/photoswipe.css")),
}


def main() -> None:
    shutil.rmtree(VENDOR, ignore_errors=True)
    described = {name: fetch(name, version, files) for name, (version, files) in PACKAGES.items()}
    (VENDOR / "vendor.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def fetch(name: str, version: str, files: tuple[str, ...]) -> dict[str, object]:
    """Copy the files of one package to a folder of its name, and return their entry for vendor.json."""
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True, capture_output=True, text=True
        )
        with tarfile.open(Path(folder) / packed.stdout.strip()) as archive:
            archive.extractall(folder, filter="data")
        package = Path(folder) / "package"
        licence = json.loads((package / "package.json").read_text(encoding="utf-8"))["license"]
        (VENDOR / name).mkdir(parents=True)
        hashes = {}
        for file in (*files, "LICENSE"):
            copy = VENDOR / name / Path(file).name
            shutil.copyfile(package / file, copy)
            hashes[copy.name] = hashlib.sha256(copy.read_bytes()).hexdigest()
    return {"version": version, "licence": licence, "sha256": hashes}


if __name__ == "__main__":
    main()
