"""Run the command line with ``python -m searchengine``."""

import sys

from searchengine.cli import main

sys.exit(main())
