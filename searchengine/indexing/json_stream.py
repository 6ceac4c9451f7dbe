"""JSON of any size, read a piece at a time: a file of 450 MB is never in memory whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

_CHUNK = 2**20  # characters


def members(json_text: JsonText) -> Iterator[tuple[str, Any]]:
    """The members of a JSON object, each list entry by entry after a None.

    ValueError where it is no object, or is cut off.
    """
    json_text.skip("{")
    while json_text.next() != "}":
        name = str(json_text.value())
        json_text.skip(":")
        if json_text.next() == "[":
            yield name, None
            json_text.skip("[")
            while json_text.next() != "]":
                yield name, json_text.value()
                if json_text.next() != "]":
                    json_text.skip(",")
            json_text.skip("]")
        else:
            yield name, json_text.value()
        if json_text.next() != "}":
            json_text.skip(",")
    json_text.skip("}")


class JsonText:
    """JSON that is read as far as it is needed."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._read = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is not blank."""
        while True:
            while self._at < len(self._read):
                if self._read[self._at] not in " \t\r\n":
                    return self._read[self._at]
                self._at += 1
            if not self._read_on():
                raise ValueError("it ends too early")

    def is_at_end(self) -> bool:
        """Whether only blanks are left."""
        return not self._read[self._at :].strip() and not self._text.read().strip()

    def skip(self, character: str) -> None:
        """Go past a character, which must be the next."""
        if self.next() != character:
            raise ValueError(f"it is no JSON: {self._read[self._at : self._at + 20]!r} where {character!r} should be")
        self._at += 1

    def value(self) -> Any:
        """The value that begins here."""
        self.next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._read, self._at)
            except json.JSONDecodeError:
                if not self._read_on():
                    raise
                continue
            except ValueError:  # a number of more digits than Python converts
                self._decoder = json.JSONDecoder(parse_int=_integer)  # slower
                continue
            except RecursionError as error:
                raise ValueError("it is JSON that is nested too deeply") from error
            if end < len(self._read) or not self._read_on():  # a number at the end of what was read may go on
                self._at = end
                return value

    def _read_on(self) -> bool:
        rest = self._read[self._at :]
        more = self._text.read(max(_CHUNK, len(rest)))  # twice as much each time, for values that are very long
        self._read, self._at = rest + more, 0
        return bool(more)


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits
