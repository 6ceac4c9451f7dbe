"""Which index folders are meant: one or several, in code and in the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "SEARCHENGINE_INDEX_DIR"


class Folders(tuple[Path, ...]):
    """One folder or several; as text, as the environment has them: between them what separates paths there."""

    __slots__ = ()

    def __str__(self) -> str:
        return os.pathsep.join(str(folder) for folder in self)

    @classmethod
    def of(cls, value: object) -> Folders:
        """From text, a path, or several of them; the same folder twice is one."""
        if isinstance(value, str):
            # A folder may have the separator in its name.
            parts = [value] if Path(value).expanduser().exists() else value.split(os.pathsep)
        elif isinstance(value, Sequence):
            parts = [str(part) for part in value]
        else:
            parts = [str(value)]
        folders: dict[Path, Path] = {}
        for part in filter(None, parts):
            folder = Path(part).expanduser()
            folders.setdefault(folder.absolute(), folder)
        return cls(folders.values())

    @classmethod
    def of_environment(cls) -> Folders:
        """What SEARCHENGINE_INDEX_DIR names, or ./index."""
        return cls.of(os.environ.get(VARIABLE, "")) or DEFAULT


DEFAULT = Folders((Path("index"),))
