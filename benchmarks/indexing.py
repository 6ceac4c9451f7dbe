"""Indexing a folder, against what people would do instead and against its own parts, all in turn in one run.

    python benchmarks/indexing.py                                     both models, photos that are made up
    python benchmarks/indexing.py --images-dir ~/Pictures             your own photos
    python benchmarks/indexing.py --model compact --images 50 --rounds 7

- *indexer*: `update_index` from the files to the committed index, the model loaded already.
- *Keras loop*: what tutorials do: `load_img`, `preprocess_input`, `predict`, one image a call.
- *forward*: the same network on pixels that are ready, in batches; no file is read.
- *decoding*: the files read, decoded and resized by as many threads as there are processors; no network.

"indexer / forward" is the part of the bare forward pass's speed that is left when everything else is done too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import vgg16
from measuring import Timing, Way, Work, closing, load_average, say, table, time_ways
from photos import write_photos

from searchengine.extractors import Extractor, extractor_from_spec, make_spec

_TIMES = {"vgg16": 1, "compact": 10}  # as many photos
SIZES = {"vgg16": ("640x480", "4000x3000"), "compact": ("500x375",)}
_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=["vgg16", "compact"], default=["vgg16", "compact"])
    parser.add_argument("--size", nargs="+", metavar="WxH", help="of the photos that are made")
    parser.add_argument(
        "--images", type=int, default=24, help="for VGG16, and ten times as many for compact (default: 24)"
    )
    parser.add_argument("--images-dir", type=Path, help="take the photos of this folder (JPEG, PNG) instead")
    parser.add_argument("--rounds", type=int, default=3)
    vgg16.add_flags(parser)
    options = parser.parse_args()
    if options.images_dir and not options.images_dir.is_dir():
        sys.exit(f"There is no folder {options.images_dir}. Leave --images-dir out, and photos are made up.")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        vgg16.settle(options, folder)
        rows: list[tuple[object, ...]] = []
        for model in options.model:
            weights = vgg16.weights(folder, options.weights) if model == "vgg16" else None
            load(model, weights)  # exported once, for all
            count = options.images * _TIMES[model]
            for place, title in photo_folders(folder, options, model, count):
                rows.append(compare(folder, model, weights, place, title, options.rounds))
                if model == "vgg16" and not title.endswith("640 x 480"):
                    rows.append(compare(folder, model, weights, place, title, options.rounds, scaled=True))
        print(
            table(
                ("model", "photos", "indexer", "Keras loop", "forward", "decoding", "indexer / Keras loop",
                 "indexer / forward", "indexer / decoding", "peak of the indexer", "load"),
                rows,
            )
        )  # fmt: skip
        print("Images a second of wall time, in brackets a second of processor time; ratios are of wall time.\n")
        if set(options.model) == {"vgg16", "compact"}:
            forward_alone(folder, vgg16.weights(folder, options.weights), options.rounds)


def photo_folders(folder: Path, options: argparse.Namespace, model: str, count: int) -> list[tuple[Path, str]]:
    """Folders of photos and what to call them."""
    found = []
    if options.images_dir:
        place = folder / f"own-{model}"
        place.mkdir()
        files = sorted(f for f in options.images_dir.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
        for number, file in enumerate(files[:count]):
            shutil.copyfile(file, place / f"{number:05d}{file.suffix.lower()}")
        return [(place, f"{min(count, len(files))} of {options.images_dir.name}")]
    for size in options.size or SIZES[model]:
        width, height = map(int, size.split("x"))
        place = folder / f"{size}-{count}"
        if not place.exists():
            say(f"making {count} photos of {size} ...")
            write_photos(place, count, (width, height))
        found.append((place, f"{count} of {width} x {height}"))
    return found


def compare(
    folder: Path, model: str, weights: Path | None, photos: Path, title: str, rounds: int, *, scaled: bool = False
) -> tuple[object, ...]:
    """One row of the table."""
    count = len(list(photos.iterdir()))
    made = {
        "indexer": Way(indexer, model, weights, photos, folder / "indexes", scaled),
        "forward": Way(forward, model, weights, count),
        "decoding": Way(decoding, model, photos, scaled),
    }
    if model == "vgg16":
        made["keras"] = Way(keras_loop, weights, photos, environment=vgg16.QUIET)
    name = f"{model} --scaled-decoding" if scaled else model
    say(f"{name}, {title}")
    with closing(made):
        timings = time_ways(made, rounds)
    ours, keras = timings["indexer"], timings.get("keras")
    return (
        name,
        title,
        rate(count, ours),
        rate(count, keras) if keras else "",
        rate(count, timings["forward"]),
        rate(count, timings["decoding"]),
        f"**{1 / ours.over(keras):.2f}x**" if keras else "",
        f"**{1 / ours.over(timings['forward']):.2f}**",
        f"{1 / ours.over(timings['decoding']):.2f}",
        f"{ours.peak_mib:.0f} MiB" + (f" (Keras {keras.peak_mib:.0f})" if keras else ""),
        load_average(),
    )


def rate(count: int, timing: Timing) -> str:
    """Images a second."""
    return f"{count / timing.wall:.1f} ({count / timing.processor:.1f})"


def forward_alone(folder: Path, weights: Path, rounds: int) -> None:
    """The two networks, nothing around them."""
    made = {"vgg16": Way(forward, "vgg16", weights, 16), "compact": Way(forward, "compact", None, 512)}
    say("forward passes")
    with closing(made):
        timings = time_ways(made, max(5, rounds))
    vgg, compact = timings["vgg16"], timings["compact"]
    print(
        table(
            ("forward pass", "images/s", "compact / VGG16", "in processor time"),
            [
                ("VGG16 fc2", rate(16, vgg), "", ""),
                (
                    "compact",
                    rate(512, compact),
                    f"**{32 * vgg.over(compact):.1f}x**",
                    f"{32 * vgg.processor_over(compact):.1f}x",
                ),
            ],
        )
    )


# -- the ways; each is made in a process of its own -------------------------------------------------------------------


def load(model: str, weights: Path | None, scaled: bool = False) -> Extractor:
    spec = make_spec(model, weights=weights or "imagenet", full_decode=not scaled)
    return extractor_from_spec(spec, weights_file=weights)


def indexer(model: str, weights: Path | None, photos: Path, indexes: Path, scaled: bool) -> Work:
    from searchengine.indexing import update_index

    extractor = load(model, weights, scaled)
    extractor.embed(np.zeros((1, *extractor.spec.input_size, 3), dtype=np.uint8))
    numbers = itertools.count()

    def work() -> None:
        place = indexes / f"{os.getpid()}-{next(numbers)}"
        summary = update_index([photos], place, extractor=extractor)
        assert summary.embedded == len(list(photos.iterdir())), summary
        shutil.rmtree(place)

    return work


def keras_loop(weights: Path, photos: Path) -> Work:
    import keras
    from keras.applications.vgg16 import VGG16, preprocess_input

    full = VGG16(weights=None)
    full.load_weights(weights)
    model = keras.Model(full.input, full.get_layer("fc2").output)
    files = sorted(photos.iterdir())

    def work() -> None:
        features = []
        for file in files:
            pixels = keras.utils.img_to_array(keras.utils.load_img(file, target_size=(224, 224)))
            feature = model.predict(preprocess_input(pixels[None]), verbose=0)[0]
            features.append(feature / np.linalg.norm(feature))
        np.stack(features)

    return work


def forward(model: str, weights: Path | None, count: int) -> Work:
    from searchengine.extractors.preparing import exported_model

    from searchengine.extractors.frameworks import import_openvino

    spec = make_spec(model, weights=weights or "imagenet")
    precision = load(model, weights).precision
    core = import_openvino().Core()
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    xml = exported_model(spec, weights_file=weights).xml
    compiled = core.compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    request = compiled.create_infer_request()
    batch = np.random.default_rng(0).integers(0, 256, (_BATCH, *spec.input_size, 3), dtype=np.uint8)

    def work() -> None:
        for start in range(0, count, _BATCH):
            request.infer({0: batch[: min(_BATCH, count - start)]}, share_inputs=True)

    return work


def decoding(model: str, photos: Path, scaled: bool) -> Work:
    from searchengine.extractors.pixels import preprocess

    spec = make_spec(model, full_decode=not scaled)
    files = sorted(photos.iterdir())
    pool = ThreadPoolExecutor(os.cpu_count())

    def work() -> None:
        list(pool.map(lambda file: preprocess(spec, file.read_bytes())[1].shape, files))

    return work


if __name__ == "__main__":
    main()
