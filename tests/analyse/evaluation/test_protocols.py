"""Which images are queries, which are left out and why, figures by class, queries from a folder, comparisons."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from searchengine.analyse.evaluation import (
    EvaluationOptions,
    compare,
    evaluate_features,
    leave_one_out,
    query_folder,
    read_queries,
    to_json,
)
from searchengine.analyse.evaluation.report import as_text, render
from searchengine.analyse.evaluation.statistics import groups_of, margin, t_p
from searchengine.engine import open_index
from searchengine.errors import IndexingError, QueryError, UnknownNameError
from searchengine.index.types import Batch
from searchengine.index.writer import IndexWriter
from tests.analyse.evaluation.conftest import Make
from tests.fakes import FakeExtractor, picture

LINE = [[0.0], [1.0], [2.0], [10.0], [11.0], [1.5], [30.0], [31.0]]
TWO = EvaluationOptions(comparable=True)
LABELS = ["a", "a", "b", "b", "b", "", "c", "a"]


def test_leave_one_out_by_hand(indexed: Make) -> None:
    evaluation = leave_one_out(indexed("line", LINE, LABELS))
    counts = evaluation.counts
    assert (counts.collection, counts.labels, counts.queries) == (8, 3, 6)
    assert (counts.unlabelled, counts.irrelevant, counts.alone) == (1, 1, ("c",))
    assert evaluation.per_query.keys == ("0.png", "1.png", "2.png", "3.png", "4.png", "7.png")
    # nearest: 0 -> 1 right, 1 -> 1.5 none, 2 -> 1.5 none, 10 -> 11 right, 11 -> 10 right, 31 -> 30 wrong
    assert evaluation.figure("P@1").value == pytest.approx(3 / 6)
    # 0 ranks 1, 1.5, 2, 10, 11, 30, 31: right at 1 and 7
    assert evaluation.per_query.values[0, [f.name for f in evaluation.figures].index("mAP")] == pytest.approx(
        (1 + 2 / 7) / 2
    )
    assert evaluation.figure("P@10").ceiling == pytest.approx(0.2)
    assert [one.label for one in evaluation.classes] == ["a", "b"]
    worst = evaluation.classes[0]
    assert (worst.images, worst.queries) == (3, 3)
    assert worst.taken_for == "b"
    assert worst.taken_share == pytest.approx(9 / 21)  # three queries, seven places each, all three b among them
    assert evaluation.by_class.value == pytest.approx(np.mean([one.figure("mAP").value for one in evaluation.classes]))
    assert evaluation.curve[0] >= evaluation.curve[-1]


def test_agrees_with_plain_arrays_and_with_search(indexed: Make) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((60, 8)).astype(np.float32)
    labels = [str(one) for one in random.integers(0, 4, 60)]
    index = indexed("made", features.tolist(), labels)
    for metric in ("euclidean", "manhattan"):
        evaluation = leave_one_out(index, EvaluationOptions(metric=metric, recall_at=(3,)))
        plain = evaluate_features(features, labels, metric=metric, recall_at=(3,))
        assert {one.name: one.value for one in evaluation.figures} == pytest.approx(plain)
        right = []
        for row, feature in enumerate(features):
            hits = [hit for hit in index.search(feature, 11, metric)[0] if hit.path != f"{row}.png"][:10]
            right.append(sum(hit.label == labels[row] for hit in hits) / 10)
        assert evaluation.figure("P@10").value == pytest.approx(np.mean(right))


def test_intervals_hold_the_mean_and_repeat_with_the_seed(indexed: Make) -> None:
    random = np.random.default_rng(1)
    index = indexed("made", random.standard_normal((50, 3)).tolist(), [str(i % 3) for i in range(50)])
    one, again = leave_one_out(index), leave_one_out(index)
    other = leave_one_out(index, EvaluationOptions(seed=1))
    assert one.figures == again.figures
    assert one.classes == again.classes
    assert one.figure("mAP").low != other.figure("mAP").low
    for figure in one.figures:
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high


def test_removed_images_are_not_ranked(indexed: Make, tmp_path: Path) -> None:
    indexed("line", LINE, LABELS).close()
    with IndexWriter.open(tmp_path / "line") as writer:
        writer.commit(Batch(removed=[6, 8]))  # 1.5 and 31
    evaluation = leave_one_out(open_index(tmp_path / "line"))
    assert evaluation.counts.collection == 6
    assert evaluation.figure("P@1").value == pytest.approx(4 / 5)  # 1 -> 0 or 2: the tie goes to the first


def test_one_query_has_no_interval(indexed: Make) -> None:
    index = indexed("line", LINE, LABELS)
    assert all(one.figure("mAP").low is not None for one in leave_one_out(index).classes)
    alone = indexed("few", [[0.0], [1.0], [5.0]], ["a", "a", "b"])
    assert leave_one_out(alone).counts.alone == ("b",)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["", "", ""], "no label|has a label"),
        (["a", "a", "a"], "one label 'a'"),
        (["a", "b", "c"], "No two images"),
    ],
)
def test_nothing_to_measure(labels: list[str], message: str, indexed: Make) -> None:
    with pytest.raises(QueryError, match=message):
        leave_one_out(indexed("i", [[0.0], [1.0], [2.0]], labels))


def test_one_class_among_images_without_a_label_can_be_measured(indexed: Make) -> None:
    evaluation = leave_one_out(indexed("i", [[0.0], [1.0], [0.4]], ["a", "a", ""]))
    assert evaluation.figure("mAP").value == pytest.approx(0.5)
    assert evaluation.confused == ()  # nothing but images without a label is in the way


def test_no_such_metric(indexed: Make) -> None:
    with pytest.raises(UnknownNameError):
        leave_one_out(indexed("i", LINE, LABELS), EvaluationOptions(metric="cosin"))


# -- a folder of queries ----------------------------------------------------------------------------------------------


def write_queries(folder: Path, **colours: tuple[int, int, int]) -> Path:
    for name, colour in colours.items():
        file = folder / (name.replace("__", "/") + ".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(colour))
    return folder


def test_queries_from_a_folder(colours: Path, tmp_path: Path) -> None:
    folder = write_queries(
        tmp_path / "q",
        red__a=(255, 0, 0),
        blue__b=(1, 0, 254),
        green__c=(0, 255, 0),
        none=(9, 9, 9),
        red__d=(250, 0, 5),
    )
    (folder / "red" / "broken.png").write_bytes(b"no image")
    index = open_index(colours)
    evaluation = query_folder(index, read_queries(folder, FakeExtractor()))
    assert evaluation.counts.queries == 3
    assert (evaluation.counts.unlabelled, evaluation.counts.irrelevant, evaluation.counts.unreadable) == (1, 1, 1)
    assert evaluation.counts.alone == ("green",)
    assert evaluation.counts.copies == 1  # red/d has the bytes of photos/red/0.png, which is left out of its ranking
    assert evaluation.per_query.keys == ("blue/b.png", "red/a.png", "red/d.png")
    assert evaluation.figure("P@1").value == 1.0
    ceilings = dict(
        zip((one.name for one in evaluation.figures), (one.ceiling for one in evaluation.figures), strict=True)
    )
    assert ceilings["P@10"] == pytest.approx((4 + 4 + 3) / 30)
    index.close()


def test_unusable_query_folders(colours: Path, tmp_path: Path) -> None:
    index = open_index(colours)
    with pytest.raises(QueryError, match=r"has none of the labels.*green.*blue, red"):
        query_folder(index, read_queries(write_queries(tmp_path / "g", green__a=(0, 255, 0)), FakeExtractor()))
    with pytest.raises(QueryError, match="not in subfolders"):
        query_folder(index, read_queries(write_queries(tmp_path / "n", a=(0, 255, 0)), FakeExtractor()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(QueryError, match="holds no image"):
        read_queries(tmp_path / "empty", FakeExtractor())
    with pytest.raises((QueryError, IndexingError), match="does not exist"):
        read_queries(tmp_path / "nowhere", FakeExtractor())
    index.close()


# -- two of them ------------------------------------------------------------------------------------------------------


def two(indexed: Make, noise: float, *, seed: int = 2) -> tuple[float, str, str | None]:
    """Four classes in one index, and in another with noise of its own."""
    random = np.random.default_rng(2)
    labels = [str(i % 4) for i in range(80)]
    classes = np.eye(4)[np.arange(80) % 4]
    good = classes + 0.4 * random.standard_normal((80, 4))
    bad = classes + noise * np.random.default_rng(seed).standard_normal((80, 4))
    evaluation = [leave_one_out(indexed(name, x.tolist(), labels), TWO) for name, x in (("good", good), ("bad", bad))]
    (comparison,) = compare(evaluation)
    main = next(one for one in comparison.differences if one.name == "mAP")
    assert main.low < main.difference < main.high or main.low == main.high
    assert main.difference == pytest.approx(evaluation[1].figure("mAP").value - evaluation[0].figure("mAP").value)
    return main.p, comparison.sentence, comparison.better


def test_the_better_one_is_named(indexed: Make) -> None:
    p, sentence, better = two(indexed, 2.0)
    assert better == "good"
    assert p < 0.001
    assert re.match(
        r"good is better than bad on photos like these: mAP 0\.\d{3} before \(good\), 0\.\d{3} after \(bad\), "
        r"a difference of -0\.\d{3} \(95 % interval -0\.\d{3} to -0\.\d{3}, p < 0\.001\)\.$",
        sentence,
    )


def test_sentence_and_table_have_the_same_signs(indexed: Make) -> None:
    """A difference is after minus before, whichever of the two is better, in words, table, JSON and report."""
    labels = [str(i % 4) for i in range(80)]
    classes = np.eye(4)[np.arange(80) % 4]
    random = np.random.default_rng(0)
    before = leave_one_out(indexed("raw", (classes + 2 * random.standard_normal((80, 4))).tolist(), labels), TWO)
    after = leave_one_out(indexed("tuned", (classes + 0.4 * random.standard_normal((80, 4))).tolist(), labels), TWO)
    gain = after.figure("mAP").value - before.figure("mAP").value
    assert gain > 0.1
    for one, other, difference in ((before, after, gain), (after, before, -gain)):
        (comparison,) = compare([one, other])
        main = next(difference for difference in comparison.differences if difference.name == "mAP")
        assert comparison.better == "tuned"
        assert main.difference == pytest.approx(difference)
        assert main.low_here < difference < main.high_here
        lines = as_text([one, other], [comparison])
        assert f"{one.figure('mAP').value:.3f} before ({one.name}), " in comparison.sentence
        assert f"{other.figure('mAP').value:.3f} after ({other.name}), a difference of {difference:+.3f} (" in (
            comparison.sentence
        )
        assert f"  Before: {one.name}. After: {other.name}. The difference is after minus before." in lines
        (row,) = [line for line in lines if re.match(r"  mAP  .*p [<=]", line)]
        assert row.split()[1:4] == [f"{main.first:.3f}", f"{main.second:.3f}", f"{difference:+.3f}"]
        assert f"From {one.name} to {other.name}" in render([one, other], [comparison])


def test_no_class_is_called_hard_if_all_are_perfect(indexed: Make) -> None:
    evaluation = leave_one_out(indexed("easy", [[0.0], [0.1], [9.0], [9.1]], ["a", "a", "b", "b"]))
    assert evaluation.hardest == ()
    assert "No class is hard: mAP is 1 for each." in as_text([evaluation], [])
    assert "No label is hard: every ranking is perfect." in render([evaluation], [])


def test_a_difference_that_cannot_be_shown(indexed: Make) -> None:
    p, sentence, better = two(indexed, 0.4, seed=5)
    assert better is None
    assert p > 0.05
    assert sentence.startswith("No difference between good and bad can be shown: mAP 0.")


def test_the_same_twice_is_equally_good(indexed: Make) -> None:
    p, sentence, better = two(indexed, 0.4)
    assert (p, better) == (1.0, None)
    assert "equally good" in sentence


def test_three_queries_decide_nothing(indexed: Make) -> None:
    labels = ["a", "a", "a", "b", "b", "b"]
    good = indexed("good", [[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]], labels)
    bad = indexed("bad", [[0.0], [1.0], [2.0], [0.1], [1.1], [2.1]], labels)
    (comparison,) = compare([leave_one_out(good, TWO), leave_one_out(bad, TWO)])
    assert comparison.differences[0].difference == -1.0
    assert comparison.better in (None, "good")
    assert all(0 < one.p_here <= 1 for one in comparison.differences)


def test_few_photos_have_a_wide_interval_and_two_have_none(indexed: Make) -> None:
    random = np.random.default_rng(4)
    labels = ["a", "b"] * 4
    one, other = (indexed(name, random.standard_normal((8, 2)).tolist(), labels) for name in ("one", "other"))
    (comparison,) = compare([leave_one_out(one, TWO), leave_one_out(other, TWO)])
    main = next(difference for difference in comparison.differences if difference.name == "mAP")
    held = len({int(group) for group in groups_of([f"{i}.png" for i in range(8)])})
    assert main.low is not None
    half, one_error = np.array([main.difference - main.low]), margin(np.ones(1), held)
    assert t_p(np.array([main.difference]), half / one_error, held) == pytest.approx(main.p)
    pair = [indexed(name, [[0.0], [far], [1.0]], ["a", "a", "b"]) for name, far in (("near", 0.5), ("far", 2.0))]
    evaluations = [leave_one_out(index, TWO) for index in pair]
    (comparison,) = compare(evaluations)
    main = next(difference for difference in comparison.differences if difference.name == "mAP")
    assert (main.low, main.high, main.p, comparison.better) == (None, None, 1.0, None)
    assert main.difference < 0
    assert "too few photos for an interval" in comparison.sentence
    assert "nan" not in render(evaluations, [comparison])
    assert "nan" not in "".join(as_text(evaluations, [comparison]))
    json.dumps(to_json([comparison]), allow_nan=False)


def test_queries_are_matched_by_path(indexed: Make, tmp_path: Path) -> None:
    features = np.random.default_rng(3).standard_normal((12, 2)).tolist()
    more = leave_one_out(indexed("more", features, ["a", "b"] * 6), TWO)
    less = leave_one_out(indexed("less", features[:8], ["a", "b"] * 4), TWO)
    (comparison,) = compare([less, more])
    assert comparison.queries == 8
    assert any("4 queries that the other lacks" in note for note in comparison.notes)
    assert any("collections differ" in note for note in comparison.notes)
    assert len(compare([less, more, more])) == 3
    with pytest.raises(QueryError, match="comparable"):
        compare([more, leave_one_out(open_index(tmp_path / "more"))])


def test_as_json(indexed: Make) -> None:
    results = json.loads(json.dumps(to_json([leave_one_out(indexed("line", LINE, LABELS))])))
    assert results[0]["figures"][0]["name"] == "P@1"
    assert "per_query" not in results[0]


def test_a_measure_that_shows_the_opposite_is_reported(indexed: Make) -> None:
    # In one index, only the first places are right; in the other, only the later ones.
    random = np.random.default_rng(0)
    labels = [str(i % 3) for i in range(120)]
    of_class = np.eye(3)[np.arange(120) % 3]
    of_sorted = np.argsort(np.argsort(np.arange(120) % 3, kind="stable"))
    cliques = np.repeat(np.eye(24), 5, axis=0)[of_sorted]  # five of one class each, far from all others
    near = np.concatenate([4.0 * cliques, 0.01 * random.standard_normal((120, 3))], axis=1)
    far = of_class + 0.6 * random.standard_normal((120, 3))
    (comparison,) = compare(
        [
            leave_one_out(indexed("near", near.tolist(), labels), TWO),
            leave_one_out(indexed("far", far.tolist(), labels), TWO),
        ]
    )
    assert comparison.better == "far"
    assert any(note.startswith("By P@1") and "near is better" in note for note in comparison.notes)
