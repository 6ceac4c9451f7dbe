"""Commands that describe indexes, settings and models, from ``searchengine info`` to ``searchengine models``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from searchengine.address import folder_of
from searchengine.cli.command import ID, TEXT, flag, json_flag, verb
from searchengine.cli.options import INDEX, INDEX_FOLDER, MILVUS, open_index, settings_options
from searchengine.cli.output import print_answer, print_json, print_note, print_result, shown
from searchengine.files import file_size
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.settings import Settings


@verb("info")
@settings_options("index_dir", *MILVUS)
@flag("--skipped", "List the files that were skipped, with the reasons.", name="show_skipped")
@json_flag
def info(settings: Settings, show_skipped: bool, as_json: bool) -> None:
    """Describe an index: its images, model, metric and size."""
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
            f"search     approximate: finds {approximation.found} of the exact results ({approximation.factory})"
        )
    if status.run is not None:
        state = "in progress" if status.run.active else "interrupted; run the same command again to resume"
        print_result(f"run        {status.run.done} of {status.run.total} files, {state}")
    for path, reason in skipped:
        print_result(f"skipped    {path!r}: {reason}")
    if not ExtractorSpec.from_json(index.spec).is_imported and (remark := decoding_remark(index.manifest("decoding"))):
        print_note(remark)


@verb("verify", "Exit status: 0 sound; 1 damaged.")
@settings_options("index_dir", index_dir=INDEX_FOLDER)
@json_flag
def verify(settings: Settings, as_json: bool) -> int:
    """Check an index for damage, and say how to repair it.

    Every page of the catalog and every row of the features is checked.
    """
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
            print_note(
                f"{result.missing_files} image files are no longer where they were indexed. Run the indexing again."
            )
    return 0 if result.sound else 1


@verb("config")
@json_flag
def config(as_json: bool) -> None:
    """Print every setting, its value and where it comes from.

    The order of precedence is defaults < file < environment < flags. Each line begins with the environment variable of
    the setting. The file is searchengine.toml in the working folder, or the one named by SEARCHENGINE_CONFIG; its keys
    are these names in lower case, without SEARCHENGINE_.
    """
    from searchengine.settings import load_settings, origins, variable

    settings = load_settings()
    texts = settings.environment(secrets=False)
    values = {
        variable(name): value if isinstance(value, int | float | None) else texts[variable(name)]
        for name, value in settings
    }
    lines = [
        f"{f'{variable(name)}={texts.get(variable(name), str())}':<50} {origin}" for name, origin in origins().items()
    ]
    print_answer(values, "\n".join(lines), as_json=as_json)


_CACHE = """\
Examples:
  searchengine cache
  searchengine cache --clear
"""


@verb("cache", _CACHE)
@flag("--clear", "Delete the models that no index uses. They are exported again when needed.")
@json_flag
def cache(clear: bool, as_json: bool) -> None:
    """List the models exported for OpenVINO, or delete unused ones.

    Each is listed with its size, its last use and the indexes that use it.
    """
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
Examples:
  searchengine models
  searchengine models vgg19
  searchengine models mine.keras
"""


@verb("models", _MODELS)
@click.argument("model", metavar="[MODEL]", required=False, type=TEXT)
@json_flag
def models(model: str | None, as_json: bool) -> None:
    """List the available models, or the layers of one.

    Each model is listed with its default layer, the dimension of its features, its input size, its number of
    parameters, the size of its weights, and whether these are on this machine. With a MODEL (a name or a .keras file),
    the layers of that model are listed with their shapes.
    """
    if model is None:
        _list_models(as_json=as_json)
    else:
        _list_layers(model, as_json=as_json)


def _list_models(*, as_json: bool) -> None:
    from searchengine.extractors.loading import list_models

    if as_json:
        fields = ("name", "title", "default_layer", "dimension", "input_size", "parameters", "megabytes")
        print_json(
            [
                {**{field.removeprefix("default_"): getattr(model, field) for field in fields}, "weights": weights}
                for model, weights in list_models()
            ]
        )
        return
    rows = [
        (
            model.name,
            model.default_layer or "-",
            f"{model.dimension}",
            f"{model.input_size[0]} x {model.input_size[1]}",
            f"{model.parameters / 1e6:.1f} M",
            f"{model.megabytes} MB",
            weights,
        )
        for model, weights in list_models()
    ]
    print_result(_columns(("model", "layer", "dimension", "input", "parameters", "weights", "status"), rows))


def _list_layers(model: str, *, as_json: bool) -> None:
    from searchengine.extractors.loading import layers_of

    network = layers_of(model)
    if as_json:
        print_json(asdict(network))
        return
    size = "any size" if network.input_size is None else f"{network.input_size[0]} x {network.input_size[1]}"
    print_result(
        f"{network.title}: input {size}, {network.parameters / 1e6:.1f} M parameters, preprocessing "
        f"{network.preprocessing}; * marks the default of --layer"
    )
    rows = [
        (
            ("* " if layer.name == network.default else "  ") + (layer.name or "(its output)"),
            layer.kind,
            " x ".join("?" if side is None else str(side) for side in layer.shape),
            _count(layer.feature_size("none")),
            _count(layer.feature_size("avg")) if layer.is_spatial else "",
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


_TAGS = """\
Examples:
  searchengine tags 7 12
  searchengine tags --json > tags.json
"""


@verb("tags", _TAGS)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=ID)
@settings_options(*INDEX)
@json_flag
def tags(settings: Settings, ids: tuple[int, ...], as_json: bool) -> None:
    """List what the network of an index sees in its images.

    These tags are ImageNet classes, each with its probability. Without an ID, all images that have tags are listed. The
    network can be wrong: about five in a hundred tags are wrong for images that show one of its classes, and more for
    other images.
    """
    from searchengine.text.words import Words, tags_of

    with closing(open_index(settings)) as index:
        tagged = tags_of(Words.of(index), index, ids or None)
    if as_json:
        print_json([{"id": record.id, "path": record.path, "tags": list(map(asdict, seen))} for record, seen in tagged])
        return
    for record, seen in tagged:
        names = ", ".join(f"{tag.name} ({tag.probability:.0%})" for tag in seen)
        print_result(f"{record.id}  {shown(record.path)}  {names}")
    if not tagged:
        print_note("The network is not sure of anything in these images.")
