"""Options shared by several commands, and the index that they name."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from searchengine.cli.command import (
    COUNT,
    INDEX_PLACE,
    NUMBER,
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

PRECISIONS = ("auto", "float32", "bfloat16")  # copies from ``settings``, whose import would load Pydantic for --help
CONSISTENCIES = ("strong", "bounded", "session", "eventually")
VECTOR_INDEXES = ("FLAT", "IVF_FLAT", "IVF_SQ8", "HNSW", "DISKANN", "AUTOINDEX")
RUNTIMES = ("auto", "openvino", "keras")
APPROXIMATE = ("auto", "off", "on")
POOLINGS = ("none", "avg", "max", "gem")
PREPROCESSINGS = ("none", "unit", "tf", "torch", "caffe")


def metric_option(default: str) -> Decorator[Any]:
    """Declare ``--metric``; ``default`` describes what applies without it."""
    return option(
        "--metric",
        f"Distance metric (default: {default}). A smaller distance is better; for inner-product, it is minus the "
        "product. euclidean, cosine and inner-product give the same order for features of length 1 (--normalize l2), "
        "but not for raw ones.",
        choice(*METRICS),
    )


def extractor_options(layer: str) -> tuple[Decorator[Any], ...]:
    """Declare how features are taken from a model; ``layer`` describes the default of --layer."""
    return (
        options(
            "--layer NAME",
            f"Layer whose output is the feature (default: {layer}). If repeated, the outputs are concatenated.",
        ),
        option(
            "--pooling",
            "How to reduce a convolutional layer to one number per channel; none (default) keeps every position.",
            choice(*POOLINGS),
        ),
        option("--weights FILE", "Your own weights file, or a copy of the published one (.weights.h5 or .h5)."),
        option(
            "--preprocessing",
            "For a .keras file: how to scale pixel values of 0 to 255. none (default): the model does it itself; "
            "unit: 0 to 1; tf: -1 to 1; torch and caffe: as in keras.applications.",
            choice(*PREPROCESSINGS),
        ),
        option(
            "--input-size PIXELS",
            "Side of the model's input images. For EfficientNet-Lite (efficientnet-lite0: 224; 192 and 160 are faster "
            "and find slightly less) and for .keras files that accept any size.",
            COUNT,
        ),
    )


_INDEX_DIR = option(
    "--index-dir DIR",
    "Index folder, or milvus://HOST:PORT/COLLECTION (default: the first one in $SEARCHENGINE_INDEX_DIR, or ./index).",
    INDEX_PLACE,
)
INDEX_FOLDER = option(  # for a command that does not support Milvus
    "--index-dir DIR", "Index folder (default: the first one in $SEARCHENGINE_INDEX_DIR, or ./index).", INDEX_PLACE
)
INDEX_DIRS = options(  # for a command that takes several indexes
    "--index-dir DIR",
    "One or more index folders or milvus://HOST:PORT/COLLECTION addresses (default: those in $SEARCHENGINE_INDEX_DIR, "
    f"separated by {os.pathsep!r}, or ./index).",
    INDEX_PLACE,
    greedy=True,
)
_SETTINGS: dict[str, Decorator[Any]] = {
    "images_dir": option(
        "--images-dir DIR", "Where the photos are now, if they have moved (default: $SEARCHENGINE_IMAGES_DIR).", PATH
    ),
    "precision": option(
        "--precision",
        "Precision of the model. auto: bfloat16 if the processor supports it, otherwise float32 (default: "
        "$SEARCHENGINE_PRECISION, or auto).",
        choice(*PRECISIONS),
    ),
    "runtime": option(
        "--runtime",
        "Library that runs the model. auto: OpenVINO, or Keras if there is a GPU (default: $SEARCHENGINE_RUNTIME, or "
        "auto).",
        choice(*RUNTIMES),
    ),
    "ray": option(
        "--ray auto|ADDRESS",
        "Read and embed images in Ray processes, on the cluster at ADDRESS (HOST:PORT) that this machine belongs to. "
        "auto: on the cluster at $RAY_ADDRESS, or else on this machine alone (default: $SEARCHENGINE_RAY, or no Ray).",
    ),
    "ray_actors": option(
        "--ray-actors N",
        "Number of processes; each holds a model in memory (default: as many as there are processors for).",
        COUNT,
    ),
    "ray_cpus": option("--ray-cpus N", "Processors per process (default: 1).", COUNT),
    "ray_gpus": option("--ray-gpus N", "GPUs per process; may be a fraction (default: 0).", NUMBER),
    "ray_store_mb": option(
        "--ray-store-mb MB", "Shared memory of Ray in MB, if this run starts it (default: 128).", COUNT
    ),
    "ann": option(
        "--ann",
        "Approximate search with FAISS. auto: where an exact search would take longer than 50 ms; on: always; off: "
        "never (default: $SEARCHENGINE_ANN, or auto).",
        choice(*APPROXIMATE),
    ),
    "milvus_token": option(
        "--milvus-token TOKEN",
        "USER:PASSWORD or an API key. $SEARCHENGINE_MILVUS_TOKEN is safer: other users of this machine cannot see it.",
    ),
    "milvus_tls": flag("--milvus-tls", "Encrypt the connection."),
    "milvus_timeout": option(
        "--milvus-timeout SECONDS", "How long to wait for a response from Milvus (default: 10).", NUMBER
    ),
    "milvus_consistency": option(
        "--milvus-consistency",
        "How up to date the data that is read must be. strong waits for all writes, about a fifth of a second each "
        "time (default: bounded).",
        choice(*CONSISTENCIES),
    ),
    "milvus_index_type": option(
        "--milvus-index-type",
        "Type of index for a new collection (default: FLAT, which is exact). For hundreds of thousands of images, "
        "IVF_FLAT or HNSW is faster but misses some of the nearest; IVF_SQ8 takes a quarter of their memory.",
        choice(*VECTOR_INDEXES),
    ),
    "milvus_index_params": option(
        "--milvus-index-params NAME=N",
        "Parameters of the index for a new collection: nlist=1024 for IVF; M=16,efConstruction=200 for HNSW (default: "
        "nlist=512; M=30,efConstruction=360).",
    ),
    "milvus_search_params": option(
        "--milvus-search-params NAME=N",
        "Parameters of each search: nprobe=32 for IVF; ef=64 for HNSW; search_list=64 for DISKANN. Higher values find "
        "more and take longer (default: nprobe=64, or all lists up to 50 000 images; ef=512; search_list=512).",
    ),
    "milvus_partitions": option(
        "--milvus-partitions N",
        "Split a new collection into N partitions by image folder, so that searches within one of several folders "
        "read less (default: none).",
        COUNT,
    ),
    "bind": option("--host HOST", "Address to listen on (default: $BIND, or this machine only).", name="bind"),
    "port": option("--port PORT", "Port to listen on (default: $PORT, or 8000).", COUNT),
    "keep_location": flag(
        "--keep-location",
        "Send photos with the GPS position where they were taken (default: $SEARCHENGINE_KEEP_LOCATION, or without).",
    ),
    "threads": option("--threads N", "Number of requests answered at a time (default: $THREADS, or 32).", COUNT),
}
# Groups of settings, by what needs them.
INDEX = ("index_dir", "images_dir")  # opening an index
ENGINE = (*INDEX, "precision", "runtime")  # and loading its model
MILVUS = ("milvus_token", "milvus_tls", "milvus_timeout", "milvus_consistency", "milvus_search_params")  # connecting
NEW_IN_MILVUS = ("milvus_index_type", "milvus_index_params", "milvus_partitions")  # creating a collection
RAY = ("ray", "ray_actors", "ray_cpus", "ray_gpus", "ray_store_mb")
_SECTIONS = {
    **dict.fromkeys(
        MILVUS + NEW_IN_MILVUS, "Milvus (for --index-dir milvus://HOST:PORT/COLLECTION; needs the extra `milvus`)"
    ),
    **dict.fromkeys(RAY, "Ray: several processes, on one machine or many (needs the extra `ray`)"),
}


def settings_options(*names: str, index_dir: Decorator[Any] = _INDEX_DIR, only: bool = True) -> Decorator[Any]:
    """Declare the options of these settings and pass the function one ``settings``, in which flags come first.

    Args:
        names: fields of ``Settings``.
        index_dir: the option for the setting of this name.
        only: whether to ignore invalid values of all other settings.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(**values: Any) -> Any:
            from searchengine.settings import load_settings

            flags = {name: values.pop(name) or None for name in names}
            return function(settings=load_settings(flags, only=names if only else None), **values)

        for name in reversed(names):
            declared = index_dir if name == "index_dir" else _SETTINGS[name]
            run = section(_SECTIONS.get(name, "Options"), declared)(run)
        return run

    return decorate


def open_index(settings: Settings) -> Index:
    """Open the index that the settings name, without its model."""
    from searchengine.engine import open_index

    return open_index(settings.index_dir[0], images_dir=settings.images_dir, exact=settings.ann == "off")


def open_engine(settings: Settings, address: Address | None = None) -> SearchEngine:
    """Open the index at ``address``, or else the one that the settings name, with its extractor."""
    from searchengine.engine import SearchEngine

    return SearchEngine.open(
        address or settings.index_dir[0],
        images_dir=settings.images_dir,
        precision=settings.precision,
        runtime=settings.runtime,
        exact=settings.ann == "off",
    )
