"""Indexing a folder, beside a plain Keras loop and beside its own parts, all in turn in one run.

    python benchmarks/indexing.py                                     both models, generated photos
    python benchmarks/indexing.py --images-dir ~/Pictures             your own photos
    python benchmarks/indexing.py --model efficientnet-lite0 --images 50 --rounds 7

- *indexer*: `update_index` from the files to the committed index; the model is already loaded.
- *Keras loop*: as in tutorials: `load_img`, `preprocess_input`, `predict`, one image per call.
- *forward*: the same network on decoded pixels, in batches; no file is read.
- *decoding*: the files read, decoded and resized by as many threads as there are processors; no network.

"indexer / forward" is the part of the bare forward pass's speed that indexing reaches; "indexer / both" the part of
what forward pass and decoding allow when they share the same processors: 1 / (1 / forward + 1 / decoding).
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import vgg16
from measuring import Timing, Way, Work, closing, load_average, say, table, time_ways
from photos import write_photos

from searchengine.extractors import Extractor, ExtractorRecipe, make_spec

LITE = "efficientnet-lite0"
_TIMES = {"vgg16": 1, LITE: 10}  # as many photos
SIZES = {"vgg16": ("640x480", "4000x3000"), LITE: ("500x375", "4000x3000")}
_BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(_TIMES), default=list(_TIMES))
    parser.add_argument("--size", nargs="+", metavar="WxH", help="size of the generated photos")
    parser.add_argument(
        "--images",
        type=int,
        default=24,
        help="photos for VGG16; EfficientNet-Lite0 gets ten times as many (default: 24)",
    )
    parser.add_argument("--images-dir", type=Path, help="use the photos of this folder (JPEG, PNG) instead")
    parser.add_argument("--rounds", type=int, default=3)
    vgg16.add_flags(parser)
    options = parser.parse_args()
    if options.images_dir and not options.images_dir.is_dir():
        sys.exit(f"There is no folder {options.images_dir}. Without --images-dir, photos are generated.")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        vgg16.set_cache(options, folder)
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
                 "indexer / forward", "indexer / both", "peak of the indexer", "load"),
                rows,
            )
        )  # fmt: skip
        print("Images per second of wall time, in brackets per second of processor time; ratios are of wall time.\n")
        if set(options.model) == set(_TIMES):
            forward_alone(vgg16.weights(folder, options.weights), options.rounds)


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
        "forward": Way(forward, model, weights, count, load(model, weights).precision),
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
        f"**{statistics.median(possible(timings)):.2f}**",
        f"{ours.peak_mib:.0f} MiB" + (f" (Keras {keras.peak_mib:.0f})" if keras else ""),
        load_average(),
    )


def possible(timings: Mapping[str, Timing]) -> Iterator[float]:
    """Round by round, the part reached of what forward pass and decoding allow together."""
    rounds = (timings[name].walls for name in ("indexer", "forward", "decoding"))
    return ((forward + decoding) / indexer for indexer, forward, decoding in zip(*rounds, strict=True))


def rate(count: int, timing: Timing) -> str:
    """Images a second."""
    return f"{count / timing.wall:.1f} ({count / timing.processor:.1f})"


def forward_alone(weights: Path, rounds: int) -> None:
    """The two networks alone, in float32 and in the precision that is fastest here."""
    rows: list[tuple[object, ...]] = []
    for precision in sorted({"float32", load(LITE, None).precision}):
        ways = {"vgg16": Way(forward, "vgg16", weights, 16, precision), LITE: Way(forward, LITE, None, 512, precision)}
        say(f"forward passes in {precision}")
        with closing(ways):
            timings = time_ways(ways, max(5, rounds))
        vgg, lite = timings["vgg16"], timings[LITE]
        ratios = f"**{32 * vgg.over(lite):.1f}x**", f"{32 * vgg.processor_over(lite):.1f}x"
        rows += [(precision, "VGG16 fc2", rate(16, vgg), "", ""), (precision, LITE, rate(512, lite), *ratios)]
    print(table(("precision", "forward pass", "images/s", "EfficientNet-Lite0 / VGG16", "in processor time"), rows))


# -- the ways, each in its own process -------------------------------------------------------------------


def load(model: str, weights: Path | None, scaled: bool = False) -> Extractor:
    spec = make_spec(model, weights=weights or "imagenet", full_decode=False if scaled else None)
    return ExtractorRecipe(spec, weights_file=weights).load()


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


def forward(model: str, weights: Path | None, count: int, precision: str) -> Work:
    from searchengine.extractors.frameworks import import_openvino

    spec = make_spec(model, weights=weights or "imagenet")
    core = import_openvino().Core()
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    xml = ExtractorRecipe(spec, weights).export().xml
    compiled = core.compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    request = compiled.create_infer_request()
    batch = np.random.default_rng(0).integers(0, 256, (_BATCH, *spec.input_size, 3), dtype=np.uint8)

    def work() -> None:
        for start in range(0, count, _BATCH):
            request.infer({0: batch[: min(_BATCH, count - start)]}, share_inputs=True)

    return work


def decoding(model: str, photos: Path, scaled: bool) -> Work:
    from searchengine.extractors.extractor import preprocess

    spec = make_spec(model, full_decode=False if scaled else None)
    files = sorted(photos.iterdir())
    pool = ThreadPoolExecutor(os.cpu_count())

    def work() -> None:
        list(pool.map(lambda file: preprocess(spec, file.read_bytes()).pixels.shape, files))

    return work


if __name__ == "__main__":
    main()
