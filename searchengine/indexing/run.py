"""An indexing run: plan, read ahead, embed in batches and commit; then remove images whose files are gone."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from searchengine.address import AnyAddress
from searchengine.derived import timestamp
from searchengine.errors import IndexDamagedError, IndexError_, IndexingError, IndexNotFoundError, IndexVersionError
from searchengine.extractors import Extractor, cache
from searchengine.images import DECODING, Walk
from searchengine.index import metrics
from searchengine.index.approximate import load_faiss
from searchengine.index.database import on_error
from searchengine.index.metrics import check_metric
from searchengine.index.protocol import Writer
from searchengine.index.storage import Storage, storage_of
from searchengine.index.types import Batch, IndexedImage, Place
from searchengine.index.writer import IndexWriter
from searchengine.indexing import rebuild, verify
from searchengine.indexing.changes import Changes, RunIndex
from searchengine.indexing.labels import FOLDER, labels_from
from searchengine.indexing.missing import Absence, check_whole, left_out_remarks, mounts_from_json
from searchengine.indexing.model import RunExtractor, decoding_remark, is_current
from searchengine.indexing.options import IndexingOptions, Summary
from searchengine.indexing.reading import Executor, LocalExecutor, read_shots
from searchengine.indexing.rebuild import OldIds
from searchengine.indexing.scan import (
    IndexContents,
    Plan,
    Root,
    after_exchange,
    assign_roots,
    check_folder,
    check_roots,
    joined,
    make_plan,
    matching_order,
    shown,
)
from searchengine.processors import processors
from searchengine.progress import QUIET, Progress

PathLike = str | os.PathLike[str]

_COMMIT_ROWS = 2048
_SHOTS_SECONDS = 10  # between commits of metadata: after each, readers with a filter reload the metadata of all images
_OVERDUE = 5  # pictures wait for a full batch no longer than this many times the time between commits


def update_index(
    images: PathLike | Sequence[PathLike],
    index_dir: AnyAddress = "index",
    *,
    options: IndexingOptions | None = None,
    extractor: Extractor | None = None,
    progress: Progress | None = None,
    **flags: Any,
) -> Summary:
    """Update the index in ``index_dir`` to match the image folders, embedding only new content.

        >>> searchengine.update_index("photos", "index", model="vgg16", exclude="*.png")    # doctest: +SKIP

    Args:
        images: one image folder, or several.
        index_dir: the index folder, or ``milvus://HOST:PORT/COLLECTION``; created if it is missing.
        options: the options of the run.
        extractor: the extractor to use, instead of the one that the options or the index name.
        progress: reports the progress of the run.
        **flags: fields of ``IndexingOptions``, which override those of ``options``.

    Raises:
        IndexingError: an image folder is missing or has moved, or the disk is full.
        IndexLockedError: another run is writing to the index.
        ExtractorMismatchError: the index was made by another extractor, and ``rebuild`` is off.
        IndexVersionError, IndexDamagedError: the index cannot be used, and ``rebuild`` is off.
        ExtractorError: the model is not available.
    """
    options, progress = replace(options or IndexingOptions(), **flags), progress or QUIET
    storage = storage_of(index_dir)
    chosen = RunExtractor.of(extractor) if extractor is not None else RunExtractor.chosen(options, storage, progress)
    folders = [images] if isinstance(images, str | os.PathLike) else images
    return update_with(chosen, folders, storage, options, progress)


def update_with(
    extractor: RunExtractor,
    images: Sequence[PathLike],
    storage: Storage,
    options: IndexingOptions,
    progress: Progress = QUIET,
) -> Summary:
    """Update an index, as ``update_index`` does, with an extractor that is loaded only when needed."""
    started = time.monotonic()
    if extractor.spec.is_imported:
        raise IndexingError(
            f"The index in {storage.address} holds imported features, and no model is known that makes such features. "
            "Choose another --index-dir, or give --model and --rebuild to replace it with an index of the images."
        )
    if options.rebuild and storage.no_rebuild:
        raise IndexingError(storage.no_rebuild)
    folders = check_roots(images)
    if options.ann == "on":
        load_faiss()  # if FAISS is missing, fail now rather than after hours
    with storage.writing(timestamp()):
        if storage.remark:
            progress.say(storage.remark)
        cache.note_use(extractor.spec, storage.folder)  # before the run, so that no other process clears the model
        run = _Run(folders, storage, extractor, options, progress)
        if options.rebuild:
            run.rebuild()
        else:
            run.update()
        extractor.keep_words(storage.folder)
        if run.counts["images"]:
            storage.update_derived(options.ann, progress)
    counts = {field.name: run.counts[field.name] for field in fields(Summary) if field.name != "seconds"}
    return Summary(**counts, seconds=round(time.monotonic() - started, 3))


class _Run:
    def __init__(
        self,
        folders: list[Path],
        storage: Storage,
        extractor: RunExtractor,
        options: IndexingOptions,
        progress: Progress,
    ) -> None:
        self.folders = folders
        self.storage = storage
        self.index_dir = storage.folder  # for an index in Milvus, its folder in the cache
        self.extractor = extractor
        self.options = options
        self.progress = progress
        self.counts: Counter[str] = Counter()  # by the fields of Summary
        self.replaced: verify.Recorded | None = None  # facts about the index that a rebuild replaces

    # -- update or rebuild ------------------------------------------------------------------------------------------

    def update(self) -> None:
        """Update the index in place. If only the backup of its catalog is left, ids are taken from that."""
        writer: Writer | None
        try:
            writer = self.storage.write(self.progress.say)
        except IndexNotFoundError:
            writer = None
        old_ids = OldIds.read(self.index_dir) if writer is None else None
        store = RunIndex(self.storage, writer, old_ids, self.progress.say)
        with closing(store):
            if writer is not None:
                self.extractor.check_made(writer)
            self._fill(store)
            store.back_up()

    def rebuild(self) -> None:
        """Build a new index beside the old one, which stays in use until it is replaced. Images keep their ids."""
        old_ids = OldIds.read(self.index_dir)
        if old_ids.count and self.options.limit is not None:
            raise IndexingError(
                f"--limit looks at only some of the files, so a rebuild would drop the rest of the {old_ids.count} "
                "indexed images. Leave out one of the two, or choose another --index-dir. Nothing was changed."
            )
        self.replaced = verify.recorded(self.index_dir)
        try:
            old = self._open_checked()
        except IndexNotFoundError:
            if old_ids.count or rebuild.has_begun(self.index_dir):
                self._replace_damaged(old_ids)
            else:
                self.update()
        except (IndexDamagedError, IndexVersionError) as error:
            self._replace_damaged(old_ids, error)
        else:
            with old:
                self._beside(old_ids, lambda staged: self._take_over(old, staged))

    def _open_checked(self) -> IndexWriter:
        writer = IndexWriter.open(self.index_dir)
        with on_error(writer.close):
            writer.catalog.check()  # a damaged catalog could not be written to at the end
        return writer

    def _replace_damaged(self, old_ids: OldIds, damage: IndexError_ | None = None) -> None:
        """Replace an index that cannot be used. Its files are kept."""

        def put_in_place(staged: Path) -> None:
            if damage is not None:
                kept = rebuild.set_aside(self.index_dir)
                self.progress.say(f"{damage} Its remaining files are kept in {kept}.")
            with rebuild.empty_like(staged, self.index_dir, old_ids.last) as writer:
                self._take_over(writer, staged)

        self._beside(old_ids, put_in_place)

    @staticmethod
    def _take_over(writer: IndexWriter, staged: Path) -> None:
        writer.adopt(staged)
        writer.back_up()

    def _beside(self, old_ids: OldIds, put_in_place: Callable[[Path], None]) -> None:
        """Fill a new index in a subfolder, and put it in place unless it lacks too many images."""
        staged = rebuild.staging(self.index_dir, self.extractor.spec.fingerprint)
        store = RunIndex(storage_of(staged), rebuild.open_staged(staged, old_ids.last), old_ids, self.progress.say)
        try:
            self._fill(store)
        finally:
            store.close()
            rebuild.discard_empty(staged)
        if self.counts["images"]:
            if not self.options.may_prune:
                check_whole(old_ids)
            put_in_place(staged)
        rebuild.discard(staged)

    # -- steps of both ----------------------------------------------------------------------------------------------

    def _fill(self, store: RunIndex) -> None:
        """Plan, execute and finish the run."""
        with closing(self._executor(store)) as executor:
            plan, absence = self._plan(store, executor)
            changes = Changes(store, plan)
            self._execute(store, plan, changes, executor)
        self._read_shots(store, plan)
        self._finish(store, plan, changes.missing, absence)

    def _executor(self, store: RunIndex) -> Executor:
        if self.options.ray is None:
            return LocalExecutor(self.extractor, self.options)
        from searchengine.indexing.ray_executor import RayExecutor

        return RayExecutor(self.extractor, self.options, store.manifest("precision"), self.progress)

    def _plan(self, store: RunIndex, executor: Executor) -> tuple[Plan, Absence]:
        """Compare the image folders with the index, and report what the user should know before the work begins."""
        options = self.options
        labels = labels_from(options.labels or self._recorded(store, "labels") or FOLDER)
        metric = check_metric(options.metric or self._recorded(store, "metric") or metrics.EUCLIDEAN)
        is_older = not is_current(store.manifest("refused_by"))
        known = store.known()
        roots = self._roots(store, known)
        if options.relocate:  # files on another disk have other ctimes
            known = {place: image.without_ctime() for place, image in known.items()}
        plan = make_plan(
            [(root, self._find(root.folder)) for root in roots],
            labels,
            IndexContents(known, store.skipped(), retry=is_older),
            options,
        )
        absence = Absence(plan, known, mounts_from_json(self._recorded(store, "mounts")), options)
        if store.old_ids is not None:
            store.old_ids.existing = _files(plan, roots, known)
            if options.rebuild:
                absence.check_rebuild(store.old_ids)
        absence.check_folders()
        choices = {"metric": metric, "labels": labels.recorded}
        store.begin(roots, choices, lambda: self.extractor.manifest(executor.computed()))
        remarks = [
            *left_out_remarks(plan),
            labels.remark() if options.limit is None else None,
            decoding_remark(store.manifest("decoding")) if known and is_older else None,
        ]
        self._announce(plan, [remark for remark in remarks if remark is not None])
        return plan, absence

    def _recorded(self, store: RunIndex, key: str) -> str | None:
        """Return an entry of the manifest; in a rebuild, that of the index to be replaced."""
        return store.manifest(key) or getattr(self.replaced, key, None)

    def _announce(self, plan: Plan, remarks: Sequence[str]) -> None:
        """Report the remarks and the files that are skipped, and count the files that need no work."""
        for remark in remarks:
            self.progress.say(remark)
        for file in (*plan.unreadable, *plan.skipped):
            self.progress.skipped(shown(file.path), file.reason)
        self.counts["unchanged"] = plan.unchanged
        self.counts["skipped"] = len(plan.skipped) + len(plan.unreadable)

    def _roots(self, store: RunIndex, known: dict[Place, IndexedImage]) -> list[Root]:
        """Assign the image folders. Those that have moved are recognised by their content, in any order."""
        recorded, given = store.roots(), self.folders
        folders: list[Path] | None = None
        if self.options.relocate and len(recorded) == len(given):
            folders, change = matching_order(recorded, given, known), "are in another order"
            folders = folders if folders != given else None
        elif {path for _, path, _ in recorded} == {*map(bytes, given)}:
            folders, change = after_exchange(recorded, known), "have swapped places"
        if folders is None:
            return assign_roots(recorded, given, relocate=self.options.relocate)
        pairs = (f"{os.fsdecode(old)} -> {new}" for (_, old, _), new in zip(recorded, folders, strict=True))
        self.progress.say(f"Judging by their content, the folders {change}: {', '.join(pairs)}.")
        return assign_roots(recorded, folders, relocate=True)

    def _find(self, folder: Path) -> Walk:
        options = self.options
        return Walk(
            folder,
            exclude=(options.exclude,) if isinstance(options.exclude, str) else options.exclude,
            skip=[self.index_dir.absolute()],
            default_excludes=options.default_excludes,
            follow_links=options.follow_links,
        )

    def _execute(self, store: RunIndex, plan: Plan, changes: Changes, executor: Executor) -> None:
        """Read new and changed files, embed them in batches, and commit about once a second."""
        size = max(1, self.options.batch_size)
        done, committed = plan.total - len(plan.candidates), time.monotonic()
        self.progress.start(plan.total, done)
        for reading in executor.readings(plan.candidates, store.known_content):
            if changes.content_is_gone(reading):
                (reading,) = executor.readings([reading.candidate], ())
            self.counts[changes.take(reading)] += 1
            if reading.reason is not None:
                self.progress.skipped(shown(reading.candidate.path), reading.reason)
            done += 1
            self.progress.advance()
            waited, full = time.monotonic() - committed, len(changes.batch) >= _COMMIT_ROWS
            # A batch of pictures is not kept waiting to fill up while most files need no model.
            if changes.waiting >= size or (
                changes.waiting and (full or waited > _OVERDUE * self.options.commit_seconds)
            ):
                self.counts["embedded"] += changes.embed(executor.embed)
            if not changes.waiting and (full or (len(changes.batch) and waited > self.options.commit_seconds)):
                changes.commit(done, plan.total)
                committed = time.monotonic()
        if changes.waiting:
            self.counts["embedded"] += changes.embed(executor.embed)
        changes.commit(done, plan.total)

    def _read_shots(self, store: RunIndex, plan: Plan) -> None:
        """Read the date and the camera of unchanged photos, if the index is of an older format that has none."""
        if not plan.without_shot:
            return
        self.progress.start(len(plan.without_shot), what="Dates")
        batch, committed = Batch(), time.monotonic()
        for id_, shot in read_shots(plan.without_shot, threads=self.options.threads or processors()):
            self.progress.advance()
            if shot is not None:
                batch.shots.append((id_, shot))
                self.counts["dated"] += 1
            if time.monotonic() - committed > _SHOTS_SECONDS:
                store.commit(batch, plan.total, plan.total)
                batch, committed = Batch(), time.monotonic()
        store.commit(batch, plan.total, plan.total)

    def _finish(self, store: RunIndex, plan: Plan, missing: dict[Place, IndexedImage], absence: Absence) -> None:
        """Remove images whose files were not found, and mark the run as finished in the manifest."""
        if self.counts["vanished"]:
            self.progress.say(
                f"{self.counts['vanished']} new files disappeared before they could be read. If their disk was "
                "disconnected, reconnect it and run the same command again."
            )
        if self.options.limit is None:
            for folder in self.folders:
                check_folder(folder)  # again, because its disk may have been disconnected during the run
            removal = absence.removal(missing, store.count())
            for remark in removal.remarks:
                self.progress.say(remark)
            if removal.ids:
                store.remove(removal.ids)
            self.counts["removed"], self.counts["missing"] = len(removal.ids), len(missing) - len(removal.ids)
            store.set("mounts", removal.mounts)
            store.set("refused_by", str(DECODING))
        store.finish(plan.forgotten)
        self.counts["images"] = store.count()


def _files(plan: Plan, roots: list[Root], known: dict[Place, IndexedImage]) -> set[bytes]:
    """Return the absolute paths of the files that exist."""
    folders = {root.id: bytes(root.folder) for root in roots}
    indexed = {joined(folders[root], path) for root, path in known if (root, path) not in plan.missing}
    return indexed | {candidate.file for candidate in plan.candidates}
