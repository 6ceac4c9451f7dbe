"""Clusters, near-duplicates, and their contact sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from searchengine.analyse import duplicates, groups
from searchengine.analyse.duplicates import duplicates_of
from searchengine.analyse.groups import GROUPS, Clusters, GroupOptions, clusters_of, make_groups
from searchengine.analyse.rows import Rows, changes_since, principal_components, stamps_of
from searchengine.cli import main
from searchengine.errors import IndexingError, QueryError
from tests.analyse.filled import fill, rows_of
from tests.conftest import draw

pytest.importorskip("sklearn")


def blobs(sizes: list[int], *, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled points around centres that are far apart, and the centre of each."""
    random = np.random.default_rng(seed)
    middles = 40 * np.eye(len(sizes), 16)
    kinds = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (middles[kinds] + random.normal(0, spread, (len(kinds), 16))).astype(np.float32), kinds


@pytest.mark.parametrize("k", [4, None])
def test_clusters_recover_blobs(k: int | None) -> None:
    features, kinds = blobs([30, 50, 40, 15])
    clusters = clusters_of(features, k)
    assert clusters.count == 4
    # The largest first, and each of one kind only.
    assert np.bincount(clusters.numbers).tolist() == [50, 40, 30, 15]
    assert all(len(set(kinds[clusters.numbers == number])) == 1 for number in range(4))
    assert clusters.silhouette is not None
    assert clusters.silhouette > 0.7
    again = clusters_of(features, k)
    assert np.array_equal(again.numbers, clusters.numbers)


def test_many_rows_are_clustered_in_batches() -> None:
    features, kinds = blobs([8000, 7000, 6000])
    numbers = clusters_of(features, 3).numbers
    assert np.bincount(numbers).tolist() == [8000, 7000, 6000]
    assert len(set(zip(numbers.tolist(), kinds.tolist(), strict=True))) == 3


def test_more_clusters_than_rows_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchengine.analyse.groups._SAMPLE", 20)
    features, _ = blobs([30, 50, 40, 15])
    clusters = clusters_of(features, 4)
    assert clusters.silhouette is not None
    assert clusters.silhouette > 0.7  # of the clusters themselves
    assert clusters_of(features, 40).count == 40


def test_few_and_equal_images_are_one_cluster() -> None:
    for features in (np.zeros((1, 4), np.float32), np.ones((30, 4), np.float32), np.eye(2, 4, dtype=np.float32)):
        clusters = clusters_of(features)
        assert clusters.count == 1
        assert clusters.silhouette is None
    with pytest.raises(QueryError, match="must be from 1 to 2, the number of different images"):
        clusters_of(np.eye(2, 4, dtype=np.float32), 3)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("dimension", [3, 120])
@pytest.mark.parametrize(("held", "whole"), [(2**22, 8192), (1000, 100)])
def test_duplicates_equal_a_naive_loop(
    dimension: int, unit: bool, held: int, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_PRODUCTS", held)
    monkeypatch.setattr(duplicates, "_WHOLE", whole)  # above it, rows are sorted into cells
    random = np.random.default_rng(dimension)
    count = 540  # more than one block
    features = random.normal(size=(count, dimension)).astype(np.float32)
    features[500:530] = features[:30] + random.normal(0, 0.05, (30, dimension)).astype(np.float32) / dimension**0.5
    features[200:230] = features[5]  # many that are equal
    rows = Rows(features, np.arange(1, count + 1), np.arange(count), unit)
    compared = features / np.linalg.norm(features, axis=1, keepdims=True) if unit else features
    scale = float(np.sqrt((compared.astype(np.float64) ** 2).sum(axis=1).mean()))
    for threshold in (0.0, 0.04, 0.3):
        reduction = principal_components(rows)
        result = duplicates_of(rows, reduction.project(rows), threshold)
        assert result.limit == pytest.approx(threshold * scale)
        expected = naive_groups(compared.astype(np.float64), threshold * scale)
        groups = {frozenset(np.flatnonzero(result.numbers == number).tolist()) for number in range(result.count)}
        assert groups == expected
        sizes = np.bincount(result.numbers[result.numbers >= 0])
        assert (np.diff(sizes) <= 0).all()


def test_cells_without_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(np.repeat(blobs([4, 4])[0], 2, axis=0))
    reduced = principal_components(rows).project(rows)
    monkeypatch.setattr(duplicates, "_centres", lambda reduced: np.repeat(reduced[::4], 2, axis=0))
    assert duplicates_of(rows, reduced, 1e-3).count == 8


def test_a_large_group_needs_few_rows_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_PRODUCTS", 640)
    rows = rows_of(np.ones((700, 8), dtype=np.float32))
    reduction = principal_components(rows)
    reduced = reduction.project(rows)
    taken: list[int] = []
    take = Rows.take

    def counted(self: Rows, chosen: Any) -> Any:
        block = take(self, chosen)
        taken.append(0 if isinstance(chosen, slice) else len(block))
        return block

    monkeypatch.setattr(Rows, "take", counted)
    result = duplicates_of(rows, reduced)
    assert result.count == 1
    assert (result.numbers == 0).all()
    assert max(taken) <= 640 // 8
    assert sum(taken) < 3 * 700


def naive_groups(features: np.ndarray, limit: float) -> set[frozenset[int]]:
    """Connected by pairs within the limit: merge until nothing changes."""
    group = list(range(len(features)))
    for i in range(len(features)):
        for j in np.flatnonzero(np.linalg.norm(features[i + 1 :] - features[i], axis=1) <= limit) + i + 1:
            old, new = group[j], group[i]
            group = [new if g == old else g for g in group]
    members: dict[int, set[int]] = {}
    for i, g in enumerate(group):
        members.setdefault(g, set()).add(i)
    return {frozenset(group) for group in members.values() if len(group) > 1}


def test_groups_are_stored_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features, kinds = blobs([9, 7, 5])
    features[20], kinds[20] = features[19], kinds[19]
    images = tmp_path / "images"
    images.mkdir()
    names = [f"{at}.png" for at in range(21)]
    for at, name in enumerate(names[:-1]):  # one picture is missing
        draw(at, (60, 40)).save(images / name)
    index = fill(tmp_path / "index", features, images=images, names=names)
    made = make_groups(index, GroupOptions(k=3, threshold=1e-5, out=tmp_path / "out"))
    assert (made.images, made.clusters, made.duplicates, made.in_duplicates, made.sheets) == (21, 3, 1, 2, 4)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "cluster-0001.jpg",
        "cluster-0002.jpg",
        "cluster-0003.jpg",
        "duplicates-0001.jpg",
        "sheets.json",
    }
    with Image.open(tmp_path / "out" / "cluster-0001.jpg") as sheet:
        assert sheet.width > 8 * 160
    kept = GROUPS.load(index.folder)
    assert kept is not None
    assert kept.arrays["ids"].tolist() == list(range(1, 22))
    for number in range(3):
        assert len(set(kinds[kept.arrays["cluster"] == number])) == 1
    assert np.flatnonzero(kept.arrays["duplicate"] == 0).tolist() == [19, 20]
    index.close()
    assert main(["cluster", "--index-dir", str(tmp_path / "index"), "-k", "3"]) == 0
    assert "21 images in 3 clusters" in capsys.readouterr().out
    assert main(["cluster", "--index-dir", str(tmp_path / "index"), "-k", "30"]) == 1
    assert main(["cluster", "--index-dir", str(tmp_path / "index"), "--threshold", "9"]) == 1
    assert "The threshold must be" in capsys.readouterr().err


def test_changes_during_the_computation_count_as_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = blobs([6, 5])
    index = fill(tmp_path / "index", features)

    def slowly(*args: Any, **options: Any) -> Clusters:
        features[3] += 1
        fill(tmp_path / "index", features).close()
        return clusters_of(*args, **options)

    monkeypatch.setattr(groups, "clusters_of", slowly)
    make_groups(index, GroupOptions(k=2))
    kept = GROUPS.load(index.folder)
    assert kept is not None
    rows = Rows.of(index.state())
    changes = changes_since(kept.sheet, kept.arrays, rows, stamps_of(index, rows))
    assert changes == "Since it was made, 1 picture was changed."
    index.close()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_an_invalid_seed_is_refused_before_the_work(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    index = fill(tmp_path / "index", blobs([4, 4])[0])
    monkeypatch.setattr(groups, "principal_components", None)  # what takes long
    with pytest.raises(QueryError, match="The seed must be a whole number from 0 to 4294967295"):
        make_groups(index, GroupOptions(k=2, seed=seed))
    index.close()


def test_cosine_compares_directions(tmp_path: Path) -> None:
    features = np.repeat(np.eye(4, 8, dtype=np.float32), 2, axis=0)
    features[1::2] *= 7
    for metric, pairs in (("cosine", 4), ("euclidean", 0)):
        index = fill(tmp_path / metric, features, metric=metric)
        assert make_groups(index, GroupOptions(k=1)).duplicates == pairs


def test_rows_are_ordered_by_id() -> None:
    rows = rows_of(np.arange(20, dtype=np.float32).reshape(10, 2))
    assert np.array_equal(np.concatenate([block for _, block in rows.blocks()]), rows.take(slice(None)))


def test_sheets_of_an_earlier_run_are_deleted_and_no_other_file(tmp_path: Path) -> None:
    features, _ = blobs([6, 5, 4])
    features[14] = features[13]
    index = fill(tmp_path / "index", features)
    out = tmp_path / "out"
    make_groups(index, GroupOptions(k=12, threshold=1e-5, out=out))
    assert len(list(out.glob("cluster-*.jpg"))) == 12
    Image.new("RGB", (9, 9)).save(out / "cluster-99.jpg")  # a file of the user
    (out / "cluster-0012 kept.jpg").write_bytes((out / "cluster-0012.jpg").read_bytes())
    assert make_groups(index, GroupOptions(k=2, threshold=0, out=out)).sheets == 3
    expected = {"cluster-0001.jpg", "cluster-0002.jpg", "duplicates-0001.jpg"}
    own = {"cluster-99.jpg", "cluster-0012 kept.jpg"}
    assert {file.name for file in out.iterdir()} == expected | own | {"sheets.json"}
    index.close()


def test_a_file_in_place_of_the_folder_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = fill(tmp_path / "index", blobs([4, 4])[0])
    monkeypatch.setattr(groups, "principal_components", None)  # what takes long
    (tmp_path / "x.jpg").write_text("")
    for out in (tmp_path / "x.jpg", tmp_path / "x.jpg" / "deeper"):
        with pytest.raises(IndexingError, match=r"x\.jpg is a file.* Name another folder"):
            make_groups(index, GroupOptions(k=2, out=out))
    index.close()
