"""Fixtures for the contract tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.milvus import stop_server


@pytest.fixture(scope="module", autouse=True)
def milvus_ends() -> Iterator[None]:
    """Stop the Milvus server, if the tests of a module have started one."""
    yield
    stop_server()
