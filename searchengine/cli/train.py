"""``searchengine train``: labelled images -> a model of your own whose distances follow the labels."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.cli.command import COUNT, PATH, choice, flag, json_flag, option, options, section, verb
from searchengine.cli.options import extractor_options, settings_options
from searchengine.cli.output import print_json, print_note, print_result
from searchengine.progress import Bar

if TYPE_CHECKING:
    from searchengine.learn.triplets.epochs import Scores
    from searchengine.learn.triplets.learner import Recipe
    from searchengine.learn.triplets.run import Trained
    from searchengine.settings import Settings

_EXAMPLES = """\
examples:
  searchengine train photos --out photos.keras --backbone efficientnet-lite0    no download; one subfolder a class
  searchengine train photos --out photos.keras                              ResNet50; fetches its weights once
  searchengine train photos --out photos.keras --triplets hard --dim 64 --views 4
  searchengine train photos --out photos.keras --split class                how good on classes never seen?
  searchengine train photos --out photos.keras --thaw conv5_block1_1_conv --learning-rate 1e-5
then:
  searchengine index photos --model photos.keras --index-dir photos-index

docs/TRAINING.md says what each flag does, and what it is worth.
"""


@verb("train", "learn a metric from labelled images: a model of your own", _EXAMPLES)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=PATH)
@option(
    "--out MODEL.keras",
    "the model to write; a table of its epochs comes beside it, and MODEL.training with the state of the run",
    PATH,
    required=True,
)
@option("--labels folder|FILE", "as for an index: a CSV with path and label, or COCO", default="folder")
@options("--exclude PATTERN", "leave out what matches; may be repeated")
@section(
    "The backbone",
    option(
        "--backbone --model NAME|FILE",
        "resnet50 (default); efficientnet-lite0: small, and installed with the program; any that `searchengine "
        "models` lists; or a .keras file",
        name="model",
        default="resnet50",
    ),
    *extractor_options("the one before the classification; of a .keras file the one before its last dense layer"),
    option("--thaw LAYER", "train the backbone too, from this layer on (default: it is frozen)"),
)
@section(
    "How it is learnt",
    option("--dim N", "numbers in an embedding (default: 384)", COUNT),
    option("--margin M", "how much farther a negative should be than a positive (default: 0.2)", click.FLOAT),
    option(
        "--triplets",
        "random ones; or mined in batches of a few classes with a few images each: the nearest negative that is "
        "farther than the positive, or the hardest of the batch (default: semihard)",
        choice("random", "semihard", "hard"),
    ),
    option("--batch N", "triplets per batch; if they are mined, images per batch (default: 32)", COUNT),
    option("--images-a-class K", "images of each class in a mined batch (default: 4)", COUNT),
    option("--learning-rate R", "(default: 0.001)", click.FLOAT),
    option("--weight-decay W", "pulls weights back to their start at each step (default: 1.0)", click.FLOAT),
    option(
        "--blend SHARE",
        "how far the model goes from the backbone (0) to what was learnt (1): 1 is best for the classes in the "
        "folder, less for searching other classes too (default: 0.4)",
        click.FLOAT,
    ),
    option("--dropout P", "share of the numbers in a feature that each step leaves out (default: 0.0)", click.FLOAT),
    option(
        "--views N",
        "augmentation: so many variants of each image (crops, flips, colours), embedded once and drawn at random; "
        "with --thaw, any number above 0 draws a fresh one at each step (default: 0)",
        click.INT,
    ),
    option(
        "--split",
        "hold back some images of each class, or all images of some classes (default: image)",
        choice("image", "class"),
    ),
    option("--validation SHARE", "share that is held back (default: 0.2)", click.FLOAT),
    option("--epochs N", "at most (default: 60)", COUNT),
    option("--patience N", "stop after so many epochs without a better mAP (default: 10)", COUNT),
    option("--seed N", "same seed, same run (default: 0)", click.INT),
)
@flag("--restart", "begin again where a run with this --out was begun")
@settings_options("precision", "runtime")
@json_flag
def train(settings: Settings, images: tuple[Path, ...], out: Path, labels: str, as_json: bool, **flags: Any) -> None:
    """Learn a metric from labelled images.

    The model is a backbone whose last layer is replaced by a dense layer and L2 normalisation, so that images of one
    class come to lie near each other. It learns from triplets: an anchor, a positive of the same class, a negative of
    another; the loss is max(0, D(a, p) - D(a, n) + margin), where D is the squared distance.

    The backbone is frozen unless --thaw says otherwise: each image goes through it once, and training the new layer
    takes seconds. Some of the images are held back to measure the metric after each epoch; the model of the epoch with
    the best mAP is written. A run that was stopped resumes with the same command.
    """
    from searchengine.extractors import ExtractorOptions, spec_of
    from searchengine.learn.triplets.learner import Recipe
    from searchengine.learn.triplets.network import layer_before_last_dense
    from searchengine.learn.triplets.run import TrainingOptions, check_out, train_metric

    if labels == "none":
        raise click.UsageError("--labels none leaves nothing to learn from.")
    check_out(out)
    backbone = ExtractorOptions(
        **_chosen(ExtractorOptions, flags),
        layer=flags["layer"] or layer_before_last_dense(flags["model"]),
        normalize="none",
        full_decode=True,  # as the trained model will be used
    )
    options = TrainingOptions(
        Recipe(**_chosen(Recipe, flags)),
        labels,
        flags["exclude"],
        backbone.weights_file,
        settings.precision,
        settings.runtime,
        flags["restart"],
    )
    with Bar(all_skipped="--json lists them all") as bar:
        trained = train_metric(images, out, spec_of(backbone), options, bar)
    if as_json:
        print_json({**asdict(trained), "model": str(trained.model)})
    else:
        print_result("\n".join(_report(trained)))
        print_note(_advice(options.recipe, trained))
        following = ["searchengine", "index", *map(str, images), "--model", str(out)]
        following += ["--labels", labels] if labels != "folder" else []
        print_note(f"next:\n  {shlex.join([*following, '--index-dir', f'{out.stem}-index'])}")


def _chosen(kind: type[Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that are fields of a dataclass, without those that take its default, and without the layers."""
    names = {field.name for field in fields(kind)} - {"layer"}
    return {name: value for name, value in flags.items() if name in names and value is not None}


def _report(trained: Trained) -> list[str]:
    lines = [
        f"on {trained.validation} held-back images:      P@1     mAP   D(a,p) < D(a,n)",
        _row("before, the backbone alone", trained.before),
        _row(f"after, epoch {trained.best} of {trained.epochs[-1].number}", trained.after),
    ]
    if trained.best == 0:
        lines.append("No epoch improved on the start, so the model is the backbone with a projection.")
    if trained.after.mean_average_precision < trained.before.mean_average_precision:
        lines.append(
            "The backbone alone finds more of the held-back images: index with it, or train with more images a label."
        )
    if trained.skipped:
        lines.append(f"{len(trained.skipped)} files could not be used.")
    lines.append(f"{trained.model}: written in {trained.seconds:.0f} s, with a table of its epochs beside it")
    return lines


def _advice(recipe: Recipe, trained: Trained) -> str:
    """What the scores say of other classes than those in the folder, and the flags for them."""
    if recipe.split == "image":
        return (
            "These scores are for the classes in the folder. Other classes may be found a little less well than by the "
            "backbone alone: --split class measures it, and a smaller --blend keeps more of what the backbone knows."
        )
    if trained.after.mean_average_precision > trained.before.mean_average_precision:
        return "These scores are for classes that were not learnt: they are found better than by the backbone alone."
    return (
        "These scores are for classes that were not learnt: they are not found better than by the backbone alone. Try "
        f"a --blend below {recipe.blend:g}, or index with the backbone."
    )


def _row(name: str, scores: Scores) -> str:
    return f"  {name:<30}{scores.precision:7.3f} {scores.mean_average_precision:7.3f} {scores.triplet_accuracy:17.3f}"
