"""What both modules of the contract share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.milvus import stop_server


@pytest.fixture(scope="module", autouse=True)
def milvus_ends() -> Iterator[None]:
    """The server of Milvus that the tests of a module have started ends with them."""
    yield
    stop_server()
