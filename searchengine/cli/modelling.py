"""``searchengine models``: which models there are, and the layers of one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from searchengine.cli.options import add_json, print_json, print_result

_DESCRIPTION = """\
List the models that features can be taken from, each with its default layer, the numbers in a feature, the input size,
parameters, the size of its weights, and whether those are at hand. With a MODEL, a name or a .keras file, list its
layers with their shapes.
"""

_EPILOG = """\
examples:
  searchengine models
  searchengine models vgg19
  searchengine models mine.keras
"""


def add_verbs(verbs: Any) -> None:
    """Add ``models``."""
    parser = verbs.add_parser(
        "models",
        help="list the models, or the layers of one",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    parser.add_argument("model", metavar="MODEL", nargs="?", help="list the layers of this one")
    add_json(parser)


def act(options: argparse.Namespace) -> int:
    """List them."""
    if options.model is None:
        _list_models(as_json=options.json)
    else:
        _list_layers(options.model, as_json=options.json)
    return 0


def _list_models(*, as_json: bool) -> None:
    from searchengine.extractors.listing import models

    lines = models()
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    rows = [
        (
            line.name,
            line.layer or "-",
            f"{line.dimension}",
            f"{line.input_size[0]} x {line.input_size[1]}",
            f"{line.parameters / 1e6:.1f} M",
            f"{line.megabytes} MB",
            line.weights,
        )
        for line in lines
    ]
    print_result(_columns(("model", "layer", "numbers", "input", "parameters", "weights", "are"), rows))


def _list_layers(model: str, *, as_json: bool) -> None:
    from searchengine.extractors.listing import layers_of

    found = layers_of(model)
    if as_json:
        print_json(asdict(found))
        return
    size = "any size" if found.input_size is None else f"{found.input_size[0]} x {found.input_size[1]}"
    print_result(
        f"{found.title}: input {size}, {found.parameters / 1e6:.1f} M parameters, preprocessing {found.preprocessing}; "
        f"* is taken without --layer"
    )
    rows = [
        (
            ("* " if layer.name == found.default else "  ") + (layer.name or "(its output)"),
            layer.kind,
            " x ".join("?" if side is None else str(side) for side in layer.shape),
            _count(layer.numbers("none")),
            _count(layer.numbers("avg")) if layer.is_spatial else "",
        )
        for layer in found.layers
    ]
    print_result(_columns(("  layer", "kind", "shape", "numbers", "pooled"), rows))


def _count(numbers: int | None) -> str:
    return "?" if numbers is None else str(numbers)


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    )
