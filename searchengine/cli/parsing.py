"""How the arguments of every verb are read: nothing empty, nothing twice where one counts, and ``--k`` for ``-k``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def text(given: str) -> str:
    """An argparse type: anything but nothing, which an unset variable of the shell leaves behind."""
    if not given:
        raise argparse.ArgumentTypeError("is empty. Is a variable of the shell not set?")
    return given


def path(given: str) -> Path:
    """An argparse type: a path; nothing would be taken for the current folder."""
    return Path(text(given))


class VerbParser(argparse.ArgumentParser):
    """The parser of one verb. ``type=Path``, or no type at all, refuses what is empty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._given: set[str] = set()
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)
        self.register("action", "store", _Once)
        self.register("type", None, text)
        self.register("type", Path, path)

    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:
        """As argparse has it, and --k wherever there is -k."""
        return super().add_argument(*(("-k", "--k") if names == ("-k",) else names), **kwargs)

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As argparse has it; what was given before is forgotten."""
        self._given.clear()
        return super().parse_known_args(*args, **kwargs)

    def first(self, name: str) -> bool:
        """Whether an option is given for the first time."""
        known = name in self._given
        self._given.add(name)
        return not known


class _Once(argparse._StoreAction):
    """Keeps one value, so a second one is refused rather than preferred in silence."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if option_string is not None and isinstance(parser, VerbParser) and not parser.first(self.dest):
            raise argparse.ArgumentError(self, "given twice, and only one counts")
        super().__call__(parser, namespace, values, option_string)
