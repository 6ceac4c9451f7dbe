"""Which files wait, which are with workers, which are read; and what happens to those during which a worker died."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from searchengine.indexing.reading import Reading
from searchengine.indexing.scan import Candidate

AT_ONCE = 2  # batches of a worker: one is decoded while another is embedded
FATAL = 3  # workers that died while they read a file, and it is skipped


@dataclass(slots=True, eq=False)
class Actor:
    """A worker as the driver knows it, and the batches it has been given, by the answers that are waited for.

    One that reads a suspect, a file during which a worker died, reads nothing else.
    """

    handle: Any
    starting: Any  # the answer of ``prepare`` that is waited for; None once it is there
    batches: dict[Any, Batch] = field(default_factory=dict)
    has_suspect: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Files that one worker reads: places among the candidates of a work."""

    work: Work
    places: Sequence[int]


class Work:
    """The files of a call: which wait, which are with workers, which are read. They leave in their order.

    ``ahead`` bounds how many have been handed out and have not left.
    """

    def __init__(self, candidates: Sequence[Candidate], size: int, ahead: int) -> None:
        self.candidates = candidates
        self._size, self._ahead = size, ahead
        self._next = 0  # that was never handed out
        self._left = 0  # how many have left
        self._suspects: deque[int] = deque()  # to be read again, alone
        self._deaths: Counter[int] = Counter()
        self._read: dict[int, Reading] = {}

    @property
    def done(self) -> bool:
        """Whether all have left."""
        return self._left == len(self.candidates)

    def hand_out(self, actor: Actor) -> list[int]:
        """The places of the next files for a worker; none if it has enough to do, or nothing may be handed out."""
        if len(actor.batches) >= (1 if actor.has_suspect or self._suspects else AT_ONCE):
            return []
        actor.has_suspect = bool(self._suspects)
        if self._suspects:
            return [self._suspects.popleft()]
        first, last = self._next, min(self._next + self._size, self._left + self._ahead, len(self.candidates))
        self._next = max(first, last)
        return [*range(first, last)]

    def take(self, places: Sequence[int], readings: Sequence[Reading]) -> None:
        """Keep what was read until its turn."""
        self._read.update(zip(places, readings, strict=True))

    def again(self, places: Sequence[int]) -> None:
        """Have files read again that a worker was given in vain."""
        self._suspects.extend(places)

    def died(self, places: Sequence[int]) -> None:
        """Have files read again during which a worker died; skip those that it happened to too often."""
        self._deaths.update(places)
        for place in places:
            if self._deaths[place] < FATAL:
                self._suspects.append(place)
            else:
                reason = f"{FATAL} processes of Ray died while they read it. The next run will try it again."
                self._read[place] = Reading(self.candidates[place], None, None, reason=reason, lost=True)

    def leave(self) -> Iterator[Reading]:
        """The files whose turn it is."""
        while self._left in self._read:
            self._left += 1
            yield self._read.pop(self._left - 1)
