"""Flags that several verbs share, and what they mean. Order: defaults < environment < flags."""

from __future__ import annotations

import argparse
from pathlib import Path

from searchengine.cli.output import print_json, print_note, print_result
from searchengine.cli.running import add_running
from searchengine.index.metrics import METRICS
from searchengine.settings import load_settings

__all__ = [
    "add_images_dir",
    "add_index_dir",
    "add_json",
    "add_metric",
    "add_running",
    "print_json",
    "print_note",
    "print_result",
    "whole_number",
]


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
        default=load_settings(only=("index_dir",)).index_dir[0],
        help="the index folder (default: $SEARCHENGINE_INDEX_DIR, the first where it names several, or ./index)",
    )


def add_images_dir(parser: argparse.ArgumentParser) -> None:
    """``--images-dir``."""
    parser.add_argument(
        "--images-dir",
        metavar="DIR",
        type=Path,
        default=load_settings(only=("images_dir",)).images_dir,
        help="where the photos are now, if they have moved since (default: $SEARCHENGINE_IMAGES_DIR)",
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
