"""Make the exported model of a spec, once on a machine: in a process of its own, under a lock."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from searchengine.errors import ExtractorError
from searchengine.extractors import asking, backbones, cache, shipped, weights
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.names import check_name
from searchengine.extractors.spec import ExtractorSpec

_COMMAND = ("-m", "searchengine.extractors.export")


def say_on_stderr(text: str) -> None:
    """The progress of what takes long, where nobody asked for it in another form."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def exported_model(
    spec: ExtractorSpec,
    *,
    weights_file: Path | None = None,
    export: bool = True,
    suspect: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportedModel:
    """The model as OpenVINO reads it; made first where it is missing or damaged.

    ``suspect``: it could not be loaded, so look closely. ``export`` False: ExtractorError where it would have to be
    made. The errors of ``locate`` in weights.py, and ExtractorError where making it fails.
    """
    if spec.model == backbones.COMPACT:
        return shipped.exported(spec)
    if spec.model != backbones.OWN:
        check_name("model", spec.model, backbones.BACKBONES)
    model = cache.lookup(spec, thorough=suspect)
    if model is not None:
        return model
    if not export:
        raise ExtractorError(
            f"The model {spec.title} is not prepared on this machine: run `searchengine prepare "
            "--index-dir DIR`, which makes it once."
        )
    say = progress or say_on_stderr
    file = weights.locate(spec, weights_file)
    with cache.export_lock(say):
        model = cache.lookup(spec, thorough=suspect)  # another process may have made it meanwhile
        if model is None:
            say(
                f"preparing {spec.network.title.rpartition(',')[0]}: the first time only, about half a minute; it "
                f"is kept in {cache.entry_folder(spec)}"
            )
            with cache.new_entry(spec) as folder:
                _export_in_subprocess(spec, file, folder, say)
            model = cache.lookup(spec)
            if model is None:
                raise ExtractorError(f"The model that was just written to {cache.entry_folder(spec)} is damaged.")
            size = sum((model.xml.parent / name).stat().st_size for name in cache.MODEL_FILES)
            say(f"prepared: {size / 1e6:.0f} MB on disk, {model.dimension} numbers a feature")
    return model


def prepare(
    spec: ExtractorSpec, *, weights_file: Path | None = None, progress: Callable[[str], None] | None = None
) -> Path:
    """Make the exported model of a spec ahead of its first use; gives its folder. Errors as ``exported_model``."""
    return exported_model(spec, weights_file=weights_file, progress=progress).xml.parent


def _export_in_subprocess(
    spec: ExtractorSpec, file: Path | backbones.PublishedWeights, folder: Path, say: Callable[[str], None]
) -> None:
    request = {
        "spec": spec.to_json(),
        "folder": str(folder),
        "file": str(file.absolute()) if isinstance(file, Path) else None,
        "download": None if isinstance(file, Path) else asdict(file),
    }
    asking.ask(_COMMAND, request, say, doing=f"Preparing {spec.title}")
