"""The offline script: make an index of folders of images, or bring it up to date. ``--help`` says how."""

import sys

from searchengine.cli.indexing import main

if __name__ == "__main__":
    sys.exit(main())
