"""The ``searchengine`` command."""

import sys

try:
    from searchengine.cli.main import main
except KeyboardInterrupt:
    sys.stderr.write("searchengine: Stopped.\n")
    raise SystemExit(130) from None

__all__ = ["main"]
