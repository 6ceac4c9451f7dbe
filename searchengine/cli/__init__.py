"""The ``searchengine`` command."""

from searchengine.cli.main import main

__all__ = ["main"]
