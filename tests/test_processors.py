"""The processors of the machine and of the container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from searchengine import processors


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/", {"cpu.max": "max 100000"}, float("inf")),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000"}, 1.0),
        ("0::/not/mounted/here", {"cpu.max": "50000 100000"}, 0.5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x",
            {"cpu/x/cpu.cfs_quota_us": "400000", "cpu/x/cpu.cfs_period_us": "100000"},
            4.0,
        ),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf")),
        ("3:cpu:/docker/1234", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("0::/../up", {"cpu.max": "nonsense"}, float("inf")),
        ("", {}, float("inf")),
    ],
)
def test_the_quota_of_a_container(tmp_path: Path, groups: str, files: dict[str, str], quota: float) -> None:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": t for name, t in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert processors._cpu_quota(tmp_path) == quota


def test_the_quota_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_affinity", lambda: 64)
    monkeypatch.setattr(processors, "processors", processors.processors.__wrapped__)  # type: ignore[attr-defined]  (uncached)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    monkeypatch.setattr(processors, "_cpu_quota", lambda: 1.5)
    assert (processors.processors(), processors.thread_limit()) == (2, 2)
    processors.limit_library_threads()
    assert (os.environ["OMP_NUM_THREADS"], os.environ["OPENBLAS_NUM_THREADS"]) == ("2", "7")
    monkeypatch.setattr(processors, "_cpu_quota", lambda: float("inf"))
    assert (processors.processors(), processors.thread_limit()) == (64, None)
    monkeypatch.setattr(processors, "_share", 3)
    assert (processors.processors(), processors.thread_limit()) == (3, 3)


def test_no_other_code_counts_processors() -> None:
    package = Path(processors.__file__).parent
    counting = [file.name for file in package.rglob("*.py") if "cpu_count" in file.read_text()]
    assert counting == ["processors.py"]
