"""A run that can be killed: ``python -m tests.learn.triplets.slow_run PHOTOS BACKBONE OUT EPOCHS LAST``.

Prints a line per epoch. After epoch LAST it waits to be killed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.learn.triplets import tiny
from tests.learn.triplets.conftest import Setting


def main() -> None:
    photos, backbone, out = (Path(one) for one in sys.argv[1:4])
    epochs, last = int(sys.argv[4]), int(sys.argv[5])

    def after(epoch: int) -> None:
        print(epoch, flush=True)
        if epoch == last:
            time.sleep(600)

    Setting(photos, backbone).train(out, tiny.Recorder(after), epochs=epochs, patience=epochs)


if __name__ == "__main__":
    main()
