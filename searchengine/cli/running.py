"""``--precision`` and ``--runtime``: how a model is run. Order: defaults < environment < flags."""

from __future__ import annotations

import argparse
import os

from searchengine.errors import UnknownNameError

PRECISIONS = ("auto", "float32", "bfloat16")  # spelt out, so that --help need not load NumPy
RUNTIMES = ("auto", "openvino", "keras")

_NAMES = {"precision": PRECISIONS, "runtime": RUNTIMES}


def add_running(parser: argparse.ArgumentParser) -> None:
    """``--precision`` and ``--runtime``."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=_set("precision"),
        help="numbers that the model computes with; auto: bfloat16 where the processor has it, else float32 (default: "
        "$SEARCHENGINE_PRECISION, or auto)",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default=_set("runtime"),
        help="what runs the model; auto: OpenVINO, or Keras where there is a GPU (default: $SEARCHENGINE_RUNTIME, or "
        "auto)",
    )


def check_running(options: argparse.Namespace) -> None:
    """Refuse what the environment says wrongly where it counts; argparse has looked at the flags. UnknownNameError."""
    for name, known in _NAMES.items():
        used = getattr(options, name, "auto")
        if used not in known:
            raise UnknownNameError(f"SEARCHENGINE_{name.upper()} must be one of {', '.join(known)}, not {used!r}.")


def _set(name: str) -> str:
    return os.environ.get(f"SEARCHENGINE_{name.upper()}") or "auto"
