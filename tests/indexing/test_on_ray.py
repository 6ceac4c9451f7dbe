"""Decisions of indexing on Ray that need no Ray; runs with Ray are in tests/torture/test_ray.py."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from searchengine.cli import offline_index
from searchengine.indexing.model import RunExtractor
from searchengine.indexing.options import IndexingOptions
from searchengine.indexing.ray_cluster import KnownContent
from searchengine.indexing.ray_executor import Actor, RayExecutor, Work
from searchengine.indexing.reading import Reading
from searchengine.indexing.scan import Candidate
from tests.fakes import FakeRecipe, Sentences, write_pictures


def test_hashes_are_known_whatever_their_last_bytes() -> None:
    hashes = {bytes(16), b"\1" * 16, b"\1" * 15 + b"\0", b"\xff" * 16}
    known = KnownContent(hashes)
    assert all(digest in known for digest in hashes)
    assert b"\2" * 16 not in known
    assert b"\1" * 14 + b"\0\1" not in known
    assert b"\2" * 16 not in KnownContent(())


def files(count: int) -> list[Candidate]:
    return [Candidate(0, b"%d" % i, b"/%d" % i, None, ()) for i in range(count)]


def actor() -> Actor:
    return Actor(handle=None, starting=None)


def give(work: Work, worker: Actor) -> list[int]:
    places = work.hand_out(worker)
    if places:
        worker.batches[object()] = work, places
    return places


def reading(candidate: Candidate) -> Reading:
    return Reading(candidate, None, None, vanished=True)


def test_readings_are_returned_in_order_and_a_bounded_number_is_handed_out() -> None:
    candidates = files(10)
    work = Work(candidates, size=2, ahead=6)
    first, second = actor(), actor()
    handed_out = [give(work, worker) for worker in (first, second, first, second)]
    assert handed_out == [[0, 1], [2, 3], [4, 5], []]
    work.complete([2, 3], [reading(candidates[2]), reading(candidates[3])])
    assert list(work.pop_ready()) == []
    work.complete([0, 1], [reading(candidates[0]), reading(candidates[1])])
    assert [reading.candidate for reading in work.pop_ready()] == candidates[:4]
    assert give(work, second) == [6, 7]


def test_files_of_a_worker_that_died_are_read_alone_and_skipped_after_the_third() -> None:
    candidates = files(4)
    work = Work(candidates, size=2, ahead=8)
    dead, other = actor(), actor()
    assert (give(work, dead), give(work, other)) == ([0, 1], [2, 3])
    work.record_death([0, 1])
    assert give(work, other) == []  # it still has another batch
    other.batches.clear()
    work.complete([2, 3], [reading(candidates[2]), reading(candidates[3])])
    assert (give(work, other), give(work, other)) == ([0], [])
    assert other.has_suspect
    other.batches.clear()
    work.record_death([0])
    assert give(work, other) == [1]
    other.batches.clear()
    work.complete([1], [reading(candidates[1])])
    assert give(work, other) == [0]
    work.record_death([0])
    skipped, *others = work.pop_ready()
    assert skipped.candidate == candidates[0]
    assert skipped.lost
    assert skipped.reason is not None
    assert [reading.candidate for reading in others] == candidates[1:]
    assert work.done


def test_a_worker_that_does_not_see_a_file_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, here=1)
    gone, here = (Candidate(0, name, bytes(tmp_path) + b"/" + name, None, ()) for name in (b"gone.png", b"here.png"))
    progress = Sentences()
    executor = RayExecutor(RunExtractor(FakeRecipe(), print), IndexingOptions(ray="auto"), "float32", progress)
    exceptions = SimpleNamespace(RayError=OSError)
    without_ray: Any = SimpleNamespace(ray=SimpleNamespace(kill=lambda handle: None, exceptions=exceptions))
    executor._cluster = without_ray
    blind, other = executor._actors = [actor(), actor()]
    work = Work([gone, here], size=1, ahead=2)
    assert (give(work, blind), give(work, blind)) == ([0], [1])
    for answer, candidate in zip([*blind.batches], (gone, here), strict=True):
        executor._handle(blind, answer, [reading(candidate)])
    assert executor._actors == [other]
    (sentence,) = progress.said
    assert sentence.startswith(f"A Ray worker was refused. It does not see {tmp_path}/here.png, which exists here.")
    assert [reading.candidate for reading in work.pop_ready()] == [gone]
    assert give(work, other) == [1]  # another worker reads it


def test_a_missing_ray_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "ray", missing)
    write_pictures(tmp_path, a=1)
    flags = ["--model", "efficientnet-lite0", "--index-dir", str(tmp_path / "index"), "--ray", "auto"]
    assert offline_index([str(tmp_path), *flags]) == 1
    assert "pip install 'searchengine[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "index").exists()
