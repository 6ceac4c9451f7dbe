"""Every benchmark, one after the other, each in a process of its own: what `make bench` runs.

    python benchmarks/every.py                                 a quarter of an hour on two free cores
    python benchmarks/every.py --only exact_search queries
    python benchmarks/every.py --full --into docs/BENCHMARKS.md

`--full` adds 100 000 rows where they take long. `--into` puts each table between its two marks in a Markdown file,
`<!-- exact_search -->` and `<!-- /exact_search -->`, and leaves the rest of the file as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from machine import describe
from measuring import say

_HERE = Path(__file__).parent
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
    options = parser.parse_args()
    failed = []
    machine = describe()
    print(machine, flush=True)
    for name in options.only:
        default, full, bound = RUNS[name]
        command = [sys.executable, str(_HERE / f"{name}.py"), *(full if options.full else default)]
        say(f"== {name}")
        start = time.perf_counter()
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=bound)
        except subprocess.TimeoutExpired:
            say(f"{name} took more than {bound} s and was ended.")
            failed.append(name)
            continue
        if done.returncode:
            say(f"{name} ended with exit code {done.returncode}.")
            failed.append(name)
            continue
        said = " ".join(["python", f"benchmarks/{name}.py", *command[2:]]).replace(f"{_HERE.parent}/", "")
        section = f"    {said}\n\n{done.stdout.strip()}\n"
        print(f"## {name}, {time.perf_counter() - start:.0f} s\n\n{section}", flush=True)
        if options.into:
            splice(options.into, name, section)
    if options.into and not failed:
        splice(options.into, "machine", machine)
    if failed:
        sys.exit(f"These did not end well: {', '.join(failed)}.")


def splice(file: Path, name: str, text: str) -> None:
    """Put the text between the two marks of that name."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    whole = file.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        sys.exit(f"{file} has no marks {begin.strip()} and {end} to put a table between.")
    file.write_text(f"{before}{begin}\n{text.strip()}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
