"""The ``searchengine`` command. Without the packages it needs, importing it ends the program with a message."""

import sys

from searchengine.errors import missing_package

try:
    from searchengine.cli.main import main, offline_index
except ModuleNotFoundError as error:
    sys.exit(f"searchengine: {missing_package(error)}")
except KeyboardInterrupt:
    sys.stderr.write("searchengine: Stopped.\n")
    raise SystemExit(130) from None

__all__ = ["main", "offline_index"]
