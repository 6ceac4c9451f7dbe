"""A query as the command line spells it, and the pictures that it names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.cli.command import COUNT, Decorator, choice, flag, option, options, section
from searchengine.cli.options import metric_option
from searchengine.errors import ImageError, QueryError
from searchengine.index.filters import FIELDS, Cursor, Filter
from searchengine.query import DEFAULT_RULE, DISLIKED, LIKED, RULES, Box, Example, Query, Sign
from searchengine.spelling import parse_id, split_box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from searchengine.index.types import Hit


# -- a query as it is spelt -------------------------------------------------------------------------------------------


def query_options(default_k: int) -> Decorator[Any]:
    """The options of a query, but for its filter and those that name what it starts from."""
    return section(
        "Options",
        option("--text WORDS", "what the images are to show, in words"),
        option("--box L,T,W,H", "the part of the picture that counts, as fractions: 0.1,0.2,0.5,0.5"),
        options("--like IMAGE", "a liked image, an id or a file; 12@0.1,0.2,0.5,0.5 for a part of it"),
        options("--dislike IMAGE", "a disliked image, likewise"),
        option(
            "--rule",
            "Rocchio (1971) moves the query towards the mean of the liked images and away from that of the "
            "disliked ones; the exemplar SVM (Malisiewicz et al. 2011) separates them by a support vector machine "
            f"(default: {DEFAULT_RULE}, the better one in our measurements: docs/CLASSIFY.md)",
            choice(*RULES),
        ),
        option("-k K", f"how many (default: {default_k})", COUNT, default=default_k),
        option("--cursor CURSOR", "continue after an answer, by the cursor that --json gave"),
        flag("--distinct", "show one image only of those that are near-duplicates"),
        flag("--copies", "show files of the same content one by one; else one stands for all"),
        metric_option("that of the index"),
    )


def query_from(values: Mapping[str, Any]) -> Query:
    """The query that a command line spells, from the values of its options; QueryError, UnknownNameError."""
    box = Box.parse(values["box"]) if values["box"] else None
    starts: list[Any] = [values[name] for name in ("image", "id_") if values.get(name) is not None]
    if values.get("query"):
        starts.append(_source(values["query"]))
    if values.get("vector"):
        if box is not None:
            raise click.UsageError("A vector has no parts: leave --box out, or search by a picture.")
        starts.append(_vector(values["vector"]))
    if len(starts) > 1:
        raise click.UsageError("Name one query: an IMAGE, or --id, or --vector.")
    if box is not None and not starts:
        raise click.UsageError("--box is a part of what the search starts from: name that, too.")
    examples = [Example(source, box) for source in starts]
    signs: list[tuple[str, Sign]] = [("like", LIKED), ("dislike", DISLIKED)]
    for name, sign in signs:
        for text in values[name]:
            source, part = split_box(text)
            examples.append(Example(_source(source), part, sign))
    return Query(
        tuple(examples),
        text=values.get("text"),
        filter=Filter.from_fields({name: values[name] for name in FIELDS if values[name]}),
        metric=values["metric"],
        k=values["k"],
        cursor=None if values["cursor"] is None else Cursor.parse(values["cursor"]),
        distinct=values["distinct"],
        copies=values["copies"],
        rule=values["rule"],
    )


def _source(text: str) -> int | Path:
    image_id = parse_id(text)
    return Path(text) if image_id is None else image_id


def _vector(source: str) -> NDArray[np.float32]:
    from searchengine.exchange import read_vectors

    vectors = read_vectors(source)
    if vectors.shape[0] != 1:
        raise QueryError(f"{source} holds {vectors.shape[0]} vectors, and one can be searched by at a time.")
    return vectors


# -- what it names ----------------------------------------------------------------------------------------------------


def read_picture(file: Path, *, id_option: str) -> bytes:
    """The bytes of an image file; ImageError suggests the option that takes an id where the name is a number."""
    from searchengine.images import read_image

    name = os.fspath(file)
    try:
        return read_image(file)
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError) and name.isascii() and name.isdigit():
            raise ImageError(f"There is no file {name}. For image {name} of the index: {id_option} {name}") from error
        raise


def same_file(contents: bytes) -> Callable[[Hit], bool]:
    """Whether a hit is an image with just these bytes."""
    from searchengine.index.types import content_hash

    digest = content_hash(contents).hex()
    return lambda hit: hit.record.content_hash == digest
