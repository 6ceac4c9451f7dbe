"""Flags that several verbs share, and what they mean. Order: defaults < environment < flags."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from searchengine.index.folders import Folders
from searchengine.index.metrics import METRICS


def whole_number(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def add_index_dir(parser: argparse.ArgumentParser) -> None:
    """``--index-dir``."""
    parser.add_argument(
        "--index-dir",
        metavar="DIR",
        type=Path,
        default=Folders.of_environment()[0],
        help="the index folder (default: $SEARCHENGINE_INDEX_DIR, the first where it names several, or ./index)",
    )


def add_images_dir(parser: argparse.ArgumentParser) -> None:
    """``--images-dir``."""
    given = os.environ.get("SEARCHENGINE_IMAGES_DIR")
    parser.add_argument(
        "--images-dir",
        metavar="DIR",
        type=Path,
        default=Path(given) if given else None,
        help="where the photos are now, if they have moved since (default: $SEARCHENGINE_IMAGES_DIR)",
    )


def add_running(parser: argparse.ArgumentParser) -> None:
    """``--precision`` and ``--runtime``."""
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="numbers that the model computes with; auto: bfloat16 where the processor has it, else float32",
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "openvino", "keras"),
        default="auto",
        help="what runs the model; auto: OpenVINO, or Keras where there is a GPU",
    )


def add_metric(parser: argparse.ArgumentParser, default: str) -> None:
    """``--metric``; ``default`` says what holds without it."""
    parser.add_argument(
        "--metric",
        choices=METRICS,
        help=f"what a distance is measured in (default: {default}). Features of length 1 (--normalize l2) are ranked "
        "alike by euclidean, cosine and inner-product; raw ones are not. A distance is smaller-is-better: for "
        "inner-product, minus the product",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")


def print_result(text: str) -> None:
    """A result goes to stdout; all else goes to stderr."""
    print(text)  # noqa: T201


def print_json(value: object) -> None:
    """A result as JSON, on stdout."""
    print_result(json.dumps(value, ensure_ascii=False, indent=None if not sys.stdout.isatty() else 2))


def print_note(text: str) -> None:
    """What a person should know, on stderr."""
    print(text, file=sys.stderr)  # noqa: T201
