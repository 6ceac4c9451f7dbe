"""The threads in which the application runs, and whose turn is next: no kind of request holds up the others."""

from __future__ import annotations

import re
from collections import Counter, deque

from waitress.channel import HTTPChannel
from waitress.task import ThreadedTaskDispatcher

_UPLOAD = "an upload"
_WORD = re.compile(r"[^/]*[^/0-9][^/]*")  # a part of a path that is no number


class Threads(ThreadedTaskDispatcher):
    """Twice ``count`` threads, in which the kinds of requests take turns.

    Uploads, which wait for their turn to be decoded, have ``count`` of them at most, and each other kind a quarter of
    that: however many there are of one kind, or however long they take, there are threads for the others.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.queue = Turns(uploads=count, others=max(1, count // 4))
        self.set_thread_count(2 * count)

    def add_task(self, channel: HTTPChannel) -> None:
        """Have the next request of a connection answered."""
        super().add_task(Turn(channel, self))

    def end(self, turn: Turn) -> None:
        """Note that a request is answered; its thread looks for the next one."""
        with self.lock:
            self.queue.end(turn)


class Turns:
    """The queue of ``Threads``, which locks it: requests that wait, by kind, and how many of each kind are running."""

    def __init__(self, uploads: int, others: int) -> None:
        self._uploads, self._others = uploads, others
        self._waiting: dict[str, deque[Turn]] = {}  # the kind whose turn comes last is at the end
        self._running: Counter[str] = Counter()

    def append(self, turn: Turn) -> None:
        """Let a request wait."""
        self._waiting.setdefault(turn.kind, deque()).append(turn)

    def __len__(self) -> int:
        """How many kinds have a request that may begin."""
        return sum(map(self._may_begin, self._waiting))

    def popleft(self) -> Turn:
        """The request that begins now."""
        kind = next(filter(self._may_begin, self._waiting))
        turns = self._waiting.pop(kind)
        turn = turns.popleft()
        if turns:
            self._waiting[kind] = turns
        self._running[kind] += 1
        return turn

    def _may_begin(self, kind: str) -> bool:
        return self._running[kind] < (self._uploads if kind == _UPLOAD else self._others)

    def end(self, turn: Turn) -> None:
        """Note that a request is answered."""
        self._running[turn.kind] -= 1
        if not self._running[turn.kind]:
            del self._running[turn.kind]


class Turn:
    """The next request of a connection; of a kind with those whose addresses differ in numbers or the index alone."""

    def __init__(self, channel: HTTPChannel, threads: Threads) -> None:
        self._channel, self._threads = channel, threads
        request = channel.requests[0]
        words = _WORD.findall(getattr(request, "path", ""))  # broken requests have none
        self.kind: str = _UPLOAD if request.body_rcv is not None else words[-1] if words else ""

    def service(self) -> None:
        """Answer it."""
        try:
            self._channel.service()
        finally:
            self._threads.end(self)

    def cancel(self) -> None:
        """Give it up."""
        self._channel.cancel()
