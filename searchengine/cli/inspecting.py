"""``searchengine info``, ``verify`` and ``config``: what an index holds, whether it is whole, and what is set."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from dataclasses import asdict
from typing import Any

from searchengine.cli.options import add_index_dir, add_json, print_json, print_note, print_result


def add_verbs(verbs: Any) -> None:
    """Add ``info``, ``verify`` and ``config``."""
    info = verbs.add_parser("info", help="say what an index holds", description="Say what an index holds.")
    info.set_defaults(act=act_info)
    add_index_dir(info)
    info.add_argument("--skipped", action="store_true", help="list the files that could not be used, with the reasons")
    add_json(info)
    verify = verbs.add_parser(
        "verify",
        help="check an index whole",
        description="Check every page of the catalog and every row of the features, and say how to mend what is wrong.",
        epilog="exit status: 0 sound; 1 damaged",
    )
    verify.set_defaults(act=act_verify)
    add_index_dir(verify)
    add_json(verify)
    config = verbs.add_parser(
        "config",
        help="print every setting",
        description="Print every setting with its value and where it comes from: defaults < file < environment < "
        "flags. Each line begins with the environment variable that sets it. The file is searchengine.toml in the "
        "working folder, or the one that SEARCHENGINE_CONFIG names; its keys are these names in lower case, without "
        "SEARCHENGINE_.",
    )
    config.set_defaults(act=act_config)
    add_json(config)


def act_info(options: argparse.Namespace) -> int:
    """Run ``info``."""
    from searchengine.engine import open_index

    index = open_index(options.index_dir)
    status = index.status()
    skipped = index.skipped() if options.skipped else []
    if options.json:
        told = {**asdict(status), "metric": index.metric}
        if options.skipped:
            told["skipped_files"] = [{"path": path, "reason": reason} for path, reason in skipped]
        print_json(told)
        return 0
    print_result(f"images     {status.images}")
    print_result(f"skipped    {status.skipped}")
    print_result(f"extractor  {status.extractor}")
    print_result(f"dimension  {status.dimension}")
    print_result(f"metric     {index.metric}")
    print_result(f"on disk    {status.bytes / 1e6:.1f} MB")
    print_result(f"updated    {status.updated}")
    if status.run is not None:
        state = "going on" if status.run.active else "stopped; the same command goes on from there"
        print_result(f"run        {status.run.done} of {status.run.total} files, {state}")
    for path, reason in skipped:
        print_result(f"skipped    {path!r}: {reason}")
    return 0


def act_verify(options: argparse.Namespace) -> int:
    """Run ``verify``."""
    from searchengine.indexing.verify import verify

    result = verify(options.index_dir)
    if options.json:
        print_json({**asdict(result), "sound": result.sound})
    else:
        for problem, times in Counter(result.problems).items():
            print_result(problem if times == 1 else f"{problem} ({times} times)")
        if result.sound:
            print_result(f"{options.index_dir}: {result.images} images, sound")
        elif result.mend:
            print_result(f"Mend it with: {result.mend}")
        if result.missing_files:
            print_note(f"{result.missing_files} image files are not where they were indexed; run the indexing again.")
    return 0 if result.sound else 1


def act_config(options: argparse.Namespace) -> int:
    """Run ``config``."""
    from searchengine.settings import load_settings, origins, variable

    settings = load_settings().model_dump()
    settings["index_dir"] = os.pathsep.join(map(str, settings["index_dir"]))
    values = {name: value if isinstance(value, int | None) else str(value) for name, value in settings.items()}
    if options.json:
        print_json({variable(name): value for name, value in values.items()})
        return 0
    for name, origin in origins().items():
        value = "" if values[name] is None else values[name]
        print_result(f"{f'{variable(name)}={value}':<50} {origin}")
    return 0
