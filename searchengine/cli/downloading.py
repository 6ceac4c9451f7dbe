"""``searchengine download``: a published collection -> a folder to index."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from searchengine.cli.options import add_json, print_json, print_note, print_result

_EPILOG = """\
examples:
  searchengine download coco-val2017 --to coco
  searchengine download cifar10 --to cifar10

A download that broke off goes on with the same command; where everything is there, nothing happens.
"""


def add_verbs(verbs: Any) -> None:
    """Add ``download``."""
    from searchengine.datasets import DATASETS

    parser = verbs.add_parser(
        "download",
        help="fetch a published collection of pictures",
        description="Fetch a collection from its publisher, check it, and unpack it into a folder to index:\n\n"
        + "\n".join(f"  {name:15} {dataset.title}" for name, dataset in DATASETS.items()),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=act)
    parser.add_argument("name", metavar="NAME", choices=tuple(DATASETS), help=" or ".join(DATASETS))
    parser.add_argument("--to", metavar="DIR", type=Path, required=True, help="the folder to put it into")
    parser.add_argument("--no-labels", action="store_true", help="leave out archives that hold labels only (COCO)")
    parser.add_argument("--keep", action="store_true", help="keep the archives, in DIR/.download")
    add_json(parser)


def act(options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.datasets import DATASETS, download_dataset

    with Bar() as bar:
        done = download_dataset(
            DATASETS[options.name],
            options.to.expanduser(),
            labels=not options.no_labels,
            keep=options.keep,
            progress=bar,
        )
    if options.json:
        label_file = None if done.label_file is None else str(done.label_file)
        print_json({"pictures": str(done.pictures), "labels": label_file, "files": done.files})
        return 0
    if done.files == 0:
        print_note("Everything is there already.")
    command = ["searchengine", "index", str(done.pictures), "--index-dir", options.name]
    if done.label_file is not None:
        command += ["--labels", str(done.label_file)]
    print_note("Index it with:")
    print_result(shlex.join(command))
    return 0


class Bar:
    """What a person sees of a download, on stderr; without a terminal only the sentences."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, what: str, total: int | None, done: int, unit: str) -> None:
        """A bar for this step, in place of the last one's."""
        from tqdm import tqdm

        self.close()
        self._bar = tqdm(
            desc=what,
            total=total,
            initial=done,
            unit=unit,
            unit_scale=unit == "B",
            file=sys.stderr,
            disable=None,  # where stderr is no terminal
            dynamic_ncols=True,
            leave=False,
        )

    def advance(self, amount: int) -> None:
        """So much more is done."""
        if self._bar is not None:
            self._bar.update(amount)

    def say(self, sentence: str) -> None:
        """A line above the bar."""
        if self._bar is not None and not self._bar.disable:
            self._bar.write(sentence, file=sys.stderr)
        else:
            print_note(sentence)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
