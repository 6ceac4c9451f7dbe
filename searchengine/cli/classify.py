"""``searchengine classify``: predict the labels of images, by learning from the labels of an index."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.cli.command import COUNT, ID, PATH, choice, flag, json_flag, option, options, verb
from searchengine.cli.options import ENGINE, open_engine, settings_options
from searchengine.cli.output import print_json, print_note, print_result, shown
from searchengine.cli.search import read_picture, same_file
from searchengine.errors import ImageError, IndexingError, LearningError, MissingPackageError, with_index_dir

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from searchengine.engine import SearchEngine
    from searchengine.index.protocol import Index
    from searchengine.learn import Classifier, FitReport, HeldOut, TrainingSet
    from searchengine.settings import Settings

_EXAMPLES = """\
Examples:
  searchengine classify --fit                    fit the classifier and measure it
  searchengine classify holiday.jpg cat.jpg
  searchengine classify --id 42 --id 43 --json
"""
_SHOWN = 3  # labels per image
_CONFUSIONS = 10


@verb("classify", _EXAMPLES)
@click.argument("images", metavar="[IMAGE]...", nargs=-1, type=PATH)
@options("--id ID", "Id of an image of the index. Repeatable.", ID, name="ids")
@flag("--fit", "Fit the classifier again, and report how good it is.")
@option(
    "--method",
    "Which predictions to make (default: both). The vote needs no fitting.",
    choice("both", "logistic", "vote"),
    default="both",
)
@option("-k K", "Number of neighbours that vote (default: 10).", COUNT, default=10)
@settings_options(*ENGINE)
@json_flag
def classify(
    settings: Settings, images: tuple[Path, ...], ids: tuple[int, ...], fit: bool, method: str, k: int, as_json: bool
) -> int:
    """Predict the labels of images.

    Two methods predict a label with its probability: logistic regression on the features, and a vote of the nearest
    labelled images. Both learn from the labels of the index (searchengine index --labels).

    The logistic regression is fitted when it is first needed, and kept in the index folder. --fit fits it again, for
    example after labels or images have changed, and reports how well it predicts images that it has not seen.
    """
    from searchengine.learn import training_set

    if not (images or ids or fit):
        raise click.UsageError("Give an IMAGE, an --id or --fit.")
    if fit and method == "vote":
        raise click.UsageError("--fit cannot be used with --method vote, which needs no fitting.")
    with closing(open_engine(settings)) as engine:
        data = training_set(engine.index)
        classifier = None
        if method != "vote":
            classifier = None if fit else _stored(engine.index)
            if classifier is None:
                classifier = _fitted(engine.index, data, k, required=fit or method == "logistic", report=fit)
        predictor = _Predictor(engine, data, classifier, k, vote=method != "logistic")
        answers = [*map(predictor.predict, ids), *map(predictor.predict, images)]
    if as_json:
        print_json({"classifier": None if classifier is None else _sheet(classifier), "images": answers})
    else:
        if fit and classifier is not None:
            _print_report(classifier.report)
        for answer in answers:
            _print_answer(answer)
    return 1 if any("error" in answer for answer in answers) else 0


def _stored(index: Index) -> Classifier | None:
    """Return the classifier stored with the index, or None."""
    from searchengine.learn import load_classifier

    classifier = load_classifier(index)
    if classifier is not None and classifier.stale:
        print_note(
            f"Labels or images have changed since the classifier was fitted ({classifier.report.fitted}). "
            f"Fit it again with: {with_index_dir('searchengine classify --fit', index.address)}"
        )
    return classifier


def _fitted(index: Index, data: TrainingSet, k: int, *, required: bool, report: bool) -> Classifier | None:
    """Fit a classifier and store it with the index; return None if that fails and it is not ``required``."""
    from searchengine.learn import fit_classifier, save_classifier

    start = time.perf_counter()
    print_note(f"Fitting on {len(data.ids)} labelled images ...")
    try:
        classifier = fit_classifier(data, neighbours=k)
    except (LearningError, MissingPackageError) as error:
        if required:
            raise
        print_note(f"{error} Until then, only the vote of the nearest images is used.")
        return None
    print_note(f"Fitted in {time.perf_counter() - start:.1f} s.")
    if not report and classifier.report.logistic is not None:
        print_note(
            f"On held-out images: {_accuracy(classifier.report.logistic)}. "
            f"For a full report: {with_index_dir('searchengine classify --fit', index.address)}"
        )
    try:
        save_classifier(index, classifier)
    except IndexingError as error:
        if report:
            raise
        print_note(f"The classifier is used, but could not be saved: {error}")
    return classifier


@dataclass(frozen=True, slots=True)
class _Predictor:
    """Predictions of labels by logistic regression, by the vote of k neighbours, or by both."""

    engine: SearchEngine
    data: TrainingSet
    classifier: Classifier | None
    k: int
    vote: bool

    def predict(self, image: int | Path) -> dict[str, Any]:
        """Return the predictions for an image, or the error that prevents them."""
        from searchengine.learn import predict_by_vote

        answer: dict[str, Any] = {"image": image if isinstance(image, int) else str(image)}
        try:
            id_, feature = self._read(image)
        except ImageError as error:
            print_note(str(error) if str(image) in str(error) else f"{image}: {error}")
            return {**answer, "error": str(error)}
        if isinstance(image, int):
            record = self.engine.record(image)
            answer |= {"path": record.path, "label": record.label}
        if self.classifier is not None:
            answer["logistic"] = [asdict(prediction) for prediction in self.classifier.predict(feature)]
            seen = id_ is not None and not self.classifier.stale and (self.data.ids == id_).any()
            answer["learnt_from_it"] = bool(seen)
        if self.vote:
            votes = predict_by_vote(self.data, feature, self.k, without=id_)
            answer["vote"] = [asdict(prediction) for prediction in votes]
        return answer

    def _read(self, image: int | Path) -> tuple[int | None, NDArray[Any]]:
        """Return the id of the image, if the index has it byte for byte, and its (1, d) feature."""
        index = self.engine.index
        if isinstance(image, int):
            return image, index.feature(image)[None]
        contents = read_picture(image, id_option="--id")
        feature = self.engine.embed(contents)
        matches = same_file(contents)
        return next((hit.id for hit in index.search(feature, 2)[0] if matches(hit)), None), feature


def _print_answer(answer: dict[str, Any]) -> None:
    if "error" in answer:  # already printed to stderr
        return
    name = f"{answer['image']}  {answer['path']}" if "path" in answer else str(answer["image"])
    print_result(shown(f"{name}  [{answer['label']}]" if answer.get("label") else name))
    if "logistic" in answer:
        seen = "  (it was trained on this image, so this is not a test)" if answer["learnt_from_it"] else ""
        print_result(f"  logistic regression  {_shares(answer['logistic'])}{seen}")
    if "vote" in answer:
        print_result(f"  nearest neighbours   {_shares(answer['vote'])}")


def _shares(predictions: list[dict[str, Any]]) -> str:
    return ", ".join(f"{shown(item['label'])} {item['probability']:.1%}" for item in predictions[:_SHOWN]) or "no vote"


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
