"""``searchengine train``: labelled images -> a model of one's own whose distances follow the labels."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.cli.options import add_json, add_running, print_json, print_note, print_result, whole_number

if TYPE_CHECKING:
    from searchengine.learn.triplets.recipe import Recipe
    from searchengine.learn.triplets.run import Trained
    from searchengine.learn.triplets.validation import Scores

_DESCRIPTION = """\
Learn a metric from labelled images: a backbone whose last layer is replaced by a dense layer and L2 normalisation, so
that images of one class come to lie near each other. What is learnt from are triplets: an anchor, a positive of the
same class, a negative of another; the loss is max(0, D(a, p) - D(a, n) + margin), D the squared distance.

The backbone is frozen unless --thaw says otherwise: each image then goes through it once, and what learns is the new
layer, in seconds. A part of the images is held back; after each epoch it tells how good the metric is, and the epoch
with the best mAP is the model that is written. A run that was stopped goes on with the same command.
"""
_EPILOG = """\
examples:
  searchengine train photos --out photos.keras --backbone compact           no download; one subfolder a class
  searchengine train photos --out photos.keras                              ResNet50; fetches its weights once
  searchengine train photos --out photos.keras --triplets hard --dim 64 --views 4
  searchengine train photos --out photos.keras --split class                how good on classes never seen?
  searchengine train photos --out photos.keras --thaw conv5_block1_1_conv --learning-rate 1e-5
then:
  searchengine index photos --model photos.keras --index-dir photos-index

docs/TRAINING.md says what each flag does, and what it is worth.
"""


def add_verbs(verbs: Any) -> None:
    """Add ``train``."""
    parser = verbs.add_parser(
        "train",
        help="learn a metric from labelled images: a model of one's own",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=lambda options: act(parser, options))
    parser.add_argument("images", metavar="IMAGES", nargs="+", type=Path, help="a folder with a subfolder a class")
    parser.add_argument(
        "--out",
        metavar="MODEL.keras",
        type=Path,
        required=True,
        help="the model to write; a table of its epochs comes beside it, and MODEL.training with the state of the run",
    )
    parser.add_argument(
        "--labels", metavar="folder|FILE", default="folder", help="as for an index: a CSV with path and label, or COCO"
    )
    parser.add_argument(
        "--exclude", metavar="PATTERN", action="append", default=[], help="leave out what matches; may be repeated"
    )
    _add_backbone(parser)
    _add_recipe(parser)
    parser.add_argument("--restart", action="store_true", help="begin anew where a run with this --out was begun")
    add_json(parser)


def _add_backbone(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the backbone")
    group.add_argument(
        "--backbone",
        "--model",
        metavar="NAME|FILE",
        default="resnet50",
        help="resnet50 (default); compact: small, and shipped with the program; any that `searchengine models` lists; "
        "or a .keras file",
    )
    group.add_argument(
        "--layer",
        metavar="NAME",
        action="append",
        help="the layer after which the new one comes (default: the one before the classification; of a .keras file "
        "the one before its last dense layer)",
    )
    group.add_argument(
        "--pooling", choices=("none", "avg", "max", "gem"), default="none", help="of a layer with places"
    )
    group.add_argument("--weights", metavar="FILE", help="a weights file of one's own, or the published one")
    group.add_argument(
        "--preprocessing", choices=("none", "unit", "tf", "torch", "caffe"), help="of a .keras file (default: none)"
    )
    group.add_argument(
        "--input-size", metavar="PIXELS", type=whole_number, help="of a .keras file that takes pictures of any size"
    )
    group.add_argument(
        "--thaw", metavar="LAYER", help="let the backbone learn too, from this layer on (default: it is frozen)"
    )
    add_running(group)  # type: ignore[arg-type]


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    from searchengine.learn.triplets.recipe import SPLITS, TRIPLETS, Recipe

    usual = Recipe()
    group = parser.add_argument_group("how it is learnt")
    group.add_argument(
        "--dim", metavar="N", type=whole_number, default=usual.dim, help=f"numbers an embedding (default: {usual.dim})"
    )
    group.add_argument(
        "--margin",
        metavar="M",
        type=float,
        default=usual.margin,
        help=f"by how much a negative is to be farther than a positive (default: {usual.margin})",
    )
    group.add_argument(
        "--triplets",
        choices=TRIPLETS,
        default=usual.triplets,
        help="random ones; or mined in batches of a few classes with a few images each: the nearest negative that is "
        f"farther than the positive, or the hardest of the batch (default: {usual.triplets})",
    )
    group.add_argument(
        "--batch",
        metavar="N",
        type=whole_number,
        default=usual.batch,
        help=f"triplets a batch; of mined ones, images (default: {usual.batch})",
    )
    group.add_argument(
        "--images-a-class",
        metavar="K",
        type=whole_number,
        default=usual.images_a_class,
        help=f"in a batch that is mined (default: {usual.images_a_class})",
    )
    group.add_argument(
        "--learning-rate", metavar="R", type=float, default=usual.learning_rate, help="default: %(default)s"
    )
    group.add_argument(
        "--weight-decay",
        metavar="W",
        type=float,
        default=usual.weight_decay,
        help="pulls weights back to their start at each step (default: %(default)s)",
    )
    group.add_argument(
        "--blend",
        metavar="SHARE",
        type=float,
        default=usual.blend,
        help="how far the model goes from the backbone (0) to what was learnt (1): 1 is best for the classes in the "
        "folder, less for searching other classes too (default: %(default)s)",
    )
    group.add_argument(
        "--dropout",
        metavar="P",
        type=float,
        default=usual.dropout,
        help="share of a feature's numbers that each step leaves out (default: %(default)s)",
    )
    group.add_argument(
        "--views",
        metavar="N",
        type=int,
        default=usual.views,
        help="augmentation: so many variants of each image (crops, flips, colours), embedded once and drawn at random; "
        "with --thaw, any number above 0 draws a fresh one at each step (default: %(default)s)",
    )
    group.add_argument(
        "--split",
        choices=SPLITS,
        default=usual.split,
        help="hold back some images of each class, or all images of some classes (default: image)",
    )
    group.add_argument(
        "--validation",
        metavar="SHARE",
        type=float,
        default=usual.validation,
        help="how much is held back (default: %(default)s)",
    )
    group.add_argument(
        "--epochs", metavar="N", type=whole_number, default=usual.epochs, help="at most (default: %(default)s)"
    )
    group.add_argument(
        "--patience",
        metavar="N",
        type=whole_number,
        default=usual.patience,
        help="stop after so many epochs without a better mAP (default: %(default)s)",
    )
    group.add_argument("--seed", metavar="N", type=int, default=usual.seed, help="same seed, same run (default: 0)")


def act(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.extractors import make_spec, weights_file
    from searchengine.learn.triplets.network import layer_before_last_dense
    from searchengine.learn.triplets.recipe import Recipe
    from searchengine.learn.triplets.run import check_out, train_metric
    from searchengine.progress import Bar

    if options.labels == "none":
        parser.error("--labels none leaves nothing to learn from")
    recipe = Recipe(**{name: getattr(options, name) for name in Recipe.__dataclass_fields__})
    check_out(options.out)
    weights = options.weights or "imagenet"
    spec = make_spec(
        options.backbone,
        layer=options.layer or layer_before_last_dense(options.backbone),
        pooling=options.pooling,
        normalize="none",
        weights=weights,
        preprocessing=options.preprocessing,
        input_size=options.input_size,
    )
    with Bar(all_skipped="--json lists them all") as bar:
        trained = train_metric(
            options.images,
            options.out,
            spec,
            bar,
            recipe=recipe,
            weights_file=weights_file(weights, options.backbone),
            labels=options.labels,
            exclude=tuple(options.exclude),
            precision=options.precision,
            runtime=options.runtime,
            restart=options.restart,
        )
    if options.json:
        print_json({**asdict(trained), "model": str(trained.model)})
    else:
        print_result("\n".join(_report(trained)))
        print_note(_advice(recipe, trained))
        print_note(f"next:\n  {_next(options)}")
    return 0


def _report(trained: Trained) -> list[str]:
    lines = [
        f"on {trained.validation} held-back images:      P@1     mAP   D(a,p) < D(a,n)",
        _row("before, the backbone alone", trained.before),
        _row(f"after, epoch {trained.best} of {trained.epochs[-1].number}", trained.after),
    ]
    if trained.best == 0:
        lines.append("Nothing that was learnt made it better: the model is the start, the backbone and a projection.")
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
            "These scores are for the classes in the folder. To measure how well classes that are not in it are found, "
            "add --split class; a smaller --blend keeps more of what the backbone knows of them."
        )
    if trained.after.mean_average_precision > trained.before.mean_average_precision:
        return "These scores are for classes that were not learnt: they are found better than by the backbone alone."
    return (
        "These scores are for classes that were not learnt: they are not found better than by the backbone alone. Try "
        f"a --blend below {recipe.blend:g}, or index with the backbone."
    )


def _row(name: str, scores: Scores) -> str:
    return f"  {name:<30}{scores.precision:7.3f} {scores.mean_average_precision:7.3f} {scores.triplet_accuracy:17.3f}"


def _next(options: argparse.Namespace) -> str:
    words = ["searchengine", "index", *map(str, options.images), "--model", str(options.out)]
    if options.labels != "folder":
        words += ["--labels", options.labels]
    return shlex.join([*words, "--index-dir", f"{options.out.stem}-index"])
