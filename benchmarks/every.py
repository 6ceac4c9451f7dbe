"""Run every benchmark in turn, each in its own process: `make bench`.

    python benchmarks/every.py                                 about a quarter of an hour on two idle cores
    python benchmarks/every.py --only exact_search queries
    python benchmarks/every.py --full --into docs/BENCHMARKS.md

`--full` adds 100 000 rows where they take long. `--into` writes each table between its two marks in a Markdown file,
`<!-- exact_search -->` and `<!-- /exact_search -->`, and leaves the rest of the file unchanged.
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
from measuring import describe_machine, say

_HERE = Path(__file__).parent
_WITH_VGG16 = ("indexing", "queries", "starting")
# name -> its arguments by default and with --full, and its time limit in seconds
RUNS: dict[str, tuple[list[str], list[str], int]] = {
    "exact_search": ([], [], 300),
    "approximate": (["--rows", "20000"], [], 1800),
    "indexing": ([], ["--rounds", "5"], 900),
    "ray_actors": ([], ["--rounds", "5"], 600),
    "decoding": ([], ["--rounds", "5"], 300),
    "queries": ([], ["--queries", "100"], 600),
    "filters": ([], ["--rows", "10000", "100000", "--facets", "100000", "1000000"], 900),
    "starting": ([], ["--rounds", "5"], 600),
    "growth": ([], ["--images", "1000", "10000", "100000", "--plots", str(_HERE.parent / "docs")], 900),
    "neighbours": ([], ["--rows", "10000", "100000"], 900),
    "map": ([], ["--rows", "10000", "100000"], 3600),
    "evaluation_speed": (["--rows", "3000", "--dimension", "1024"], [], 300),
    "evaluation_exactness": (["--every", "20"], [], 300),
    "uploads": ([], [], 600),
    "serving": (["--seconds", "20"], ["--seconds", "60"], 600),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--full", action="store_true", help="include the sizes that take long")
    parser.add_argument(
        "--into", type=Path, metavar="FILE.md", help="write the tables into this file, between their marks"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep VGG16's weights and exported model there")
    options = parser.parse_args()
    if options.into:
        check_marks(options.into, [*options.only, "machine"])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        failed = run_all(options, options.folder or Path(folder))
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


def run_all(options: argparse.Namespace, folder: Path) -> list[str]:
    """Run the benchmarks and return the names of those that failed; ``folder`` keeps VGG16's weights and export."""
    failed = []
    machine = describe_machine()
    print(machine, flush=True)
    for name in options.only:
        default, full, limit = RUNS[name]
        if name in _WITH_VGG16:
            shared = ["--weights", str(vgg16.weights(folder)), "--cache", str(folder / "cache")]
        else:
            shared = []
        command = [sys.executable, str(_HERE / f"{name}.py"), *(full if options.full else default)]
        say(f"== {name}")
        start = time.perf_counter()
        # in a new session, so that its servers are killed with it
        running = subprocess.Popen([*command, *shared], stdout=subprocess.PIPE, text=True, start_new_session=True)
        try:
            tables, _ = running.communicate(timeout=limit)
        except BaseException as error:
            os.killpg(running.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            say(f"{name} took more than {limit} s and was stopped.")
            failed.append(name)
            continue
        if running.returncode:
            say(f"{name} ended with exit code {running.returncode}.")
            failed.append(name)
            continue
        shown = " ".join(["python", f"benchmarks/{name}.py", *command[2:]]).replace(f"{_HERE.parent}/", "")
        section = f"    {shown}\n\n{tables.strip()}\n"
        print(f"## {name}, {time.perf_counter() - start:.0f} s\n\n{section}", flush=True)
        if options.into:
            splice(options.into, name, section)
    if options.into and not failed:
        splice(options.into, "machine", machine)
    return failed


def check_marks(file: Path, names: list[str]) -> None:
    """Exit if a mark is missing, before hours of work."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    for name in names:
        if f"<!-- {name} -->\n" not in text or f"<!-- /{name} -->" not in text:
            sys.exit(f"{file} has no lines <!-- {name} --> and <!-- /{name} --> to write a table between.")


def splice(file: Path, name: str, section: str) -> None:
    """Replace the text between the two marks with this name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    text = file.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    section = section.strip("\n")
    file.write_text(f"{before}{begin}\n{section}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
