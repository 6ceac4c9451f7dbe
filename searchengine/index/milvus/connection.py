"""The connection to a Milvus server: requests, retries while the server is away, and the translation of its errors."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from searchengine.address import MilvusAddress
from searchengine.errors import IndexError_, IndexNotFoundError, IndexUnavailableError, missing_extra, with_index_dir
from searchengine.index.milvus import schema
from searchengine.index.milvus.schema import quoted
from searchengine.progress import Say

T = TypeVar("T")
Request = Callable[[Any], T]  # takes a pymilvus.MilvusClient
Row = dict[str, Any]

STRONG = "Strong"  # the consistency with which a read sees all writes so far

MOST_ROWS = 16_384  # rows that Milvus returns at once
_NO_COLLECTION = {4, 100, 101}  # error codes
_REFUSED = ("auth", "permission", "privilege")  # words in the messages about a wrong token
_WRONG = {5, 1100}  # error codes of requests that can never succeed
_SKIPPED = f'key like "{schema.SKIPPED}%"'
_FEATURES_AT_ONCE = 4096  # rows with features in one response
_ROWS_AT_ONCE = 1000  # rows written at once
_BYTES_AT_ONCE = 16 * 2**20  # bytes of features written at once
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between the tries of a request; the last pause is repeated


class Connection:
    """A connection to the server of a collection, opened at the first request. Threads may share it, forks may not.

    Args:
        address: the address of the collection.
        consistency: how recent the data that it reads must be; None for the consistency of the address.
        timeout: seconds that a response may take; None for the timeout of the address.
        patience: seconds for which a request is repeated while the server is away; 0 for a single try.
        say: receives a sentence when a request has to wait.
    """

    def __init__(
        self,
        address: MilvusAddress,
        *,
        consistency: str | None = None,
        timeout: float | None = None,
        patience: float = 0.0,
        say: Say | None = None,
    ) -> None:
        self.address = address
        self.consistency = consistency or address.options.consistency.capitalize()
        self.timeout = timeout or address.options.timeout
        self._patience = patience
        self._say = say
        self._lock = threading.Lock()
        self._client: Any = None
        self._retired: Any = None  # the previous client, which other threads may still be using
        self._refused = 0.0  # when the server last could not be reached

    # -- images -----------------------------------------------------------------------------------------------------

    @property
    def images(self) -> str:
        """The name of the collection of images."""
        return self.address.collection

    def each_row(self, where: str, fields: Sequence[str], at_once: int = MOST_ROWS) -> Iterator[Row]:
        """Yield all rows that match, by place."""
        most = _FEATURES_AT_ONCE if schema.FEATURE in fields else MOST_ROWS
        return self._each_row(self.images, where, "place", fields, max(1, min(at_once, most)))

    def count(self, where: str) -> int:
        """Return the number of rows that match."""
        return int(self._query(self.images, where, ["count(*)"])[0]["count(*)"])

    def put(self, rows: Sequence[Row], dimension: int) -> None:
        """Write rows of images."""
        self._upsert(self.images, rows, max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // (4 * dimension))))

    def delete(self, places: Sequence[int]) -> None:
        """Delete the rows at some places."""
        self._delete(self.images, places)

    # -- the second collection ----------------------------------------------------------------------------------------

    @property
    def whole(self) -> str:
        """The name of the second collection."""
        return schema.about_name(self.address.collection)

    def about(self, key: str = schema.ABOUT) -> str | None:
        """Return the text of a row of the second collection, or None if there is no such row."""
        rows = self._query(self.whole, f"key == {quoted(key)}", ["text"])
        return str(rows[0]["text"]) if rows else None

    def count_skipped(self) -> int:
        """Return the number of skipped files."""
        return int(self._query(self.whole, _SKIPPED, ["count(*)"])[0]["count(*)"])

    def skipped(self) -> Iterator[str]:
        """Yield the texts of the rows of all skipped files."""
        return (str(row["text"]) for row in self._each_row(self.whole, _SKIPPED, "key", ["text"], MOST_ROWS))

    def put_about(self, texts: Mapping[str, str]) -> None:
        """Write texts to rows of the second collection, by key."""
        self._upsert(self.whole, [schema.about_row(key, text) for key, text in texts.items()], _ROWS_AT_ONCE)

    def delete_about(self, keys: Sequence[str]) -> None:
        """Delete rows of the second collection."""
        self._delete(self.whole, keys)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _query(self, name: str, where: str, fields: list[str], *, limit: int | None = None) -> list[Row]:
        limits = {} if limit is None else {"limit": limit}
        return self.ask(
            lambda client: list(
                client.query(
                    name,
                    filter=where,
                    output_fields=fields,
                    consistency_level=self.consistency,
                    timeout=self.timeout,
                    strict_float32=True,  # features as arrays, not lists
                    **limits,
                )
            )
        )

    def _each_row(self, name: str, where: str, key: str, fields: Sequence[str], at_once: int) -> Iterator[Row]:
        """Yield all rows that match, by primary key; they are requested ``at_once`` at a time."""
        after = where
        while True:
            rows = self._query(name, after, [key, *fields], limit=at_once)
            rows = sorted(rows, key=itemgetter(key))
            yield from rows
            if len(rows) < at_once:
                return
            after = f"({where}) and {key} > {json.dumps(rows[-1][key])}"

    def _upsert(self, name: str, rows: Sequence[Row], at_once: int) -> None:
        for start in range(0, len(rows), at_once):
            part = list(rows[start : start + at_once])
            self.ask(lambda client: client.upsert(name, part, timeout=self.timeout))  # noqa: B023  (called at once)

    def _delete(self, name: str, keys: Sequence[int] | Sequence[str]) -> None:
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            part = list(keys[start : start + _ROWS_AT_ONCE])
            self.ask(lambda client: client.delete(name, ids=part, timeout=self.timeout))  # noqa: B023  (called at once)

    def ask(self, request: Request[T]) -> T:
        """Return the response to a request, which is repeated after a failure, so it must be idempotent.

        Raises:
            IndexNotFoundError: there is no such collection.
            IndexUnavailableError: the server does not answer in time.
            IndexError_: it refuses the token.
        """
        deadline = time.monotonic() + self._patience
        for pause in itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1])):
            client = None
            try:
                with self._translated():
                    client = self._connected()
                    return request(client)
            except IndexUnavailableError:
                self._retire(client)
                if time.monotonic() + pause > deadline:
                    raise
                if pause == _PAUSES[0] and self._say is not None:
                    self._say(f"{self.address.server} does not answer. Waiting for it; nothing is lost.")
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _connected(self) -> Any:
        """Return a client. Threads that wait for a connection to be opened fail together, not one after the other."""
        begun = time.monotonic()
        with self._lock:
            if self._client is None:
                if self._refused > begun:
                    raise self._unavailable()
                try:
                    self._client = _client(self.address, self.timeout)
                except Exception:
                    self._refused = time.monotonic()
                    raise
            return self._client

    def _retire(self, client: Any) -> None:
        """Make the next request open another connection, because one that has failed may never work again."""
        with self._lock:
            if client is not None and client is self._client:
                _close(self._retired)
                self._client, self._retired = None, client

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except MilvusException as error:
            code, message = error.code, str(error.message).lower()  # the code may be one of gRPC's
            if code in _NO_COLLECTION and "not found" in message:
                raise self.missing() from error
            if any(word in message for word in _REFUSED) and "unavailable" not in message:
                raise IndexError_(
                    f"{self.address.server} refuses access. Give a token that it accepts: "
                    "SEARCHENGINE_MILVUS_TOKEN=USER:PASSWORD."
                ) from error
            if code in _WRONG:
                raise IndexError_(f"{self.address.server} cannot do that: {_short(error.message)}.") from error
            raise self._unavailable() from error
        except (grpc.RpcError, OSError) as error:
            raise self._unavailable() from error
        except ValueError as error:
            if "closed" not in str(error):
                raise
            raise self._unavailable() from error  # another thread has closed the channel

    def missing(self) -> IndexNotFoundError:
        """Return the error for a missing index."""
        command = with_index_dir("searchengine index IMAGES", self.address)
        return IndexNotFoundError(f"There is no index at {self.address}. Make one with: {command}")

    def _unavailable(self) -> IndexUnavailableError:
        return IndexUnavailableError(
            f"{self.address.server} does not answer. Start it, or wait until it is ready, and try again."
        )

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        with self._lock:
            _close(self._client)
            _close(self._retired)
            self._client = self._retired = None


def _client(address: MilvusAddress, timeout: float) -> Any:
    try:
        from pymilvus import MilvusClient
    except ModuleNotFoundError as error:
        raise missing_extra("pymilvus", "milvus") from error
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs errors that it also raises
    socket.create_connection((address.host.strip("[]"), address.port), timeout).close()  # pymilvus is slow to give up
    options = address.options
    client = MilvusClient(
        uri=f"{'https' if options.tls else 'http'}://{address.host}:{address.port}",
        token=options.token,
        timeout=timeout,
        dedicated=True,
    )
    # After a failure, pymilvus makes all threads reconnect one after the other; gRPC reconnects by itself.
    if (handler := getattr(client, "_handler", None)) is not None:
        handler._on_rpc_error = lambda _: False
    return client


def _close(client: Any) -> None:
    if client is not None:
        with contextlib.suppress(Exception):
            client.close()


def _short(message: object) -> str:
    return str(message).splitlines()[0].rstrip(".")[:200] if message else "no reason is given"
