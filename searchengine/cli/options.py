"""The options that several verbs share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from searchengine.cli.command import (
    COUNT,
    FRACTION,
    INDEX_PLACE,
    PATH,
    Decorator,
    Function,
    choice,
    flag,
    option,
    options,
)
from searchengine.index.metrics import METRICS

if TYPE_CHECKING:
    from searchengine.address import Address
    from searchengine.engine import SearchEngine
    from searchengine.index.protocol import Index
    from searchengine.settings import Settings

PRECISIONS = ("auto", "float32", "bfloat16")  # as settings.Precision and Runtime, which would load Pydantic for --help
CONSISTENCIES = ("strong", "bounded", "session", "eventually")
VECTOR_INDEXES = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "DISKANN", "AUTOINDEX")
RUNTIMES = ("auto", "openvino", "keras")
APPROXIMATE = ("auto", "off", "on")
POOLINGS = ("none", "avg", "max", "gem")
PREPROCESSINGS = ("none", "unit", "tf", "torch", "caffe")


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
        help="of a new collection (default: FLAT, which is exact; for hundreds of thousands of images IVF_FLAT or HNSW "
        "is quicker, and misses some of the nearest; IVF_SQ8 takes a quarter of their memory)",
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
