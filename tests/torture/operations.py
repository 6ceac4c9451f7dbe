"""Operations that write to an index, as runs that can be ended at any moment: see ``forks``.

``python -m tests.torture.operations`` imports everything once, then reads one JSON object a line from its input, forks
a child that does what it says, ends the child if that is asked for, and answers with its exit status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from searchengine.analyse.map import MAP, MapSheet
from searchengine.engine import open_index
from searchengine.errors import SearchEngineError
from searchengine.exchange.importing import ImportOptions, import_features
from searchengine.index import building
from searchengine.index.local import LocalIndex
from searchengine.indexing import IndexingOptions, update_index
from searchengine.learn import Classifier, FitReport, save_classifier, training_set
from tests.fakes import OTHER_SPEC, SPEC, FakeExtractor
from tests.torture.crashes import crash_at
from tests.torture.forks import REFUSED


def update(photos: str, index: str, *, other: bool = False, **options: Any) -> None:
    """Index a folder in batches of two, each committed at once."""
    spec = OTHER_SPEC if other else SPEC

    update_index(
        [photos],
        index,
        extractor=FakeExtractor(spec),
        options=IndexingOptions(**{"batch_size": 2, "commit_seconds": 0.0, **options}),
    )


def take_in(file: str, index: str, *, append: bool = False, images: str | None = None) -> None:
    """Import ready-made features."""
    import_features(Path(file), Path(index), ImportOptions(append=append, images=Path(images) if images else None))


def classify(index: str, seed: int) -> None:
    """Store a classifier with the index, with all coefficients equal to the seed."""
    opened = open_index(index)
    data = training_set(opened)
    shape = (2, opened.dimension)
    classifier = Classifier(
        classes=("a", "b"),
        coefficients=np.full(shape, float(seed)),
        intercepts=np.zeros(2),
        mean=np.zeros(shape[1]),
        scale=np.ones(shape[1]),
        fingerprint=data.fingerprint,
        version=data.version,
        report=FitReport("today", 1, 0, float(seed), 0, 0, None, None, ()),
    )
    save_classifier(opened, classifier)
    opened.close()


def place(index: str, seed: int) -> None:
    """Store a map with the index, with all numbers equal to the seed, so that a mixture of two would be seen."""
    opened = open_index(index)
    ids = np.sort(opened.ids)
    arrays = {"ids": ids, "stamps": np.full(len(ids), seed, np.uint64), "places": np.full((len(ids), 2), float(seed))}
    arrays |= {"fitted": np.ones(len(ids), np.bool_), "mean": np.zeros(2), "components": np.zeros((2, 2))}
    MAP.save(Path(index), MapSheet(1, "today", opened.fingerprint, 2, 30.0, 750, seed), arrays)
    opened.close()


def build(index: str) -> None:
    """Build the structure for approximate search."""
    opened = LocalIndex.open(index, exact=True)
    building.build(Path(index), opened.state())


OPERATIONS: dict[str, Callable[..., None]] = {
    "update": update,
    "import": take_in,
    "classify": classify,
    "place": place,
    "build": build,
}


def run(order: dict[str, Any]) -> int:
    """Run an operation in a fork and return its exit status, negative if a signal ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if order["crash_at"] is not None:
                crash_at(order["crash_at"])
            OPERATIONS[order["operation"]](**order["arguments"])
            status = 0
        except SearchEngineError:
            status = REFUSED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if order["kill_after"] is not None:
        time.sleep(order["kill_after"])
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.monotonic()
        print(json.dumps([run(json.loads(line)), time.monotonic() - started]), flush=True)
