"""``searchengine info``, ``verify``, ``config``, ``cache`` and ``models``: indexes, settings and models described."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from searchengine.address import folder_of
from searchengine.cli.command import TEXT, flag, json_flag, verb
from searchengine.cli.options import MILVUS, settings_options
from searchengine.cli.output import print_json, print_note, print_result
from searchengine.files import file_size
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.settings import Settings


@verb("info", "describe an index")
@settings_options("index_dir", *MILVUS)
@flag("--skipped", "list the files that could not be used, and why", name="show_skipped")
@json_flag
def info(settings: Settings, show_skipped: bool, as_json: bool) -> None:
    """Describe an index: images, extractor, size."""
    from searchengine.engine import open_index
    from searchengine.extractors import ExtractorSpec
    from searchengine.indexing.model import decoding_remark

    index = open_index(settings.index_dir[0])
    approximation = index.approximation()
    status = index.status()
    skipped = index.skipped() if show_skipped else []
    if as_json:
        facts = {**asdict(status), "metric": index.metric, "approximate": approximation and asdict(approximation)}
        if show_skipped:
            facts["skipped_files"] = [{"path": path, "reason": reason} for path, reason in skipped]
        print_json(facts)
        return
    print_result(f"images     {status.images}")
    print_result(f"skipped    {status.skipped}")
    print_result(f"extractor  {status.extractor}")
    print_result(f"dimension  {status.dimension}")
    print_result(f"metric     {index.metric}")
    print_result(f"on disk    {file_size(status.bytes)}")
    print_result(f"updated    {status.updated}")
    if approximation is not None:
        print_result(
            f"search     quick: finds {approximation.found} of what exact search finds ({approximation.factory})"
        )
    if status.run is not None:
        state = "under way" if status.run.active else "stopped; the same command resumes it"
        print_result(f"run        {status.run.done} of {status.run.total} files, {state}")
    for path, reason in skipped:
        print_result(f"skipped    {path!r}: {reason}")
    if not ExtractorSpec.from_json(index.spec).is_imported and (remark := decoding_remark(index.manifest("decoding"))):
        print_note(remark)


@verb("verify", "check an index for damage", "exit status: 0 sound; 1 damaged")
@settings_options("index_dir")
@json_flag
def verify(settings: Settings, as_json: bool) -> int:
    """Check every page of the catalog and every row of the features, and say how to repair it."""
    from searchengine.indexing import verify as verifying

    folder = folder_of(settings.index_dir[0], "verify")
    with Bar() as bar:
        result = verifying.verify(folder, bar)
    if as_json:
        print_json({**asdict(result), "sound": result.sound})
    else:
        for problem, times in Counter(result.problems).items():
            print_result(problem if times == 1 else f"{problem} ({times} times)")
        if result.sound:
            print_result(f"{folder}: {result.images} images, sound")
        elif result.repair:
            print_result(f"Repair it with: {result.repair}")
        if result.missing_files:
            print_note(f"{result.missing_files} image files are not where they were indexed; run the indexing again.")
    return 0 if result.sound else 1


@verb("config", "print every setting")
@json_flag
def config(as_json: bool) -> None:
    """Print every setting with its value and where it comes from: defaults < file < environment < flags.

    Each line begins with the environment variable of the setting. The file is searchengine.toml in the working folder,
    or the one that SEARCHENGINE_CONFIG names; its keys are these names in lower case, without SEARCHENGINE_.
    """
    from searchengine.settings import load_settings, origins, variable

    settings = load_settings()
    texts = settings.environment(secrets=False)
    if as_json:
        values = {name: getattr(settings, name) for name in type(settings).model_fields}
        print_json(
            {
                variable(name): value if isinstance(value, int | float | None) else texts[variable(name)]
                for name, value in values.items()
            }
        )
        return
    for name, origin in origins().items():
        print_result(f"{f'{variable(name)}={texts.get(variable(name), str())}':<50} {origin}")


_CACHE = """\
examples:
  searchengine cache
  searchengine cache --clear
"""


@verb("cache", "list the exported models, or delete those that no index uses", _CACHE)
@flag("--clear", "delete the models that no index uses; they are exported again when they are needed")
@json_flag
def cache(clear: bool, as_json: bool) -> None:
    """List the models that were exported for OpenVINO: their size, their last use, and the indexes that use them."""
    from searchengine.extractors import cache as models_cache

    entries = models_cache.clear(say=print_note) if clear else models_cache.entries()
    if as_json:
        print_json([{**asdict(entry), "indexes": [str(index) for index in entry.indexes]} for entry in entries])
        return
    rows = [
        (
            entry.title,
            file_size(entry.size),
            time.strftime("%Y-%m-%d", time.localtime(entry.used)),
            ", ".join(map(str, entry.indexes)) or "no index",
        )
        for entry in entries
    ]
    total = file_size(sum(entry.size for entry in entries))
    if rows:
        print_result(_columns(("model", "size", "last used", "used by"), rows))
    count = "1 model" if len(entries) == 1 else f"{len(entries)} models"
    print_note(f"{count}, {total}, {'deleted from' if clear else 'in'} {models_cache.models_folder()}")


_MODELS = """\
examples:
  searchengine models
  searchengine models vgg19
  searchengine models mine.keras
"""


@verb("models", "list the models, or the layers of one", _MODELS)
@click.argument("model", metavar="[MODEL]", required=False, type=TEXT)
@json_flag
def models(model: str | None, as_json: bool) -> None:
    """List the models that features can be taken from.

    Each is listed with its default layer, the numbers in a feature, the input size, parameters, the size of its
    weights, and whether those are on this machine. With a MODEL, a name or a .keras file, list its layers with their
    shapes.
    """
    if model is None:
        _list_models(as_json=as_json)
    else:
        _list_layers(model, as_json=as_json)


def _list_models(*, as_json: bool) -> None:
    from searchengine.extractors.loading import listed_models

    lines = listed_models()
    if as_json:
        print_json([asdict(line) for line in lines])
        return
    rows = [
        (
            line.name,
            line.layer or "-",
            f"{line.dimension}",
            f"{line.input_size[0]} x {line.input_size[1]}",
            f"{line.parameters / 1e6:.1f} M",
            f"{line.megabytes} MB",
            line.weights,
        )
        for line in lines
    ]
    print_result(_columns(("model", "layer", "numbers", "input", "parameters", "weights", "are"), rows))


def _list_layers(model: str, *, as_json: bool) -> None:
    from searchengine.extractors.loading import layers_of

    network = layers_of(model)
    if as_json:
        print_json(asdict(network))
        return
    size = "any size" if network.input_size is None else f"{network.input_size[0]} x {network.input_size[1]}"
    print_result(
        f"{network.title}: input {size}, {network.parameters / 1e6:.1f} M parameters, preprocessing "
        f"{network.preprocessing}; * is taken without --layer"
    )
    rows = [
        (
            ("* " if layer.name == network.default else "  ") + (layer.name or "(its output)"),
            layer.kind,
            " x ".join("?" if side is None else str(side) for side in layer.shape),
            _count(layer.numbers("none")),
            _count(layer.numbers("avg")) if layer.is_spatial else "",
        )
        for layer in network.layers
    ]
    print_result(_columns(("  layer", "kind", "shape", "numbers", "pooled"), rows))


def _count(numbers: int | None) -> str:
    return "?" if numbers is None else str(numbers)


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)
    )
