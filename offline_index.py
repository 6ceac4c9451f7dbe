"""The offline script: make an index of folders of images, or bring it up to date. ``--help`` says how."""

import sys

from searchengine.cli import offline_index

if __name__ == "__main__":
    sys.exit(offline_index())
