"""One writer at a time, among all machines: a row that names the run that writes, and that it renews every few seconds.

Runs of one machine are kept apart by a lock in a folder (``storage``), which the system releases when its holder
dies. Milvus has no such lock, so the row of a run that was killed elsewhere counts until it has not been renewed for a
while; clocks of two machines are not compared.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import closing, suppress

from searchengine.errors import IndexLockedError, SearchEngineError
from searchengine.files import parse_json
from searchengine.index.milvus.connection import STRONG, Connection
from searchengine.index.milvus.schema import WRITER

_RENEWED = 4.0  # seconds
_EXPIRES = 15.0  # seconds without a renewal, and the run is taken to be dead
_SETTLES = 0.6  # seconds in which another run would write its name over ours
_TIMEOUT = 5.0  # seconds for a renewal


class Lease:
    """The right to write, held until it is released; the caller holds the lock of this machine.

    Raises:
        IndexLockedError: another run holds it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._hasty = Connection(connection.address, consistency=STRONG, timeout=_TIMEOUT)  # waits for no server
        self._owner = uuid.uuid4().hex
        self._beats = 0
        self._released = threading.Event()
        self._wait_for_other()
        self._renew(connection)
        time.sleep(_SETTLES)
        self.check()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="milvus-lease")
        self._thread.start()

    def check(self) -> None:
        """IndexLockedError where another run has taken over."""
        text = self._connection.about(WRITER)
        if not self._is_ours(text):
            raise self._taken(text)

    def _is_ours(self, text: str | None) -> bool:
        return text is not None and parse_json(text)["owner"] == self._owner

    def _wait_for_other(self) -> None:
        """Until the run that is named has not renewed its row for long enough, or is certain to be dead."""
        first = self._connection.about(WRITER)
        since = time.monotonic()
        while first is not None and not _is_dead(first) and time.monotonic() - since < _EXPIRES:
            time.sleep(0.5)
            asked = time.monotonic()
            now = self._connection.about(WRITER)
            if now is None:
                return
            if now != first:
                raise self._taken(now)
            if time.monotonic() - asked > _RENEWED:
                since = time.monotonic()  # the server was away, and the other run could not renew its row either

    def _taken(self, text: str | None) -> IndexLockedError:
        other = parse_json(text) if text else {}
        who = f": process {other.get('pid')} on {other.get('host')}" if other else ""
        return IndexLockedError(
            f"Another run is writing to {self._connection.address}{who}. "
            "Wait for it to end, then give the command again."
        )

    def _renew(self, connection: Connection) -> None:
        self._beats += 1
        values = {"owner": self._owner, "host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        connection.put_about({WRITER: json.dumps({**values, "at": time.time()})})

    def _keep(self) -> None:
        while not self._released.wait(_RENEWED):
            with suppress(SearchEngineError):  # the run itself says that the server is away
                if self._is_ours(self._hasty.about(WRITER)) and not self._released.is_set():
                    self._renew(self._hasty)

    def release(self) -> None:
        """Let others write; where the server is away, the row expires. Takes seconds at most."""
        self._released.set()
        self._thread.join()
        with closing(self._hasty), suppress(SearchEngineError):
            if self._is_ours(self._hasty.about(WRITER)):
                self._hasty.delete_about([WRITER])


def is_held(text: str | None) -> bool:
    """Whether the row of a writer, if there is one, was renewed of late, by the clock of its machine."""
    with suppress(ValueError, KeyError, TypeError):
        return text is not None and not _is_dead(text) and abs(time.time() - parse_json(text)["at"]) < 4 * _EXPIRES
    return False


def _is_dead(text: str) -> bool:
    """Whether the run that a row names is certain to be dead: a process of this machine that is no more."""
    with suppress(ValueError, KeyError, TypeError):
        run = parse_json(text)
        if run["host"] != socket.gethostname() or not hasattr(os, "killpg"):  # on Windows, to ask would kill it
            return False
        try:
            os.kill(int(run["pid"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    return True
