"""``searchengine train``: labelled images -> a custom model whose distances follow the labels."""

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
Examples (photos has one subfolder per class):
  searchengine train photos --out photos.keras --backbone efficientnet-lite0   no download needed
  searchengine train photos --out photos.keras                                 ResNet50; downloads its weights once
  searchengine train photos --out photos.keras --triplets hard --dim 64 --views 4
  searchengine train photos --out photos.keras --split class                   measures classes not trained on
  searchengine train photos --out photos.keras --thaw conv5_block1_1_conv --learning-rate 1e-5
Then:
  searchengine index photos --model photos.keras --index-dir photos-index

docs/TRAINING.md explains each option, and what it gains.
"""


@verb("train", _EXAMPLES)
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True, type=PATH)
@option(
    "--out MODEL.keras",
    "Model to write. Beside it, a table of the epochs is written, and MODEL.training with the state of the run.",
    PATH,
    required=True,
)
@option(
    "--labels folder|FILE", "Source of the labels, as for `searchengine index` (default: folder).", default="folder"
)
@options("--exclude PATTERN", "Skip files and folders that match. Repeatable.")
@section(
    "Backbone",
    option(
        "--backbone --model NAME|FILE",
        "resnet50 (default); efficientnet-lite0, which is small and installed with the program; any other name that "
        "`searchengine models` lists; or a .keras file.",
        name="model",
        default="resnet50",
    ),
    *extractor_options("the layer before the classification; for a .keras file, the one before its last dense layer"),
    option("--thaw LAYER", "Train the backbone too, from this layer on (default: the backbone is frozen)."),
)
@section(
    "Training",
    option("--dim N", "Dimension of the embedding (default: 384).", COUNT),
    option("--margin M", "How much farther away a negative should be than a positive (default: 0.2).", click.FLOAT),
    option(
        "--triplets",
        "How to choose triplets. random: at random; semihard and hard: from batches of a few classes with a few images "
        "each, taking the nearest negative that is farther away than the positive, or the hardest negative of the "
        "batch (default: semihard).",
        choice("random", "semihard", "hard"),
    ),
    option(
        "--batch N",
        "Number of triplets per batch; for semihard and hard, number of images per batch (default: 32).",
        COUNT,
    ),
    option("--images-a-class K", "Images per class in a batch, for semihard and hard (default: 4).", COUNT),
    option("--learning-rate R", "Learning rate (default: 0.001).", click.FLOAT),
    option(
        "--weight-decay W",
        "How strongly each step pulls the weights back to their initial values (default: 1.0).",
        click.FLOAT,
    ),
    option(
        "--blend SHARE",
        "How far the model moves from the backbone (0) to what was learnt (1). 1 is best for the classes in the "
        "folder, less for searching other classes too (default: 0.4).",
        click.FLOAT,
    ),
    option("--dropout P", "Share of the numbers in a feature that each step drops (default: 0.0).", click.FLOAT),
    option(
        "--views N",
        "Number of augmented variants per image (crops, flips, colours), embedded once and drawn at random. With "
        "--thaw, any number above 0 makes a new variant at each step (default: 0).",
        click.INT,
    ),
    option(
        "--split",
        "What to hold out for validation: some images of each class, or all images of some classes (default: image).",
        choice("image", "class"),
    ),
    option("--validation SHARE", "Share to hold out for validation (default: 0.2).", click.FLOAT),
    option("--epochs N", "Maximum number of epochs (default: 60).", COUNT),
    option("--patience N", "Stop after this many epochs without a better mAP (default: 10).", COUNT),
    option("--seed N", "Seed for all randomness; the same seed gives the same run (default: 0).", click.INT),
)
@flag("--restart", "Start over, even if an interrupted run with this --out could be resumed.")
@settings_options("precision", "runtime")
@json_flag
def train(settings: Settings, images: tuple[Path, ...], out: Path, labels: str, as_json: bool, **flags: Any) -> None:
    """Train a custom model from labelled images.

    The model learns a metric, in which images of the same class are close together. It is a backbone whose last layer
    is replaced by a dense layer and L2 normalisation. It learns from triplets of an anchor, a positive of the same
    class and a negative of another, with the loss max(0, D(a, p) - D(a, n) + margin), where D is the squared distance.

    The backbone is frozen unless you use --thaw. Each image then passes through it only once, and training the new
    layer takes seconds. Some of the images are held out to measure the metric after each epoch, and the model of the
    epoch with the best mAP is written. To resume an interrupted run, run the same command again.
    """
    from searchengine.extractors import ExtractorOptions, spec_of
    from searchengine.learn.triplets.learner import Recipe, layer_before_last_dense
    from searchengine.learn.triplets.run import TrainingOptions, check_out, train_metric

    if labels == "none":
        raise click.UsageError("Training needs labels. Use --labels folder or --labels FILE.")
    check_out(out)
    backbone = ExtractorOptions(
        **_chosen(ExtractorOptions, flags),
        layer=flags["layer"] or layer_before_last_dense(flags["model"]),
        normalize="none",
        full_decode=True,  # as when the trained model is used
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
    """Return the given flags that are fields of a dataclass, except the layers."""
    names = {field.name for field in fields(kind)} - {"layer"}
    return {name: value for name, value in flags.items() if name in names and value is not None}


def _report(trained: Trained) -> list[str]:
    lines = [
        f"on {trained.validation} held-out images:       P@1     mAP   D(a,p) < D(a,n)",
        _row("before, the backbone alone", trained.before),
        _row(f"after, epoch {trained.best} of {trained.epochs[-1].number}", trained.after),
    ]
    if trained.best == 0:
        lines.append("No epoch improved the mAP, so the model is the backbone with a projection.")
    if trained.after.mean_average_precision < trained.before.mean_average_precision:
        lines.append(
            "The backbone alone finds more of the held-out images. Index with it, or train with more images per label."
        )
    if trained.skipped:
        lines.append(f"{len(trained.skipped)} files could not be used.")
    lines.append(f"{trained.model}: written in {trained.seconds:.0f} s, with a table of its epochs beside it")
    return lines


def _advice(recipe: Recipe, trained: Trained) -> str:
    """Explain what the scores mean for classes outside the folder, and which options help."""
    if recipe.split == "image":
        return (
            "These scores are for the classes in the folder. Other classes may be found slightly less well than by the "
            "backbone alone: --split class measures this, and a smaller --blend keeps more of what the backbone knows."
        )
    if trained.after.mean_average_precision > trained.before.mean_average_precision:
        return "These scores are for classes not trained on: they are found better than by the backbone alone."
    return (
        "These scores are for classes not trained on: they are not found better than by the backbone alone. Try a "
        f"--blend below {recipe.blend:g}, or index with the backbone."
    )


def _row(name: str, scores: Scores) -> str:
    return f"  {name:<30}{scores.precision:7.3f} {scores.mean_average_precision:7.3f} {scores.triplet_accuracy:17.3f}"
