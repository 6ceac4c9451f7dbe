"""How verbs are declared: a Click command with its sections and examples, and the options that several verbs share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from searchengine.address import AddressError, is_milvus, parse_address
from searchengine.cli.output import print_result
from searchengine.index.metrics import METRICS

if TYPE_CHECKING:
    from searchengine.address import Address
    from searchengine.engine import SearchEngine
    from searchengine.index.protocol import Index
    from searchengine.settings import Settings

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Function], Function]

PRECISIONS = ("auto", "float32", "bfloat16")  # as settings.Precision and Runtime, which would load Pydantic for --help
CONSISTENCIES = ("strong", "bounded", "session", "eventually")
VECTOR_INDEXES = ("HNSW", "IVF_FLAT", "IVF_SQ8", "DISKANN", "FLAT", "AUTOINDEX")
RUNTIMES = ("auto", "openvino", "keras")
APPROXIMATE = ("auto", "off", "on")
POOLINGS = ("none", "avg", "max", "gem")
PREPROCESSINGS = ("none", "unit", "tf", "torch", "caffe")

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
_EMPTY = "is empty. Is a variable of the shell not set?"

# -- types ------------------------------------------------------------------------------------------------------------


class Text(click.ParamType[str]):
    """Any text but the empty string, which an unset variable of the shell leaves behind."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse the empty string."""
        return str(value) if value else self.fail(_EMPTY, param, ctx)


class FilePath(click.Path):
    """A path, there or not; the empty string would be the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse the empty string."""
        return super().convert(value, param, ctx) if value != "" else self.fail(_EMPTY, param, ctx)


class IndexPlace(FilePath):
    """A folder, there or not, or the address of a collection in Milvus."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what is no address; the message shows no secret."""
        try:
            return parse_address(value) if is_milvus(value) else super().convert(value, param, ctx)
        except AddressError as error:
            self.fail(str(error), param, ctx)


TEXT, PATH, INDEX_PLACE = Text(), FilePath(), IndexPlace()
COUNT, ID, FRACTION = click.IntRange(min=1), click.IntRange(min=0), click.FloatRange(min=0)

# -- verbs ------------------------------------------------------------------------------------------------------------


class _Option(click.Option):
    """An option with its section in --help; ``greedy`` ones take all values that follow, up to the next option."""

    def __init__(self, *names: Any, section: str = "Options", greedy: bool = False, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.section = section
        self.greedy = greedy


class HelpMixin:
    """Writes --help as a result, so that errors of standard output are ours; keeps the lines of examples."""

    epilog: str | None

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Click's option, with our output."""
        option: click.Option | None = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.callback = _print_help
        return option

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples as they stand."""
        if self.epilog:
            formatter.write(f"\n{self.epilog.strip()}\n")


def _print_help(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        print_result(ctx.get_help())
        ctx.exit()


class Verb(HelpMixin, click.Command):
    """A command whose options stand in sections, and some of which take several values in a row."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """``--classes Cat Dog`` is read as ``--classes Cat --classes Dog``."""
        greedy = {name for option in self.params if getattr(option, "greedy", False) for name in option.opts}
        return super().parse_args(ctx, _spread(args, greedy))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each section with its options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def _spread(arguments: Sequence[str], greedy: set[str]) -> list[str]:
    spread: list[str] = []
    option, values = "", 0
    for i, argument in enumerate(arguments):
        if argument == "--":
            return [*spread, *arguments[i:]]
        if argument.startswith("-") and argument != "-":
            option, values = argument if argument in greedy else "", 0
        elif option:
            values += 1
            if values > 1:
                spread.append(option)
        spread.append(argument)
    return spread


def verb(name: str, summary: str, examples: str = "") -> Callable[[Callable[..., int]], click.Command]:
    """Make a function a verb: its docstring is the description, its result the exit status."""
    return click.command(name, cls=Verb, short_help=summary, epilog=examples, context_settings=_CONTEXT)


# -- options ----------------------------------------------------------------------------------------------------------


def option(*names: str, type: Any = TEXT, default: Any = None, **settings: Any) -> Decorator[Any]:  # noqa: A002
    """An option with one value; it is refused when it is given twice. ``-k`` is also ``--k``."""
    names = ("-k", "--k") if names == ("-k",) else names
    defaults = () if default is None else (default,)
    return click.option(*names, cls=_Option, type=type, multiple=True, default=defaults, callback=_once, **settings)


def _once(ctx: click.Context, param: click.Parameter, values: tuple[Any, ...]) -> Any:
    if len(values) > 1:
        raise click.BadParameter("given twice, and only one counts", ctx, param)
    return values[0] if values else None


def options(*names: str, type: Any = TEXT, **settings: Any) -> Decorator[Any]:  # noqa: A002
    """An option that may be repeated; with ``greedy=True`` it also takes several values in a row."""
    return click.option(*names, cls=_Option, type=type, multiple=True, **settings)


def flag(*names: str, **settings: Any) -> Decorator[Any]:
    """An option without a value."""
    return click.option(*names, cls=_Option, is_flag=True, **settings)


def choice(*values: str) -> click.Choice[str]:
    """One of some words."""
    return click.Choice(values)


json_flag = flag("--json", "as_json", help="print JSON, for machines")


def metric_option(default: str, **settings: Any) -> Decorator[Any]:
    """``--metric``; ``default`` says what holds without it."""
    return option(
        "--metric",
        type=choice(*METRICS),
        help=f"the metric of distances (default: {default}). euclidean, cosine and inner-product rank features of "
        "length 1 (--normalize l2) alike, but not raw ones. Smaller distances are better: that of inner-product is "
        "minus the product",
        **settings,
    )


def extractor_options(section: str, *, layer: str) -> Decorator[Any]:
    """The options that say how features are taken from a model; ``layer`` says what holds without --layer."""
    declared = (
        options(
            "--layer",
            section=section,
            metavar="NAME",
            help=f"the layer whose output is the feature (default: {layer}); repeated: the outputs are put side by "
            "side",
        ),
        option(
            "--pooling",
            section=section,
            type=choice(*POOLINGS),
            help="how a convolutional layer is reduced to one number per channel; none (default) keeps every position",
        ),
        option(
            "--weights",
            section=section,
            metavar="FILE",
            help="a weights file of your own, or the published one: .weights.h5 or .h5",
        ),
        option(
            "--preprocessing",
            section=section,
            type=choice(*PREPROCESSINGS),
            help="of a .keras file: how pixels of 0 to 255 are scaled for it (default: none, the model does it itself);"
            " unit is 0 to 1, tf is -1 to 1, torch and caffe are those of keras.applications",
        ),
        option(
            "--input-size",
            section=section,
            metavar="PIXELS",
            type=COUNT,
            help="side of the images that the network sees, of a .keras file that takes any size and of "
            "EfficientNet-Lite (efficientnet-lite0: 224; 192 and 160 are faster and find a little less)",
        ),
    )

    def decorate(function: Function) -> Function:
        for declare in reversed(declared):
            function = declare(function)
        return function

    return decorate


_FILTERS = [
    options(
        "--label", metavar="LABEL", section="Filter", help="only images with this label; may be repeated: any of these"
    ),
    options(
        "--tag",
        metavar="TAG",
        section="Filter",
        help="only images in which the network sees this, right or wrong: see `searchengine tags`; may be repeated",
    ),
    options(
        "--folder",
        metavar="FOLDER",
        section="Filter",
        help="only images below this folder, as paths are shown; may be repeated",
    ),
    options(
        "--after",
        metavar="DAY",
        section="Filter",
        help="only images taken on this day or later: 2024-05-17, 2024-05 or 2024",
    ),
    options("--before", metavar="DAY", section="Filter", help="only images taken on this day or earlier"),
    options(
        "--format", metavar="FORMAT", section="Filter", help="only images of this format, such as JPEG; may be repeated"
    ),
    options("--camera", metavar="CAMERA", section="Filter", help="only images taken by this camera; may be repeated"),
    options("--min-width", metavar="PIXELS", section="Filter", help="only images of at least this width"),
    options("--max-width", metavar="PIXELS", section="Filter", help="only images of at most this width"),
    options("--min-height", metavar="PIXELS", section="Filter", help="only images of at least this height"),
    options("--max-height", metavar="PIXELS", section="Filter", help="only images of at most this height"),
    options("--ids", metavar="IDS", section="Filter", help="only these images: 3,4,5"),
]


def filter_options(function: Callable[..., int]) -> Callable[..., int]:
    """The options of a filter, named as in ``index.filters.FIELDS``; each has several texts."""
    for each in reversed(_FILTERS):
        function = each(function)
    return function


_MILVUS = "Milvus (of --index-dir milvus://HOST:PORT/COLLECTION; with the extra `milvus`)"
_RAY = "Several processes, on one machine or on many (with the extra `ray`)"
_SETTINGS: dict[str, Decorator[Any]] = {
    "index_dir": option(
        "--index-dir",
        metavar="DIR",
        type=INDEX_PLACE,
        help="the index folder, or milvus://HOST:PORT/COLLECTION (default: "
        "$SEARCHENGINE_INDEX_DIR, the first where it names several, or ./index)",
    ),
    "images_dir": option(
        "--images-dir",
        metavar="DIR",
        type=PATH,
        help="where the photos are now, if they have moved (default: $SEARCHENGINE_IMAGES_DIR)",
    ),
    "precision": option(
        "--precision",
        type=choice(*PRECISIONS),
        help="precision of the model; auto: bfloat16 if the processor has it, else float32 (default: "
        "$SEARCHENGINE_PRECISION, or auto)",
    ),
    "runtime": option(
        "--runtime",
        type=choice(*RUNTIMES),
        help="what runs the model; auto: OpenVINO, or Keras if there is a GPU (default: $SEARCHENGINE_RUNTIME, or "
        "auto)",
    ),
    "ray": option(
        "--ray",
        section=_RAY,
        metavar="auto|ADDRESS",
        help="have processes of Ray read and embed: of the cluster at that address (HOST:PORT), to which this machine "
        "belongs; auto: of the one that $RAY_ADDRESS names, or else of this machine alone (default: "
        "$SEARCHENGINE_RAY, or without Ray)",
    ),
    "ray_actors": option(
        "--ray-actors",
        section=_RAY,
        metavar="N",
        type=COUNT,
        help="so many processes, each with a model in memory (default: as many as there are processors for)",
    ),
    "ray_cpus": option("--ray-cpus", section=_RAY, metavar="N", type=COUNT, help="processors of each (default: 1)"),
    "ray_gpus": option(
        "--ray-gpus", section=_RAY, metavar="N", type=FRACTION, help="GPUs of each, or a part of one (default: 0)"
    ),
    "ray_store_mb": option(
        "--ray-store-mb",
        section=_RAY,
        metavar="MB",
        type=COUNT,
        help="shared memory for Ray where it is started for the run, in 10^6 bytes (default: 128)",
    ),
    "ann": option(
        "--ann",
        type=choice(*APPROXIMATE),
        help="quick, approximate search (FAISS): auto: where an exact search would take longer than 50 ms; on: always; "
        "off: never (default: $SEARCHENGINE_ANN, or auto)",
    ),
    "milvus_token": option(
        "--milvus-token",
        section=_MILVUS,
        metavar="TOKEN",
        help="USER:PASSWORD or an API key (better in $SEARCHENGINE_MILVUS_TOKEN, where other users do not see it)",
    ),
    "milvus_tls": flag("--milvus-tls", section=_MILVUS, help="encrypt the connection"),
    "milvus_timeout": option(
        "--milvus-timeout",
        section=_MILVUS,
        metavar="SECONDS",
        type=FRACTION,
        help="how long an answer may take before a page says that Milvus is away (default: 10)",
    ),
    "milvus_consistency": option(
        "--milvus-consistency",
        section=_MILVUS,
        type=choice(*CONSISTENCIES),
        help="how new what is read must be: strong waits for all that was written, a fifth of a second each time "
        "(default: bounded)",
    ),
    "milvus_index_type": option(
        "--milvus-index-type",
        section=_MILVUS,
        type=choice(*VECTOR_INDEXES),
        help="of a new collection (default: HNSW, the quickest, in memory; IVF_SQ8 takes a quarter of it; FLAT is "
        "exact)",
    ),
    "milvus_partitions": option(
        "--milvus-partitions",
        section=_MILVUS,
        metavar="N",
        type=COUNT,
        help="of a new collection, by image folder: searches within one of several image folders read less (default: "
        "none)",
    ),
    "bind": option(
        "--host", "bind", metavar="HOST", help="address to listen on (default: $BIND, or this machine only)"
    ),
    "port": option("--port", metavar="PORT", type=COUNT, help="port to listen on (default: $PORT, or 8000)"),
    "keep_location": flag(
        "--keep-location",
        help="send originals with the GPS position where they were taken (default: $SEARCHENGINE_KEEP_LOCATION, or "
        "without)",
    ),
    "threads": option(
        "--threads", metavar="N", type=COUNT, help="requests answered at a time (default: $THREADS, or 32)"
    ),
}
_INDEX_DIRS = options(
    "--index-dir",
    metavar="DIR",
    type=INDEX_PLACE,
    greedy=True,
    help="the index folder, or milvus://HOST:PORT/COLLECTION, or several (default: $SEARCHENGINE_INDEX_DIR, several of "
    "them separated by "
    f"{os.pathsep!r}, or ./index)",
)
MILVUS = ("milvus_token", "milvus_tls", "milvus_timeout", "milvus_consistency")  # how it is spoken to
NEW_IN_MILVUS = ("milvus_index_type", "milvus_partitions")
RAY = ("ray", "ray_actors", "ray_cpus", "ray_gpus", "ray_store_mb")
INDEX = ("index_dir", "images_dir")  # what opens an index
ENGINE = (*INDEX, "precision", "runtime")  # and the model of its extractor


def settings_options(*names: str, several: bool = False, only: bool = True) -> Decorator[Any]:
    """The options of some settings; the function gets ``settings``, in which flags override what is configured.

    Args:
        names: of the settings.
        several: whether --index-dir may name several folders.
        only: whether other settings may be wrong, because they are not used.
    """

    def decorate(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def run(**values: Any) -> int:
            from searchengine.settings import load_settings

            flags = {name: values.pop(name) or None for name in names}
            return function(settings=load_settings(flags, only=names if only else None), **values)

        for name in reversed(names):
            run = (_INDEX_DIRS if several and name == "index_dir" else _SETTINGS[name])(run)
        return run

    return decorate


def open_index(settings: Settings) -> Index:
    """The index that is asked for, without its model."""
    from searchengine.engine import open_index

    return open_index(settings.index_dir[0], images_dir=settings.images_dir, exact=settings.ann == "off")


def open_engine(settings: Settings, address: Address | None = None) -> SearchEngine:
    """The index that is asked for, or that at ``address``, with its extractor."""
    from searchengine.engine import SearchEngine

    return SearchEngine.open(
        address or settings.index_dir[0],
        images_dir=settings.images_dir,
        precision=settings.precision,
        runtime=settings.runtime,
        exact=settings.ann == "off",
    )
