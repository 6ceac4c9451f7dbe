"""The offline script: make an index of folders of images, or bring it up to date. ``--help`` says how."""

import sys

from searchengine.errors import missing_package

try:
    from searchengine.cli.indexing import main
except ModuleNotFoundError as error:
    sys.exit(f"offline_index.py: {missing_package(error)}")

if __name__ == "__main__":
    sys.exit(main())
