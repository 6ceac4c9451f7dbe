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
    choice,
    flag,
    option,
    options,
    section,
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


def metric_option(default: str) -> Decorator[Any]:
    """``--metric``; ``default`` says what holds without it."""
    return option(
        "--metric",
        f"the metric of distances (default: {default}). euclidean, cosine and inner-product rank features of "
        "length 1 (--normalize l2) alike, but not raw ones. Smaller distances are better: that of inner-product is "
        "minus the product",
        choice(*METRICS),
    )


def extractor_options(layer: str) -> tuple[Decorator[Any], ...]:
    """The options that say how features are taken from a model; ``layer`` says what holds without --layer."""
    return (
        options(
            "--layer NAME",
            f"the layer whose output is the feature (default: {layer}); repeated: the outputs are put side by side",
        ),
        option(
            "--pooling",
            "how a convolutional layer is reduced to one number per channel; none (default) keeps every position",
            choice(*POOLINGS),
        ),
        option("--weights FILE", "a weights file of your own, or the published one: .weights.h5 or .h5"),
        option(
            "--preprocessing",
            "of a .keras file: how pixels of 0 to 255 are scaled for it (default: none, the model does it itself);"
            " unit is 0 to 1, tf is -1 to 1, torch and caffe are those of keras.applications",
            choice(*PREPROCESSINGS),
        ),
        option(
            "--input-size PIXELS",
            "side of the images that the network sees, of a .keras file that takes any size and of "
            "EfficientNet-Lite (efficientnet-lite0: 224; 192 and 160 are faster and find a little less)",
            COUNT,
        ),
    )


# Named as in ``index.filters.FIELDS``; each has several texts.
filter_options = section(
    "Filter",
    options("--label LABEL", "only images with this label; may be repeated: any of these"),
    options(
        "--tag TAG",
        "only images in which the network sees this, right or wrong: see `searchengine tags`; may be repeated",
    ),
    options("--folder FOLDER", "only images below this folder, as paths are shown; may be repeated"),
    options("--after DAY", "only images taken on this day or later: 2024-05-17, 2024-05 or 2024"),
    options("--before DAY", "only images taken on this day or earlier"),
    options("--format FORMAT", "only images of this format, such as JPEG; may be repeated"),
    options("--camera CAMERA", "only images taken by this camera; may be repeated"),
    options("--min-width PIXELS", "only images of at least this width"),
    options("--max-width PIXELS", "only images of at most this width"),
    options("--min-height PIXELS", "only images of at least this height"),
    options("--max-height PIXELS", "only images of at most this height"),
    options("--ids IDS", "only these images: 3,4,5"),
)
_SETTINGS: dict[str, Decorator[Any]] = {
    "index_dir": option(
        "--index-dir DIR",
        "the index folder, or milvus://HOST:PORT/COLLECTION (default: "
        "$SEARCHENGINE_INDEX_DIR, the first where it names several, or ./index)",
        INDEX_PLACE,
    ),
    "images_dir": option(
        "--images-dir DIR", "where the photos are now, if they have moved (default: $SEARCHENGINE_IMAGES_DIR)", PATH
    ),
    "precision": option(
        "--precision",
        "precision of the model; auto: bfloat16 if the processor has it, else float32 (default: "
        "$SEARCHENGINE_PRECISION, or auto)",
        choice(*PRECISIONS),
    ),
    "runtime": option(
        "--runtime",
        "what runs the model; auto: OpenVINO, or Keras if there is a GPU (default: $SEARCHENGINE_RUNTIME, or auto)",
        choice(*RUNTIMES),
    ),
    "ray": option(
        "--ray auto|ADDRESS",
        "have processes of Ray read and embed: of the cluster at that address (HOST:PORT), to which this machine "
        "belongs; auto: of the one that $RAY_ADDRESS names, or else of this machine alone (default: "
        "$SEARCHENGINE_RAY, or without Ray)",
    ),
    "ray_actors": option(
        "--ray-actors N",
        "so many processes, each with a model in memory (default: as many as there are processors for)",
        COUNT,
    ),
    "ray_cpus": option("--ray-cpus N", "processors of each (default: 1)", COUNT),
    "ray_gpus": option("--ray-gpus N", "GPUs of each, or a part of one (default: 0)", FRACTION),
    "ray_store_mb": option(
        "--ray-store-mb MB",
        "shared memory for Ray where it is started for the run, in 10^6 bytes (default: 128)",
        COUNT,
    ),
    "ann": option(
        "--ann",
        "quick, approximate search (FAISS): auto: where an exact search would take longer than 50 ms; on: always; "
        "off: never (default: $SEARCHENGINE_ANN, or auto)",
        choice(*APPROXIMATE),
    ),
    "milvus_token": option(
        "--milvus-token TOKEN",
        "USER:PASSWORD or an API key (better in $SEARCHENGINE_MILVUS_TOKEN, where other users do not see it)",
    ),
    "milvus_tls": flag("--milvus-tls", "encrypt the connection"),
    "milvus_timeout": option(
        "--milvus-timeout SECONDS",
        "how long an answer may take before a page says that Milvus is away (default: 10)",
        FRACTION,
    ),
    "milvus_consistency": option(
        "--milvus-consistency",
        "how new what is read must be: strong waits for all that was written, a fifth of a second each time "
        "(default: bounded)",
        choice(*CONSISTENCIES),
    ),
    "milvus_index_type": option(
        "--milvus-index-type",
        "of a new collection (default: FLAT, which is exact; for hundreds of thousands of images IVF_FLAT or HNSW is "
        "quicker, and misses some of the nearest; IVF_SQ8 takes a quarter of their memory)",
        choice(*VECTOR_INDEXES),
    ),
    "milvus_index_params": option(
        "--milvus-index-params NAME=N",
        "of a new collection: nlist=1024 for IVF, M=16,efConstruction=200 for HNSW (default: nlist=512; "
        "M=30,efConstruction=360)",
    ),
    "milvus_search_params": option(
        "--milvus-search-params NAME=N",
        "of each search: nprobe=32 for IVF, ef=64 for HNSW, search_list=64 for DISKANN; more finds more, and takes "
        "longer (default: nprobe=64, all lists up to 50 000 images; ef=512; search_list=512)",
    ),
    "milvus_partitions": option(
        "--milvus-partitions N",
        "of a new collection, by image folder: searches within one of several image folders read less (default: none)",
        COUNT,
    ),
    "bind": option("--host HOST", "address to listen on (default: $BIND, or this machine only)", name="bind"),
    "port": option("--port PORT", "port to listen on (default: $PORT, or 8000)", COUNT),
    "keep_location": flag(
        "--keep-location",
        "send originals with the GPS position where they were taken (default: $SEARCHENGINE_KEEP_LOCATION, or without)",
    ),
    "threads": option("--threads N", "requests answered at a time (default: $THREADS, or 32)", COUNT),
}
_INDEX_DIRS = options(
    "--index-dir DIR",
    "the index folder, or milvus://HOST:PORT/COLLECTION, or several (default: $SEARCHENGINE_INDEX_DIR, several of "
    "them separated by "
    f"{os.pathsep!r}, or ./index)",
    INDEX_PLACE,
    greedy=True,
)
MILVUS = (
    "milvus_token",
    "milvus_tls",
    "milvus_timeout",
    "milvus_consistency",
    "milvus_search_params",
)  # to speak to it
NEW_IN_MILVUS = ("milvus_index_type", "milvus_index_params", "milvus_partitions")
RAY = ("ray", "ray_actors", "ray_cpus", "ray_gpus", "ray_store_mb")
_SECTIONS = {
    **dict.fromkeys(
        MILVUS + NEW_IN_MILVUS, "Milvus (of --index-dir milvus://HOST:PORT/COLLECTION; with the extra `milvus`)"
    ),
    **dict.fromkeys(RAY, "Several processes, on one machine or on many (with the extra `ray`)"),
}
INDEX = ("index_dir", "images_dir")  # what opens an index
ENGINE = (*INDEX, "precision", "runtime")  # and the model of its extractor


def settings_options(*names: str, several: bool = False, only: bool = True) -> Decorator[Any]:
    """The options of some settings; the function gets ``settings``, in which flags override what is configured.

    Args:
        names: of the settings.
        several: whether --index-dir may name several folders.
        only: whether other settings may be wrong, because they are not used.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**values: Any) -> Any:
            from searchengine.settings import load_settings

            flags = {name: values.pop(name) or None for name in names}
            return function(settings=load_settings(flags, only=names if only else None), **values)

        for name in reversed(names):
            declared = _INDEX_DIRS if several and name == "index_dir" else _SETTINGS[name]
            run = section(_SECTIONS.get(name, "Options"), declared)(run)
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
