"""An index in Milvus, as far as that can be tested without a server; see also the contract and tests/torture."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest

from searchengine.address import AddressError, MilvusAddress, MilvusOptions, milvus_parameters, parse_address
from searchengine.engine import open_index
from searchengine.errors import IndexUnavailableError
from searchengine.index.filters import Filter
from searchengine.index.milvus.connection import Connection
from searchengine.index.milvus.snapshot import expression
from searchengine.settings import SettingsError, load_settings
from searchengine.web import create_app


@pytest.fixture
def nowhere() -> MilvusAddress:
    """An address at which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    return MilvusAddress("127.0.0.1", port, "photos")


def test_addresses() -> None:
    assert parse_address("milvus://db:19531/photos") == MilvusAddress("db", 19531, "photos")
    assert str(parse_address("milvus://db/photos")) == "milvus://db:19530/photos"
    assert parse_address("photos") == Path("photos")


@pytest.mark.parametrize(
    "text", ["milvus://db", "milvus://db:99999/photos", "milvus://db/1st", "milvus://root:secret@db/photos"]
)
def test_invalid_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError) as refused:
        load_settings({"index_dir": text}, environ={})
    assert "secret" not in str(refused.value)


def test_settings_reach_the_address_and_the_token_stays_secret() -> None:
    environ = {
        "SEARCHENGINE_INDEX_DIR": "milvus://db:1/a:folder:milvus://db/b",
        "SEARCHENGINE_MILVUS_TOKEN": "root:secret",
    }
    settings = load_settings({"milvus_consistency": "strong", "milvus_search_params": "ef=64,M=8"}, environ=environ)
    first, folder, second = settings.index_dir
    assert isinstance(first, MilvusAddress)
    assert (first.options.token, first.options.consistency) == ("root:secret", "strong")
    assert milvus_parameters(first.options.search_params) == {"ef": 64, "M": 8}
    with pytest.raises(SettingsError):
        load_settings({"milvus_search_params": "ef=many"}, environ={})
    assert (str(first), folder, str(second)) == ("milvus://db:1/a", Path("folder"), "milvus://db:19530/b")
    assert "secret" not in f"{settings!r} {first!r} {settings.environment(secrets=False)}"
    assert load_settings(environ=settings.environment()).index_dir == settings.index_dir


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (Filter(labels=('say "hi"', "dög")), 'json_contains_any(facts["labels"], ["say \\"hi\\"", "dög"])'),
        (Filter(formats=("jpeg",), min_width=5), 'format in ["JPEG"] and width >= 5'),
        (Filter(max_height=9), "height >= 1 and height <= 9"),
        (Filter(ids=(3,)), "place in [6, 7]"),
        (Filter(ids=()), "place < 0"),
        (Filter(folders=("a",)), '((((path >= "a/" and path < "a0"))))'),
    ],
)
def test_filters_as_expressions(filter: Filter, expected: str) -> None:
    assert expression(filter, 7, {1: ""}) == f"born <= 7 and {expected}"


def test_a_day_is_compared_with_exif_or_else_with_the_file_time() -> None:
    condition = expression(Filter(after=date(2024, 2, 29), before=date(2024, 2, 29)), 7, {})
    assert 'taken >= "2024-02-29" and taken < "2024-03-01"' in condition
    assert 'taken == ""' in condition


def test_a_server_that_is_away(nowhere: MilvusAddress) -> None:
    with pytest.raises(IndexUnavailableError, match="does not answer"):
        len(open_index(nowhere))
    client = create_app({"index_dir": nowhere, "milvus_timeout": 0.5}).test_client()
    away = client.get("/search?id=7", headers={"Accept": "application/json"})
    assert (away.status_code, away.headers["Retry-After"]) == (503, "10")
    assert "does not answer" in away.json["error"]


def test_threads_do_not_wait_for_a_silent_server_one_after_another() -> None:
    """They share the failure of the thread that tries to connect, so a page is answered within one timeout."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        address = MilvusAddress("127.0.0.1", silent.getsockname()[1], "photos", MilvusOptions(timeout=0.5))
        connection = Connection(address)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: error_of(connection.about), range(8)))
        assert {type(answer) for answer in answers} == {IndexUnavailableError}
        silent.setblocking(False)
        assert 0 < accepted(silent) < 8


def error_of(question: Callable[[], object]) -> Exception | None:
    try:
        question()
    except Exception as error:
        return error
    return None


def accepted(listening: socket.socket) -> int:
    """Return how many connections wait to be accepted."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count
