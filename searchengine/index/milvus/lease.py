"""The right to write to a collection, for one run among all machines: a row that the run renews every few seconds.

On a single machine, a lock in a folder (``storage``) keeps runs apart, and the system releases it when its holder dies.
Milvus has no such lock. So the row of a run that was killed on another machine is respected until it has not been
renewed for a while. The clocks of two machines are not compared.
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

_INTERVAL = 4.0  # seconds between renewals
_EXPIRES = 15.0  # seconds without a renewal after which a run counts as dead
_SETTLES = 0.6  # seconds in which a competing run would overwrite our row
_TIMEOUT = 5.0  # seconds for a renewal


class Lease:
    """The right to write, held until it is released; the caller holds the lock of this machine.

    Raises:
        IndexLockedError: another run holds it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._hasty = Connection(connection.address, consistency=STRONG, timeout=_TIMEOUT)  # does not wait for a server
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
        """Raise IndexLockedError if another run has taken over."""
        text = self._connection.about(WRITER)
        if not self._is_ours(text):
            raise self._taken(text)

    def _is_ours(self, text: str | None) -> bool:
        return text is not None and parse_json(text)["owner"] == self._owner

    def _wait_for_other(self) -> None:
        """Wait until another run's row is gone, has expired, or belongs to a dead process."""
        first = self._connection.about(WRITER)
        since = time.monotonic()
        while first is not None and not _is_dead(first) and time.monotonic() - since < _EXPIRES:
            time.sleep(0.5)
            begun = time.monotonic()
            text = self._connection.about(WRITER)
            if text is None:
                return
            if text != first:
                raise self._taken(text)
            if time.monotonic() - begun > _INTERVAL:
                since = time.monotonic()  # the server was away, so the other run could not renew its row either

    def _taken(self, text: str | None) -> IndexLockedError:
        other = parse_json(text) if text else {}
        who = f": process {other.get('pid')} on {other.get('host')}" if other else ""
        return IndexLockedError(
            f"Another run is writing to {self._connection.address}{who}. "
            "Wait for it to end, then run the command again."
        )

    def _renew(self, connection: Connection) -> None:
        self._beats += 1
        values = {"owner": self._owner, "host": socket.gethostname(), "pid": os.getpid(), "beat": self._beats}
        connection.put_about({WRITER: json.dumps({**values, "at": time.time()})})

    def _keep(self) -> None:
        while not self._released.wait(_INTERVAL):
            with suppress(SearchEngineError):  # the run itself reports that the server is away
                if self._is_ours(self._hasty.about(WRITER)) and not self._released.is_set():
                    self._renew(self._hasty)

    def release(self) -> None:
        """Let others write, within seconds; if the server is away, the row expires later."""
        self._released.set()
        self._thread.join()
        with closing(self._hasty), suppress(SearchEngineError):
            if self._is_ours(self._hasty.about(WRITER)):
                self._hasty.delete_about([WRITER])


def is_held(text: str | None) -> bool:
    """Return whether there is a writer's row that was renewed lately, by the clock of its machine."""
    with suppress(ValueError, KeyError, TypeError):
        return text is not None and not _is_dead(text) and abs(time.time() - parse_json(text)["at"]) < 4 * _EXPIRES
    return False


def _is_dead(text: str) -> bool:
    """Return whether the run that a row names was a process of this machine that no longer exists."""
    with suppress(ValueError, KeyError, TypeError):
        run = parse_json(text)
        if run["host"] != socket.gethostname() or not hasattr(os, "killpg"):  # on Windows, os.kill would kill it
            return False
        try:
            os.kill(int(run["pid"]), 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False
    return True
