"""The offline script: index folders of images, or update an existing index. See ``--help``."""

import sys

from searchengine.cli import offline_index

if __name__ == "__main__":
    sys.exit(offline_index())
