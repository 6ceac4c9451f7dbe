"""What the figures were measured on, in a few lines of Markdown; nothing that would tell one machine from its like.

python benchmarks/machine.py
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

from measuring import load_average

_TELLING = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "bfloat16 (AVX-512)",
    "amx_bf16": "bfloat16 (AMX)",
    "bf16": "bfloat16",
}
_LIBRARIES = ("numpy", "openvino", "keras", "tensorflow", "pillow", "flask", "gunicorn")


def describe() -> str:
    """Processor, memory, system and libraries, and how busy the machine is right now."""
    name, flags = _processor()
    can = ", ".join(said for flag, said in _TELLING.items() if flag in flags) or "unknown"
    lacks = "" if any("bf16" in flag for flag in flags) else "; no bfloat16, so everything ran in float32"
    libraries = ", ".join(f"{library} {version(library)}" for library in _LIBRARIES)
    return (
        f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, "
        f"{can}{lacks}; {_memory_gib():.0f} GiB of memory; {platform.system()}, Python {platform.python_version()}; "
        f"{libraries}. Load average as this began: {load_average()}.\n"
    )


def _processor() -> tuple[str, frozenset[str]]:
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = frozenset(value.split())
    return name, flags


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


if __name__ == "__main__":
    print(describe())
