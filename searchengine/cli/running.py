"""``--precision`` and ``--runtime``: how a model is run. Order: defaults < environment < flags."""

from __future__ import annotations

import argparse
from typing import get_args

from searchengine.settings import Precision, Runtime, load_settings

PRECISIONS = get_args(Precision)
RUNTIMES = get_args(Runtime)

_NAMES = ("precision", "runtime")


def add_running(parser: argparse.ArgumentParser) -> None:
    """``--precision`` and ``--runtime``."""
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="numbers that the model computes with; auto: bfloat16 where the processor has it, else float32 (default: "
        "$SEARCHENGINE_PRECISION, or auto)",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="what runs the model; auto: OpenVINO, or Keras where there is a GPU (default: $SEARCHENGINE_RUNTIME, or "
        "auto)",
    )


def check_running(options: argparse.Namespace) -> None:
    """Fill in what the flags leave open: from the environment, the file, or the defaults. SettingsError."""
    flags = {name: getattr(options, name) for name in _NAMES if hasattr(options, name)}
    settings = load_settings(flags, only=flags)
    for name in flags:
        setattr(options, name, getattr(settings, name))
