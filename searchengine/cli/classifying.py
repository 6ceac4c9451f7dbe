"""``searchengine classify``: images -> labels with their probabilities, learnt from the labels of an index."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchengine.cli.options import (
    add_images_dir,
    add_index_dir,
    add_json,
    add_running,
    print_json,
    print_note,
    print_result,
    whole_number,
)
from searchengine.cli.output import shown
from searchengine.cli.pictures import read_picture
from searchengine.errors import ImageError, IndexingError, LearningError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from searchengine.engine import SearchEngine
    from searchengine.index.local import LocalIndex
    from searchengine.learn import Classifier, FitReport, HeldOut, TrainingSet

_DESCRIPTION = """\
Say which label an image should have, with a probability: by logistic regression on the features, and by the vote of
the nearest labelled images. What is learnt are the labels of the index (searchengine index --labels).

The logistic regression is fitted at the first use and kept in the index folder; --fit fits it anew, for instance when
labels or images have changed, and reports how well it does on images that it has not seen.
"""
_EPILOG = """\
examples:
  searchengine classify --fit                    fit, and say how good it is
  searchengine classify holiday.jpg cat.jpg
  searchengine classify --id 42 --id 43 --json
"""
_SHOWN = 3  # labels an image
_CONFUSIONS = 10


def add_verbs(verbs: Any) -> None:
    """Add ``classify``."""
    parser = verbs.add_parser(
        "classify",
        help="say which label an image should have",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(act=lambda options: act(parser, options))
    parser.add_argument("images", metavar="IMAGE", nargs="*", type=Path, help="an image file")
    parser.add_argument(
        "--id", metavar="ID", type=whole_number, action="append", default=[], help="an image of the index, by its id"
    )
    parser.add_argument("--fit", action="store_true", help="fit the classifier anew and report on it")
    parser.add_argument(
        "--method",
        choices=("both", "logistic", "vote"),
        default="both",
        help="the vote alone needs no fitting (default: both)",
    )
    parser.add_argument("-k", metavar="K", type=whole_number, default=10, help="how many neighbours vote (default: 10)")
    add_index_dir(parser)
    add_images_dir(parser)
    add_running(parser)
    add_json(parser)


def act(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Run it."""
    from searchengine.engine import SearchEngine
    from searchengine.learn import training_set

    if not (options.images or options.id or options.fit):
        parser.error("name an image, or an --id, or --fit")
    if options.fit and options.method == "vote":
        parser.error("--fit fits the logistic regression; the vote needs no fitting")
    engine = SearchEngine.open(
        options.index_dir, images_dir=options.images_dir, precision=options.precision, runtime=options.runtime
    )
    try:
        data = training_set(engine.index)
        classifier = None if options.method == "vote" else _classifier(engine.index, data, options)
        told = [_tell(engine, data, classifier, one, options) for one in [*options.id, *options.images]]
    finally:
        engine.close()
    if options.json:
        print_json({"classifier": None if classifier is None else _sheet(classifier), "images": told})
    else:
        if options.fit and classifier is not None:
            _print_report(classifier.report)
        for one in told:
            _print_answer(one)
    return 1 if any("error" in one for one in told) else 0


def _classifier(index: LocalIndex, data: TrainingSet, options: argparse.Namespace) -> Classifier | None:
    """The one that is kept with the index, or a new one; None where the vote must do."""
    from searchengine.learn import fit_classifier, load_classifier, save_classifier

    kept = None if options.fit else load_classifier(index)
    if kept is not None:
        if kept.stale:
            print_note(
                f"Labels or images have changed since the classifier was fitted ({kept.report.fitted}). "
                f"Fit it again with: searchengine classify --fit --index-dir {index.folder}"
            )
        return kept
    start = time.perf_counter()
    print_note(f"Fitting on {len(data.ids)} labelled images ...")
    try:
        fitted = fit_classifier(data, neighbours=options.k)
    except LearningError as error:
        if options.fit or options.method == "logistic":
            raise
        print_note(f"{error} Until then, the vote of the nearest images must do.")
        return None
    print_note(f"Fitted in {time.perf_counter() - start:.1f} s.")
    if not options.fit and fitted.report.logistic is not None:
        print_note(
            f"On held-out images: {_accuracy(fitted.report.logistic)}. "
            f"More with: searchengine classify --fit --index-dir {index.folder}"
        )
    try:
        save_classifier(index, fitted)
    except IndexingError as error:
        if options.fit:
            raise
        print_note(f"It is used now, but could not be kept: {error}")
    return fitted


def _tell(
    engine: SearchEngine,
    data: TrainingSet,
    classifier: Classifier | None,
    image: int | Path,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What is said of one image: predictions, or why there are none."""
    from searchengine.learn import predict_by_vote

    told: dict[str, Any] = {"image": image if isinstance(image, int) else str(image)}
    own: int | None = None
    feature: NDArray[Any]
    try:
        if isinstance(image, int):
            own, feature = image, engine.index.feature(image)[None]
        else:
            contents = read_picture(image, by_id="--id")
            feature = engine.embed(contents)
            own = _same_bytes(engine, feature, contents)
    except ImageError as error:
        print_note(str(error) if str(image) in str(error) else f"{image}: {error}")
        return {**told, "error": str(error)}
    if isinstance(image, int):
        record = engine.record(image)
        told |= {"path": record.path, "label": record.label}
    if classifier is not None:
        told["logistic"] = [asdict(one) for one in classifier.predict(feature)]
        told["learnt_from_it"] = bool(own is not None and not classifier.stale and (data.ids == own).any())
    if options.method != "logistic":
        told["vote"] = [asdict(one) for one in predict_by_vote(data, feature, options.k, without=own)]
    return told


def _same_bytes(engine: SearchEngine, feature: NDArray[Any], data: bytes) -> int | None:
    """The id of the image that this file is, byte for byte, where the index holds it."""
    digest = blake2b(data, digest_size=16).hexdigest()
    nearest = engine.index.search(feature, 2)[0]
    return next((hit.id for hit in nearest if hit.record is not None and hit.record.content_hash == digest), None)


def _print_answer(told: dict[str, Any]) -> None:
    if "error" in told:  # said already, on stderr
        return
    name = f"{told['image']}  {told['path']}" if "path" in told else str(told["image"])
    print_result(shown(f"{name}  [{told['label']}]" if told.get("label") else name))
    if "logistic" in told:
        seen = "  (learnt from it, so this is no test)" if told["learnt_from_it"] else ""
        print_result(f"  logistic regression  {_shares(told['logistic'])}{seen}")
    if "vote" in told:
        print_result(f"  nearest neighbours   {_shares(told['vote'])}")


def _shares(predictions: list[dict[str, Any]]) -> str:
    return ", ".join(f"{shown(one['label'])} {one['probability']:.1%}" for one in predictions[:_SHOWN]) or "no vote"


def _accuracy(scores: HeldOut) -> str:
    return f"{scores.accuracy:.1%} right (95 % interval {scores.low:.1%} to {scores.high:.1%})"


def _print_report(report: FitReport) -> None:
    print_result(
        f"logistic regression on {report.images} labelled images ({report.unlabelled} without a label), "
        f"C = {report.regularization:g}"
    )
    for title, scores in (
        ("logistic regression", report.logistic),
        (f"vote of {report.neighbours} neighbours", report.vote),
    ):
        if scores is not None:
            print_result(
                f"  {title}, {report.folds} folds, {scores.images} images held out: {_accuracy(scores)}, "
                f"calibration error {scores.calibration_error:.3f}, Brier score {scores.brier:.3f}"
            )
    if report.logistic is not None:
        missed = [score for score in report.logistic.by_class if score.right < score.images]
        worst = sorted(missed, key=lambda score: score.right / score.images)[:_CONFUSIONS]
        listed = ", ".join(f"{shown(score.label)} {score.right}/{score.images}" for score in worst)
        print_result(f"  hardest labels: {listed or 'none, every held-out image was right'}")
        if report.logistic.confused:
            pairs = report.logistic.confused[:_CONFUSIONS]
            print_result(
                "  most confused: " + ", ".join(f"{shown(p.label)} as {shown(p.predicted)} {p.count}x" for p in pairs)
            )
    for note in report.notes:
        print_result(f"  note: {note}")


def _sheet(classifier: Classifier) -> dict[str, Any]:
    return {
        "classes": list(classifier.classes),
        "fingerprint": classifier.fingerprint,
        "version": classifier.version,
        "stale": classifier.stale,
        **asdict(classifier.report),
    }
