"""Every benchmark, one after the other, each in a process of its own: what `make bench` runs.

    python benchmarks/every.py                                 meant for a quarter of an hour on two free cores
    python benchmarks/every.py --only exact_search queries
    python benchmarks/every.py --full --into docs/BENCHMARKS.md

`--full` adds 100 000 rows where they take long. `--into` puts each table between its two marks in a Markdown file,
`<!-- exact_search -->` and `<!-- /exact_search -->`, and leaves the rest of the file as it is.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vgg16
from machine import describe
from measuring import say

_HERE = Path(__file__).parent
_WITH_VGG16 = ("indexing", "queries", "starting")
# name -> what it is given by default, what with --full, and how many seconds it may take
RUNS: dict[str, tuple[list[str], list[str], int]] = {
    "exact_search": ([], [], 300),
    "indexing": ([], ["--rounds", "5"], 900),
    "queries": ([], ["--queries", "100"], 600),
    "starting": ([], ["--rounds", "5"], 600),
    "growth": ([], ["--images", "1000", "10000", "100000", "--plots", str(_HERE.parent / "docs")], 900),
    "neighbours": ([], ["--rows", "10000", "100000"], 900),
    "map": ([], ["--rows", "10000", "100000"], 3600),
    "evaluation_speed": (["--rows", "3000", "--dimension", "1024"], [], 300),
    "evaluation_exactness": (["--every", "20"], [], 300),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--full", action="store_true", help="the sizes that take long too")
    parser.add_argument("--into", type=Path, metavar="FILE.md", help="put the tables into this file, at their marks")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep VGG16's weights and exported model there")
    options = parser.parse_args()
    if options.into:
        check_marks(options.into, [*options.only, "machine"])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        failed = run_all(options, options.folder or Path(folder))
    if failed:
        sys.exit(f"These did not end well: {', '.join(failed)}.")


def run_all(options: argparse.Namespace, folder: Path) -> list[str]:
    """Runs them and gives the names of those that failed; ``folder`` keeps VGG16's weights and exported model."""
    failed = []
    machine = describe()
    print(machine, flush=True)
    for name in options.only:
        default, full, bound = RUNS[name]
        if name in _WITH_VGG16:
            shared = ["--weights", str(vgg16.weights(folder)), "--cache", str(folder / "cache")]
        else:
            shared = []
        command = [sys.executable, str(_HERE / f"{name}.py"), *(full if options.full else default)]
        say(f"== {name}")
        start = time.perf_counter()
        # a session of its own, so that servers end with it
        running = subprocess.Popen([*command, *shared], stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            tables, _ = running.communicate(timeout=bound)
        except BaseException as error:
            os.killpg(running.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            say(f"{name} took more than {bound} s and was ended.")
            failed.append(name)
            continue
        if running.returncode:
            say(f"{name} ended with exit code {running.returncode}.")
            failed.append(name)
            continue
        said = " ".join(["python", f"benchmarks/{name}.py", *command[2:]]).replace(f"{_HERE.parent}/", "")
        section = f"    {said}\n\n{tables.strip()}\n"
        print(f"## {name}, {time.perf_counter() - start:.0f} s\n\n{section}", flush=True)
        if options.into:
            splice(options.into, name, section)
    if options.into and not failed:
        splice(options.into, "machine", machine)
    return failed


def check_marks(file: Path, names: list[str]) -> None:
    """Before hours of work."""
    whole = file.read_text(encoding="utf-8") if file.is_file() else ""
    for name in names:
        if f"<!-- {name} -->\n" not in whole or f"<!-- /{name} -->" not in whole:
            sys.exit(f"{file} has no lines <!-- {name} --> and <!-- /{name} --> to put a table between.")


def splice(file: Path, name: str, text: str) -> None:
    """Put the text between the two marks of that name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    whole = file.read_text(encoding="utf-8")
    before, _, rest = whole.partition(begin)
    after = rest.partition(end)[2]
    text = text.strip("\n")
    file.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
