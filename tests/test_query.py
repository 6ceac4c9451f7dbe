"""A query means the same in an address, on the command line and in JSON, and malformed queries are refused."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchengine.cli.search import query_from, search
from searchengine.errors import QueryError, SearchEngineError
from searchengine.index.filters import Cursor, Filter
from searchengine.index.metrics import METRICS
from searchengine.query import DISLIKED, LIKED, RULES, START, WHOLE, Box, Example, Query
from searchengine.spelling import (
    parse_id,
    query_from_json,
    query_from_url,
    query_to_url,
    split_box,
)

ids = st.integers(0, 2**63 - 1)
fractions = st.floats(0, 0.5, allow_nan=False)
boxes = st.none() | st.builds(Box, fractions, fractions, st.floats(0.01, 0.5), st.floats(0.01, 0.5))
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(str.strip).filter(bool)
names = st.text("abc01.@,-_ é", min_size=1).filter(lambda name: not name.startswith("-") or name == "-")
filters = st.builds(
    Filter,
    labels=st.lists(words, max_size=2, unique=True).map(tuple),
    formats=st.sets(st.sampled_from(["JPEG", "PNG"])).map(sorted).map(tuple),
    after=st.none() | st.dates(),
    min_width=st.none() | st.integers(1, 10**6),
    ids=st.none() | st.lists(ids, min_size=1, max_size=3).map(tuple),
)
cursors = st.builds(
    Cursor, st.floats(allow_nan=False, allow_infinity=False), ids, st.integers(0, 10**9), st.none() | ids
)


def queries(sources: st.SearchStrategy[Any]) -> st.SearchStrategy[Query]:
    """Queries whose examples are drawn from ``sources``, each picture once."""

    def build(
        pictures: list[Any], parts: list[Box | None], signs: list[Any], start: bool, rest: dict[str, Any]
    ) -> Query:
        examples = [Example(*each) for each in zip(pictures, parts, signs, strict=False)]
        if start and examples:
            examples[0] = Example(examples[0].source, examples[0].box, START)
        return Query(tuple(examples), **rest)

    rest = st.fixed_dictionaries(
        {
            "text": st.none() | words,
            "filter": filters,
            "metric": st.none() | st.sampled_from(METRICS),
            "k": st.integers(1, 500),
            "cursor": st.none() | cursors,
            "distinct": st.booleans(),
            "copies": st.booleans(),
            "rule": st.none() | st.sampled_from(RULES),
        }
    )
    return st.builds(
        build,
        st.lists(sources, max_size=4, unique=True),
        st.lists(boxes, min_size=4, max_size=4),
        st.lists(st.sampled_from([LIKED, DISLIKED]), min_size=4, max_size=4),
        st.booleans(),
        rest,
    )


@settings(max_examples=60)
@given(queries(ids), st.sampled_from([20, 30]))
def test_an_address_is_read_back(query: Query, default_k: int) -> None:
    assert query_from_url(query_to_url(query, default_k=default_k), default_k=default_k) == query


@settings(max_examples=60)
@given(queries(ids | st.binary(max_size=20)))
def test_json_is_read_back(query: Query) -> None:
    assert query_from_json(json.loads(json.dumps(json_of(query)))) == query


def json_of(query: Query) -> dict[str, Any]:
    """Write a query as a JSON object."""
    examples = []
    for example in query.examples:
        source = (
            {"id": example.id}
            if isinstance(example.id, int)
            else {"image": b64encode(cast("bytes", example.source)).decode()}
        )
        examples.append({**source, "sign": example.sign, "box": example.box and list(example.box.part)})
    same = {name: getattr(query, name) for name in ("text", "metric", "k", "distinct", "copies", "rule")}
    return {
        **same,
        "examples": examples,
        "filter": query.filter.to_fields(),
        "cursor": query.cursor and str(query.cursor),
    }


@settings(max_examples=60)
@given(queries(ids | names.map(Path)))
def test_a_command_line_is_read_back(query: Query) -> None:
    assert parsed(arguments_of(query)) == query


def arguments_of(query: Query) -> list[str]:
    """Write a query as arguments of ``search``."""
    arguments = ["-k", str(query.k)]
    given = {"metric": query.metric, "rule": query.rule, "text": query.text, "cursor": query.cursor}
    arguments += [f"--{name}={value}" for name, value in given.items() if value is not None]
    arguments += [f"--{name}" for name in ("distinct", "copies") if getattr(query, name)]
    for name, texts in query.filter.to_fields().items():
        arguments += [f"--{name.replace('_', '-')}={text}" for text in texts]
    for examples, name in ((query.liked, "like"), (query.disliked, "dislike")):
        arguments += [f"--{name}={with_box(example)}" for example in examples]
    if query.start is not None:
        arguments += [] if query.start.box is None else [f"--box={query.start.box}"]
        arguments += ["--", written(query.start)] if query.start.id is None else [f"--id={query.start.id}"]
    return arguments


def written(example: Example) -> str:
    """Write an id or a path; a file whose name is a number becomes ./42."""
    name = str(example.source)
    return name if example.id is not None or parse_id(name) is None else f"./{name}"


def with_box(example: Example) -> str:
    """Write a liked or disliked picture; one with an @ in its name, which may look like a box, needs one."""
    name = written(example)
    box = example.box or (WHOLE if "@" in name else None)
    return name if box is None else f"{name}@{box}"


def parsed(arguments: list[str]) -> Query:
    return query_from(search.make_context("search", arguments).params)


def test_one_query_in_three_spellings() -> None:
    query = Query(
        (Example(7, Box(0.1, 0.2, 0.5, 0.5)), Example(12, sign=LIKED), Example(40, Box(0, 0, 0.5, 1), DISLIKED)),
        filter=Filter(labels=("dog", "cat")),
        metric="cosine",
        k=5,
        distinct=True,
        rule="rocchio",
    )
    assert (
        query_from_url(
            {
                "id": ["7"],
                "box": [".1,.2,.5,.5"],
                "like": ["12"],
                "dislike": ["40@0,0,.5,1"],
                "label": ["dog", "cat"],
                "metric": ["cosine"],
                "k": ["5"],
                "distinct": ["1"],
                "rule": ["rocchio"],
            }
        )
        == query
    )
    line = "--id 7 --box .1,.2,.5,.5 --like 12 --dislike 40@0,0,.5,1 --label dog --label cat --metric cosine -k 5"
    assert parsed([*line.split(), "--distinct", "--rule", "rocchio"]) == query
    assert (
        query_from_json(
            {
                "examples": [
                    {"id": 7, "box": [0.1, 0.2, 0.5, 0.5]},
                    {"id": 12, "sign": 1},
                    {"id": 40, "box": [0, 0, 0.5, 1], "sign": -1},
                ],
                "filter": {"label": ["dog", "cat"]},
                "metric": "cosine",
                "k": 5,
                "distinct": True,
                "rule": "rocchio",
            }
        )
        == query
    )


def test_queries_are_normalised() -> None:
    assert Query.of(7, liked=[7, 3, 3]).liked == (Example(3, sign=LIKED),)  # a start is liked anyway
    assert Query.of(7, rule="rocchio").rule is None
    assert Example(7, WHOLE).box is None
    assert Query.of("a.jpg").start == Example(Path("a.jpg"))
    assert Query.of(np.int64(7)).start == Example(7)
    for name in ("a@b.jpg", "a@0,0,1.jpg"):
        assert split_box(name) == (name, None)
    with pytest.raises(QueryError, match="at least 1"):
        Query.of(1, k=0)


BAD_BOXES = ["", "1", "0,0,1", "0,0,1,1,1", "a,b,c,d", "0,0,nan,1", "0,0,inf,1", "0,0,0.001,1", "0,0,1,0", "-0.1,0,1,1",
             "0.6,0,0.5,1", "0,0.6,1,0.5", "0,0,-1,-1", "1e400,0,1,1"]  # fmt: skip


@pytest.mark.parametrize("text", BAD_BOXES)
def test_boxes_that_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match="box"):
        Box.parse(text)


@pytest.mark.parametrize("address", ["http://a.b/c.jpg", "HTTPS://a.b/c.jpg", "ftp://a/b.jpg"])
def test_addresses_are_not_fetched(address: str) -> None:
    for ask in (
        lambda: Query.of(address),
        lambda: query_from_url({"id": [address]}),
        lambda: query_from_url({"q": [address]}),
        lambda: query_from_json({"examples": [{"image": address}]}),
        lambda: parsed([address]),
        lambda: parsed(["--like", address]),
    ):
        with pytest.raises(QueryError, match=r"not fetched.*search by its file\."):
            ask()


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"example": []},
        {"examples": {}},
        {"examples": [7]},
        {"examples": [{}]},
        {"examples": [{"id": 7, "image": ""}]},
        {"examples": [{"id": True}]},
        {"examples": [{"id": "7"}]},
        {"examples": [{"id": -1}]},
        {"examples": [{"path": "/etc/passwd"}]},
        {"examples": [{"image": "/etc/passwd"}]},
        {"examples": [{"image": 7}]},
        {"examples": [{"id": 7, "sign": 2}]},
        {"examples": [{"id": 7, "box": "0,0,1,1"}]},
        {"examples": [{"id": 7, "box": [0, 0, 2, 1]}]},
        {"examples": [{"id": 7, "box": [0, 0, 10**400, 1]}]},
        {"examples": [{"id": 7}, {"id": 8}]},
        {"examples": [{"id": 7, "sign": 1}, {"id": 7, "sign": -1}]},
        {"examples": [{"id": id_, "sign": 1} for id_ in range(101)]},
        {"k": "5"},
        {"k": True},
        {"k": 0},
        {"k": 501},
        {"metric": "hamming"},
        {"metric": 7},
        {"metric": "\udfff"},
        {"text": "a\ud800"},
        {"rule": "magic", "examples": [{"id": 7, "sign": 1}]},
        {"rule": "\ud800", "examples": [{"id": 7, "sign": 1}]},
        {"cursor": "x"},
        {"distinct": 1},
        {"filter": {"colour": "red"}},
    ],
)
def test_json_that_is_refused(values: object) -> None:
    with pytest.raises(SearchEngineError, match=r"\.$"):
        query_from_json(values)


def test_the_number_of_decoded_pictures_is_limited() -> None:
    likes = [{"id": number, "box": [0, 0, 0.5, 0.5], "sign": 1} for number in range(21)]
    assert (
        len(query_from_json({"examples": likes[:20] + [{"id": number, "sign": 1} for number in range(50, 99)]}).liked)
        == 69
    )
    with pytest.raises(QueryError, match="At most 20"):
        query_from_json({"examples": likes})
    with pytest.raises(QueryError, match="At most 20"):
        query_from_url({"like": [f"{number}@0,0,0.5,0.5" for number in range(20)]}, upload=b"picture")


@pytest.mark.parametrize("arguments", [["a.jpg", "--id", "1"], ["--box", "0,0,.5,.5"], ["--id", "-1"], ["-k", "0"]])
def test_command_lines_that_are_refused(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parsed(arguments)
