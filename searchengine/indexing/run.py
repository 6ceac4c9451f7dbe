"""One run: plan, read ahead, embed in batches, commit; then what is gone is taken out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchengine.errors import IndexDamagedError, IndexError_, IndexingError, IndexNotFoundError, IndexVersionError
from searchengine.extractors import Extractor
from searchengine.index import lock, metrics
from searchengine.index.catalog import now
from searchengine.index.metrics import check_metric
from searchengine.index.types import Batch, Known
from searchengine.index.writer import IndexWriter, run_note
from searchengine.indexing import rebuild, verify
from searchengine.indexing.labels import labels_from
from searchengine.indexing.model import RunExtractor, size_remark
from searchengine.indexing.options import IndexingOptions, Summary
from searchengine.indexing.pipeline import read, read_ahead
from searchengine.indexing.rebuild import GONE_AT_MOST, OldIds
from searchengine.indexing.roots import assign_roots
from searchengine.indexing.scan import Key, Plan, Root, check_folder, check_roots, make_plan
from searchengine.indexing.store import Store
from searchengine.progress import QUIET, Progress

PathLike = str | os.PathLike[str]

_COMMIT_ROWS = 2048
_OVERDUE = 5  # times the time between commits, and pictures wait no longer for a batch to be full


def update_index(
    images: PathLike | Sequence[PathLike],
    index_dir: PathLike = "index",
    *,
    options: IndexingOptions | None = None,
    extractor: Extractor | None = None,
    progress: Progress = QUIET,
    **flags: Any,
) -> Summary:
    """Make the index in ``index_dir`` hold what the image folders hold, embedding only content that is new.

        >>> searchengine.update_index("photos", "index", model="vgg16", exclude="*.png")    # doctest: +SKIP

    Args:
        images: an image folder, or several.
        index_dir: the index folder; made if it is missing.
        options: how the run is done.
        extractor: the extractor to use, instead of the one that the options or the index name.
        progress: told how far the run is.
        **flags: fields of ``IndexingOptions``, in place of those of ``options``.

    Raises:
        IndexingError: an image folder is missing or has changed its place, or the disk is full.
        IndexLockedError: another run is writing to the index.
        ExtractorMismatchError: the index was made by another extractor, and ``rebuild`` is off.
        IndexVersionError, IndexDamagedError: the index cannot be used, and ``rebuild`` is off.
        ExtractorError: the model cannot be had.
    """
    options = replace(options or IndexingOptions(), **flags)
    folder = Path(index_dir).expanduser()
    chosen = RunExtractor.of(extractor) if extractor is not None else RunExtractor.chosen(options, folder, progress)
    folders = [images] if isinstance(images, str | os.PathLike) else images
    return update_with(chosen, folders, folder, options, progress)


def update_with(
    extractor: RunExtractor,
    images: Sequence[PathLike],
    folder: Path,
    options: IndexingOptions,
    progress: Progress = QUIET,
) -> Summary:
    """``update_index`` with an extractor that is loaded only if there is something to embed."""
    started = time.monotonic()
    if not extractor.spec.embeds:
        raise IndexingError(
            f"The index in {folder} holds imported features, and no model is known that makes such. Choose another "
            "--index-dir, or give --model and --rebuild to put an index of the images in its place."
        )
    folders = check_roots(images)
    with lock.writing(folder, now()):
        run = _Run(folders, folder, extractor, options, progress)
        counts = run.rebuild() if options.rebuild else run.update()
    return Summary(**counts, seconds=round(time.monotonic() - started, 3))


class _Run:
    def __init__(
        self,
        folders: list[Path],
        index_dir: Path,
        extractor: RunExtractor,
        options: IndexingOptions,
        progress: Progress,
    ) -> None:
        self.folders = folders
        self.index_dir = index_dir
        self.extractor = extractor
        self.options = options
        self.progress = progress
        exclude = options.exclude
        self._excluded = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.before: verify.Recorded | None = None  # of the index that a rebuild takes the place of

    # -- the two ways -----------------------------------------------------------------------------------------------

    def update(self) -> dict[str, int]:
        """Bring the index up to date where it lies; where only the copy of a catalog is left, ids are taken from it."""
        writer: IndexWriter | None
        try:
            writer = IndexWriter.open(self.index_dir)
        except IndexNotFoundError:
            writer = None
        store = Store(self.index_dir, writer, OldIds.read(self.index_dir) if writer is None else None)
        try:
            if writer is not None:
                self.extractor.check_made(writer)
            counts = self._fill(store)
            store.back_up()
        finally:
            store.close()
        return counts

    def rebuild(self) -> dict[str, int]:
        """Make it anew beside the old one, which answers until the new one takes its place; ids stay."""
        old_ids = OldIds.read(self.index_dir)
        if old_ids.count and self.options.limit is not None:
            raise IndexingError(
                f"--limit looks at some of the files only, and a rebuild would drop the others of the {old_ids.count} "
                "indexed images. Leave one of the two out, or choose another --index-dir. Nothing was changed."
            )
        self.before = verify.recorded(self.index_dir)
        try:
            old = IndexWriter.open(self.index_dir)
        except IndexNotFoundError:
            there_was_one = old_ids.count > 0 or rebuild.begun(self.index_dir)
            return self._mend(old_ids) if there_was_one else self.update()
        except (IndexDamagedError, IndexVersionError) as error:
            return self._mend(old_ids, error)
        try:
            old.catalog.check()
        except IndexDamagedError as error:  # it could not be written to in the end
            old.close()
            return self._mend(old_ids, error)
        try:
            return self._beside(old_ids, lambda staged: self._take_over(old, staged))
        finally:
            old.close()

    def _mend(self, old_ids: OldIds, damage: IndexError_ | None = None) -> dict[str, int]:
        """In place of one that cannot be used, whose files are kept."""

        def put_in_place(staged: Path) -> None:
            if damage is not None:
                kept = rebuild.set_aside(self.index_dir)
                self.progress.say(f"{damage} What was left of it is kept in {kept}.")
            with rebuild.empty_like(staged, self.index_dir, old_ids.last) as writer:
                self._take_over(writer, staged)

        return self._beside(old_ids, put_in_place)

    @staticmethod
    def _take_over(writer: IndexWriter, staged: Path) -> None:
        writer.adopt(staged)
        writer.back_up()

    def _beside(self, old_ids: OldIds, put_in_place: Callable[[Path], None]) -> dict[str, int]:
        staged = rebuild.staging(self.index_dir, self.extractor.spec.fingerprint)
        store = Store(staged, rebuild.writer_there(staged, old_ids.last), old_ids)
        try:
            counts = self._fill(store)
        finally:
            store.close()
            rebuild.discard_empty(staged)
        if counts["images"]:
            if not self.options.prune:
                rebuild.check_whole(old_ids)
            put_in_place(staged)
        rebuild.discard(staged)
        return counts

    # -- what both do -----------------------------------------------------------------------------------------------

    def _fill(self, store: Store) -> dict[str, int]:
        """The run itself, top to bottom."""
        before = self.before
        choice = self.options.labels or store.manifest("labels") or (before and before.labels)
        labels = labels_from(choice or "folder")
        recorded = store.writer.roots() if store.writer else []
        roots = assign_roots(recorded, self.folders, relocate=self.options.relocate)
        known = store.known()
        plan = make_plan(
            roots,
            known,
            store.skipped(),
            labels=labels,
            exclude=self._excluded,
            skip=[self.index_dir.absolute()],
            limit=self.options.limit,
        )
        if store.old_ids is not None:
            store.old_ids.found = _files(plan, roots, known)
            if self.options.rebuild and not self.options.prune:
                rebuild.check_found(store.old_ids)
        metric = check_metric(
            self.options.metric or store.manifest("metric") or (before and before.metric) or metrics.EUCLIDEAN
        )
        store.begin(
            roots, lambda: {**self.extractor.manifest(), "metric": metric, "labels": labels.recorded}, plan.total
        )
        if store.writer is not None and (store.manifest("metric"), store.manifest("labels")) != (
            metric,
            labels.recorded,
        ):
            store.writer.set({"metric": metric, "labels": labels.recorded})  # neither changes a feature
        remark = labels.remark()
        if remark is not None and self.options.limit is None:
            self.progress.say(remark)
        remark = size_remark(self.extractor.spec, len(plan.candidates), self.index_dir)
        if remark is not None:
            self.progress.say(remark)
        for file in (*plan.unreadable, *plan.skipped):
            self.progress.skipped(_shown(file.path), file.reason)
        done = plan.total - len(plan.candidates)
        self.progress.start(plan.total, done)
        tally = _Tally(
            unchanged=plan.unchanged + len(plan.relabelled), skipped=len(plan.skipped) + len(plan.unreadable)
        )
        batch = Batch(seen=list(plan.relabelled), skipped=list(plan.unreadable))
        self._read_and_embed(store, plan, batch, tally, done)
        if tally.vanished:
            self.progress.say(
                f"{tally.vanished} new files were gone when they were to be read. If their disk went, bring it back "
                "and give the same command again."
            )
        self._take_out(store, plan, tally)
        return {**asdict(tally), "images": store.finish(plan.forgotten)}

    def _read_and_embed(self, store: Store, plan: Plan, batch: Batch, tally: _Tally, done: int) -> None:
        threads = self.options.threads or os.cpu_count() or 1
        gone = _by_content(plan.missing)
        pixels: list[NDArray[np.uint8]] = []
        size = max(1, self.options.batch_size)
        last_commit = time.monotonic()
        readings = read_ahead(
            plan.candidates, self.extractor.preprocess, store.known_content, threads=threads, ahead=2 * size + threads
        )
        for reading in readings:
            if store.has_lost(reading):
                reading = read(reading.candidate, self.extractor.preprocess, ())
            store.take(reading, batch, pixels, plan.missing, gone, tally)
            if reading.reason is not None:
                self.progress.skipped(_shown(reading.candidate.path), reading.reason)
            done += 1
            self.progress.advance(1)
            if len(pixels) >= size:
                self._embed(batch, pixels, store, tally)
            waited = time.monotonic() - last_commit
            if pixels and (waited > _OVERDUE * self.options.commit_seconds or len(batch) >= _COMMIT_ROWS):
                self._embed(batch, pixels, store, tally)  # among many files that need no model, few do
            late = waited > self.options.commit_seconds
            if not pixels and len(batch) and (late or len(batch) >= _COMMIT_ROWS):
                store.commit(batch, run_note(done, plan.total, store.started))
                last_commit = time.monotonic()
                batch = Batch()
        if pixels:
            self._embed(batch, pixels, store, tally)
        if len(batch):
            store.commit(batch, run_note(done, plan.total, store.started))

    def _embed(self, batch: Batch, pixels: list[NDArray[np.uint8]], store: Store, tally: _Tally) -> None:
        """n of (h, w, 3) uint8 -> (n, d) float32, into the places that wait for it."""
        store.place(batch, self.extractor.embed(pixels))
        tally.embedded += len(pixels)
        pixels.clear()

    def _take_out(self, store: Store, plan: Plan, tally: _Tally) -> None:
        """Remove what was not found, unless that is too much to be meant, or not all was looked at."""
        if self.options.limit is not None:
            return
        for folder in self.folders:
            check_folder(folder)  # once more: it may have gone while the run went on
        total = store.count()
        missing = len(plan.missing)
        if missing and missing > GONE_AT_MOST * total and not self.options.prune:
            tally.missing = missing
            how = "were not found, or left out by --exclude" if self.options.exclude else "were not found"
            self.progress.say(
                f"{missing} of {total} indexed images {how}, more than a fifth. They were kept: if they are really "
                "to go, give the same command with --prune."
            )
        elif missing:
            store.remove([image.id for image in plan.missing.values()])
            tally.removed = missing


@dataclass(slots=True)
class _Tally:
    added: int = 0
    changed: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: int = 0
    missing: int = 0
    vanished: int = 0
    embedded: int = 0


def _files(plan: Plan, roots: list[Root], known: dict[Key, Known]) -> set[bytes]:
    """The absolute paths of what is there."""
    folders = {root.id: bytes(root.folder) for root in roots}
    there = {os.path.join(folders[root], path) for root, path in known if (root, path) not in plan.missing}  # noqa: PTH118
    return there | {candidate.file for candidate in plan.candidates}


def _by_content(missing: dict[Key, Known]) -> dict[bytes, list[Key]]:
    found: dict[bytes, list[Key]] = {}
    for key, image in missing.items():
        found.setdefault(image.content_hash, []).append(key)
    return found


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "replace")
