"""The map preserves neighbourhoods, is reproducible, and never moves an image that is on it."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from searchengine.analyse.groups import GROUPS, GroupOptions, make_groups
from searchengine.analyse.map import MAP, MapOptions, Settings, make_map, whole_map
from searchengine.analyse.rows import Rows, changes_since, principal_components, stamps_of
from searchengine.analyse.tsne import _neighbours, place_new, tsne
from searchengine.cli.main import main
from searchengine.engine import open_index
from searchengine.errors import IndexDamagedError, MissingPackageError, QueryError
from searchengine.index.local import LocalIndex
from searchengine.index.writer import IndexWriter
from searchengine.progress import QUIET
from searchengine.web.overview import cached_overview
from tests.analyse.filled import fill, rows_of
from tests.fakes import Sentences

pytest.importorskip("openTSNE")
QUICK = MapOptions(iterations=60)


def blobs(count: int, *, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    middles = np.random.default_rng(7).normal(0, 10, (3, 12))
    return (middles[np.arange(count) % 3] + random.normal(0, 1, (count, 12))).astype(np.float32)


@pytest.mark.slow
def test_neighbours_on_the_map_are_neighbours_of_the_digits() -> None:
    from sklearn.datasets import load_digits
    from sklearn.manifold import trustworthiness

    digits = load_digits().data.astype(np.float32)[:700]
    reduction, places = whole_map(rows_of(digits[:600]), Settings(iterations=300))
    assert trustworthiness(digits[:600], places, n_neighbors=10) >= 0.95
    new = place_new(reduction.project(rows_of(digits[600:])), reduction.project(rows_of(digits[:600])), places)
    assert trustworthiness(digits, np.vstack([places, new]), n_neighbors=10) >= 0.95


def test_same_seed_same_map() -> None:
    rows = rows_of(blobs(120))
    first, second, other = (whole_map(rows, Settings(iterations=60, seed=seed))[1] for seed in (3, 3, 4))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.allclose(first.max(axis=0), -first.min(axis=0), rtol=1e-4)  # the middle is (0, 0)


def test_new_images_do_not_move_the_others(tmp_path: Path) -> None:
    features = blobs(150)
    index = fill(tmp_path / "index", features[:120])
    made = make_map(index, QUICK)
    assert (made.whole, made.kept, made.images, made.placed) == (True, False, 120, 0)
    before = there(index)
    again = make_map(index)  # keeps the settings of the existing map
    assert (again.whole, again.kept, again.placed) == (True, True, 0)
    assert there(index) == before

    fill(tmp_path / "index", features)
    made = make_map(index)
    assert (made.whole, made.images, made.placed, made.of_those_fitted) == (False, 150, 30, 120)
    after = there(index)
    assert {id_: after[id_] for id_ in before} == before
    # Each new image is placed among its own kind, and its place does not depend on the other new images.
    middles = [np.mean([before[i + 1] for i in range(kind, 120, 3)], axis=0) for kind in range(3)]
    for i in range(120, 150):
        assert np.argmin(np.linalg.norm(middles - np.array(after[i + 1]), axis=1)) == i % 3
    reduction, places = whole_map(rows_of(features[:120]), Settings(iterations=60))
    alone, together = (
        place_new(reduction.project(rows_of(features[120:end])), reduction.project(rows_of(features[:120])), places)
        for end in (121, 150)
    )
    assert np.allclose(alone[0], together[0], atol=1e-4)

    assert make_map(index, MapOptions(seed=5)).whole
    assert there(index) != after
    assert make_map(index, MapOptions(rebuild=True)).of_those_fitted == 150


@pytest.mark.parametrize(("count", "queries"), [(40, None), (5000, None), (40, 7), (5, 5000)])
def test_neighbours_equal_a_naive_loop_with_any_number_of_threads(
    count: int, queries: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    rows = random.integers(0, 9, (count, 5)).astype(np.float32)  # many are equal
    of = None if queries is None else random.integers(0, 9, (queries, 5)).astype(np.float32)
    positions, distances = _neighbours(rows, 4, QUIET, of=of)
    for i in range(0, len(positions), 97):
        everything = np.linalg.norm(rows - (rows[i] if of is None else of[i]), axis=1)
        near = everything[positions[i]]
        if of is None:
            assert i not in positions[i]
            everything = np.delete(everything, i)
        assert near.tolist() == pytest.approx(np.sort(everything)[:4].tolist(), abs=1e-6)
        assert distances[i].tolist() == pytest.approx(near.tolist(), abs=1e-6)
    monkeypatch.setattr("searchengine.analyse.tsne.processors", lambda: 1)
    np.testing.assert_array_equal(positions, _neighbours(rows, 4, QUIET, of=of)[0])


def test_nearly_all_neighbours_of_many_rows_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchengine.analyse.tsne._EXACT", 0)
    random = np.random.default_rng(0)
    rows, of = (random.standard_normal((count, 6)).astype(np.float32) for count in (12_000, 40))
    for queries in (None, of):
        positions, distances = _neighbours(rows, 9, QUIET, of=queries)
        shares = []
        for i in range(0, len(positions), 1 + len(positions) // 50):
            everything = np.linalg.norm(rows - (rows[i] if queries is None else of[i]), axis=1)
            assert distances[i].tolist() == pytest.approx(everything[positions[i]].tolist(), abs=1e-3)
            if queries is None:
                assert i not in positions[i]
                everything[i] = np.inf
            shares.append(len({*np.argsort(everything)[:9]} & {*positions[i]}) / 9)
        assert np.mean(shares) >= 0.97


def test_a_large_collection_is_placed_around_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchengine.analyse.map.MOST_FITTED", 100)
    monkeypatch.setattr("searchengine.analyse.tsne._MANY_NEW", 40)
    index, progress = fill(tmp_path / "index", blobs(150)), Sentences()
    made = make_map(index, QUICK, progress)
    assert (made.whole, made.kept, made.images, made.placed, made.of_those_fitted) == (True, False, 150, 0, 100)
    assert progress.said[0].startswith("The layout is computed for 100 of the 150 images")
    assert not made.outgrown
    places = np.array([place for _, place in sorted(there(index).items())])
    middles = np.array([np.median(places[kind::3], axis=0) for kind in range(3)])
    nearest = np.linalg.norm(places[:, None] - middles, axis=2).argmin(axis=1)
    assert nearest.tolist() == [i % 3 for i in range(150)]
    assert make_map(index).kept


def test_changed_images_move_and_removed_ones_go(tmp_path: Path) -> None:
    features = blobs(60)
    index = fill(tmp_path / "index", features)
    make_map(index, QUICK)
    before = there(index)
    changed = features[:59].copy()
    changed[0] = features[1]
    fill(tmp_path / "index", changed, gone=[60])
    kept = MAP.load(index.folder)
    assert kept is not None
    rows = Rows.of(index.state())
    changes = changes_since(kept.sheet, kept.arrays, rows, stamps_of(index, rows))
    assert changes == "Since it was made, 1 picture was changed and 1 picture was removed."
    assert make_map(index).placed == 1
    after = there(index)
    assert sorted(after) == list(range(1, 60))
    assert {id_: after[id_] for id_ in range(2, 60)} == {id_: before[id_] for id_ in range(2, 60)}
    assert after[1] != before[1]
    mapped = MAP.load(index.folder)
    assert mapped is not None
    assert changes_since(mapped.sheet, mapped.arrays, rows, stamps_of(index, rows)) == ""
    another = dataclasses.replace(rows, fingerprint="another")
    assert "another extractor" in changes_since(kept.sheet, kept.arrays, another, stamps_of(index, rows))


def test_a_metric_that_compares_differently_needs_a_new_map(tmp_path: Path) -> None:
    """Features are scaled to length 1 for the cosine, and for no other metric."""
    index = fill(tmp_path / "index", blobs(30))
    make_map(index, QUICK)
    make_groups(index, GroupOptions(k=2))
    for metric, other in (("manhattan", False), ("cosine", True)):
        index.close()
        with IndexWriter.open(tmp_path / "index") as writer:
            writer.set({"metric": metric})
        index = open_index(tmp_path / "index")
        rows = Rows.of(index.state())
        for kept in (MAP.load(index.folder), GROUPS.load(index.folder)):
            assert kept is not None
            assert ("metric" in changes_since(kept.sheet, kept.arrays, rows, stamps_of(index, rows))) is other
        assert make_map(index, QUICK).kept is not other
    assert make_map(index, QUICK).kept
    index.close()


def test_a_map_of_removed_images_is_made_again(tmp_path: Path) -> None:
    features = blobs(24)
    make_map(fill(tmp_path / "index", features[:12]), QUICK)
    index = fill(tmp_path / "index", features)
    index = fill(tmp_path / "index", np.empty((0, 12), np.float32), gone=range(1, 13))
    made = make_map(index)
    assert (made.whole, made.images, made.of_those_fitted) == (True, 12, 12)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_few_images(tmp_path: Path, count: int) -> None:
    index = fill(tmp_path / "index", blobs(count))
    assert make_map(index, QUICK).images == count
    assert np.isfinite(np.array(list(there(index).values()))).all()
    fill(tmp_path / "index", blobs(count + 2))
    assert make_map(index).placed == 2
    assert np.isfinite(np.array(list(there(index).values()))).all()


def test_identical_images() -> None:
    same = np.ones((40, 6), dtype=np.float32)
    reduced = principal_components(rows_of(same)).project(rows_of(same))
    assert np.isfinite(tsne(reduced, perplexity=30, iterations=30, seed=0)).all()


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = fill(tmp_path / "it's mine", blobs(20))
    for options in (MapOptions(perplexity=0.5), MapOptions(iterations=1), MapOptions(seed=-1), MapOptions(seed=2**32)):
        with pytest.raises(QueryError):
            make_map(index, options)
    make_map(index, QUICK)
    MAP.path(index.folder).write_bytes(b"PK\x03\x04 no more than that")
    with pytest.raises(IndexDamagedError, match="compute it again: searchengine map") as damaged:
        MAP.load(index.folder)
    assert shlex.split(str(damaged.value).split("again: ")[1])[-2:] == [
        "--index-dir",
        str(index.folder),
    ]  # can be copied into a shell
    assert make_map(index, QUICK).whole  # a damaged map is made again
    assert not [file.name for file in index.folder.iterdir() if "part" in file.name]
    monkeypatch.setitem(__import__("sys").modules, "openTSNE", None)
    with pytest.raises(MissingPackageError, match=re.escape("pip install 'searchengine[map]'")):
        make_map(index, MapOptions(rebuild=True))


def test_a_perplexity_that_is_too_large_is_limited_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = fill(tmp_path / "index", blobs(31))
    arguments = ["map", "--index-dir", str(index.folder), "--iterations", "20"]
    assert main([*arguments, "--perplexity", "500"]) == 0
    note = "A perplexity of 500 needs at least 1501 images. This map of 31 was made with 10."
    assert note in capsys.readouterr().err
    assert make_map(index, MapOptions(perplexity=5, iterations=20)).perplexity == 5
    assert main([*arguments, "--perplexity", "5"]) == 0
    assert "perplexity" not in capsys.readouterr().err


def test_a_map_survives_writing_and_compaction(tmp_path: Path) -> None:
    features = blobs(40)
    index = fill(tmp_path / "index", features)
    make_map(index, QUICK)
    before = there(index)
    fill(tmp_path / "index", features[:25], gone=range(26, 41), compact=True)
    assert open_index(tmp_path / "index").state().features_file != "features.npy"
    make_map(index)
    assert there(index) == {id_: before[id_] for id_ in range(1, 26)}


def test_principal_components_equal_those_of_the_whole() -> None:
    random = np.random.default_rng(1)
    features = (random.normal(size=(300, 90)) * np.geomspace(10, 0.1, 90) + 5).astype(np.float32)
    reduction = principal_components(rows_of(features), dimensions=8)
    _, _, expected = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    assert np.abs(np.sum(reduction.components.T * expected[:8], axis=1)) == pytest.approx(np.ones(8), abs=1e-3)
    assert np.allclose(reduction.components.T @ reduction.components, np.eye(8), atol=1e-5)


def there(index: LocalIndex) -> dict[int, tuple[float, float]]:
    """Return the place of each image by its id."""
    kept = MAP.load(index.folder)
    assert kept is not None
    places = zip(kept.arrays["ids"].tolist(), kept.arrays["places"].tolist(), strict=True)
    return {id_: (x, y) for id_, (x, y) in places}


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan", "inner-product"])
def test_a_metric_that_the_map_cannot_use_is_reported(
    tmp_path: Path, metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index = fill(tmp_path / "index", blobs(30), metric=metric)
    other = metric in ("manhattan", "inner-product")
    remark = make_map(index, QUICK).remark
    assert (remark is not None) == other
    for verb in ("map", "cluster"):
        assert main([verb, "--index-dir", str(index.folder)]) == 0
        assert (f"The index is searched by {metric}, but" in capsys.readouterr().err) == other
    overview = cached_overview(index).get()
    assert (overview.remark, overview.map_note, overview.groups_note) == (remark or "", "", "")
