"""The exported model is made once, completely, and again if it is damaged; failures are explained."""

from __future__ import annotations

import fcntl
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from searchengine.errors import ExtractorError, UnknownNameError
from searchengine.extractors import (
    ExtractorRecipe,
    ExtractorSpec,
    cache,
    frameworks,
    make_spec,
)
from searchengine.extractors.published import PublishedSource
from searchengine.progress import Say
from tests.extractors.tiny import SPEC, write_tiny_model

pytestmark = pytest.mark.usefixtures("described_in_process")


class Exporter:
    """Stands for the exporting process, and counts its calls."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, task: str, request: dict[str, str], say: Say, *, doing: str) -> None:
        self.times += 1
        write_tiny_model(Path(request["folder"]))


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    stand_in = Exporter()
    monkeypatch.setattr(frameworks, "run_task", stand_in)
    monkeypatch.setattr(PublishedSource, "locate", lambda source, spec, given, say: Path("vgg16.h5"))
    return stand_in


def quiet(text: str) -> None:
    pass


def prepare(spec: ExtractorSpec, progress: Say | None = quiet) -> Path:
    return ExtractorRecipe(spec).export(progress).xml.parent


def test_once(exporter: Exporter, cache_dir: Path) -> None:
    messages: list[str] = []
    folder = prepare(SPEC, progress=messages.append)
    assert folder == cache_dir / "models" / SPEC.fingerprint
    assert messages[0].startswith("preparing VGG16 fc2, ImageNet weights: the first time only")
    assert messages[-1].startswith("prepared: ")
    assert prepare(SPEC, progress=messages.append) == folder
    assert prepare(replace(SPEC, normalize="l2"), progress=messages.append) == folder
    assert exporter.times == 1
    assert {path.name for path in (cache_dir / "models").iterdir()} == {folder.name}


def test_two_at_once(exporter: Exporter) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: prepare(SPEC), range(4)))
    assert exporter.times == 1


def test_a_second_process_waits_and_says_so(exporter: Exporter, cache_dir: Path) -> None:
    (cache_dir / "models").mkdir()
    messages: list[str] = []
    with (cache_dir / "models" / ".lock").open("a") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)

        def say(text: str) -> None:
            messages.append(text)
            if "waiting" in text:
                fcntl.flock(holder, fcntl.LOCK_UN)

        prepare(SPEC, say)
    assert messages[0].startswith("waiting for another process")
    assert exporter.times == 1


@pytest.mark.parametrize("name", ["model.bin", "model.xml", "export.json"])
@pytest.mark.parametrize("harm", ["cut", "changed", "gone"])
def test_a_damaged_model_is_exported_again(exporter: Exporter, name: str, harm: str) -> None:
    file = prepare(SPEC) / name
    data = bytearray(file.read_bytes())
    if harm == "gone":
        file.unlink()
    else:
        data[1] ^= 255
        file.write_bytes(data[: len(data) // 2] if harm == "cut" else data)
    assert cache.lookup(SPEC) is None
    assert prepare(SPEC) == file.parent
    assert exporter.times == 2
    assert cache.lookup(SPEC) is not None


def test_a_copied_cache_is_good(exporter: Exporter, cache_dir: Path) -> None:
    prepare(SPEC)
    shutil.copytree(
        cache_dir, cache_dir.with_name("elsewhere"), copy_function=shutil.copyfile
    )  # with new modification times
    shutil.rmtree(cache_dir)
    cache_dir.with_name("elsewhere").rename(cache_dir)
    assert cache.lookup(SPEC) is not None


def test_remains_of_a_killed_export_are_removed(exporter: Exporter, cache_dir: Path) -> None:
    left = cache_dir / "models" / ".unfinished-x"
    left.mkdir(parents=True)
    (left / "model.bin").write_bytes(b"half")
    prepare(SPEC)
    assert not left.exists()


def test_a_failed_export_leaves_nothing(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, doing: str) -> None:
        raise ExtractorError("no")

    monkeypatch.setattr(frameworks, "run_task", fail)
    monkeypatch.setattr(PublishedSource, "locate", lambda source, spec, given, say: Path("vgg16.h5"))
    with pytest.raises(ExtractorError, match=r"^no$"):
        prepare(SPEC)
    assert [path.name for path in (cache_dir / "models").iterdir()] == []


def test_a_cache_that_cannot_be_written(exporter: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(ExtractorError, match="SEARCHENGINE_CACHE_DIR"):
        prepare(SPEC)


def test_progress_goes_to_stderr(exporter: Exporter, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(SPEC, progress=None)
    output = capsys.readouterr()
    assert output.out == ""
    assert "first time only" in output.err


# -- the cache --------------------------------------------------------------------------------------------------------


def entry_of(model: str) -> Path:
    """Put an exported model under another name into the cache and return its folder."""
    spec = make_spec(model, normalize="none")
    with cache.new_entry(spec) as folder:
        write_tiny_model(folder)
    return cache.entry_folder(spec)


def test_models_that_no_index_uses_are_cleared(tmp_path: Path) -> None:
    used, gone, unused, unmounted = (entry_of(name) for name in ("vgg16", "vgg19", "resnet50", "densenet121"))
    for place, model in (("here", "vgg16"), ("deleted", "vgg19"), ("disk/index", "densenet121")):
        (tmp_path / place).mkdir(parents=True)
        cache.note_use(make_spec(model), tmp_path / place)
    assert {entry.fingerprint: len(entry.indexes) for entry in cache.entries()} == {
        used.name: 1,
        gone.name: 1,
        unused.name: 0,
        unmounted.name: 1,
    }
    (tmp_path / "deleted").rmdir()
    (tmp_path / "disk" / "index").rmdir()  # the empty mount point of a disk
    assert {entry.fingerprint for entry in cache.clear()} == {gone.name, unused.name}
    assert [entry.fingerprint for entry in cache.entries() if entry.indexes] == [
        entry.fingerprint for entry in cache.entries()
    ]
    assert cache.clear() == []
    cache.note_use(make_spec("densenet121"), tmp_path / "here")  # rebuilt with another model
    assert [entry.fingerprint for entry in cache.clear()] == [used.name]


def test_another_index_at_the_same_path_has_its_own_record(tmp_path: Path) -> None:
    entries = [entry_of("vgg16"), entry_of("vgg19")]
    for number, model in enumerate(("vgg16", "vgg19")):  # like volumes of two containers, both mounted at /index
        (tmp_path / "index").mkdir()
        cache.note_use(make_spec(model), tmp_path / "index")
        (tmp_path / "index").rename(tmp_path / f"volume{number}")
    (tmp_path / "index").mkdir()
    assert cache.clear() == []
    assert all(entry.exists() for entry in entries)


def test_only_exported_models_are_cleared(cache_dir: Path) -> None:
    folders = [cache_dir / "models" / name for name in ("bert", "faces", "0123456789abcdef")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(b"somebody else's")
    assert cache.entries() == cache.clear() == []
    assert all((folder / "weights.bin").exists() for folder in folders)


def test_the_only_copy_of_a_model_is_never_cleared(tmp_path: Path) -> None:
    file = tmp_path / "my.h5"
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    os.utime(file, (1_000_000_000, 1_000_000_000))  # written long ago, so that its hash is remembered
    spec = make_spec(weights=file)
    with cache.new_entry(spec) as folder:
        write_tiny_model(folder)
        cache.write_manifest(folder, spec.network, (3,))
    file.rename(tmp_path / "moved.h5")
    assert cache.clear() == []
    (tmp_path / "moved.h5").rename(file)
    assert len(cache.clear()) == 1


@pytest.mark.parametrize("bound", ["inf", "4GB"])
def test_any_bound_of_the_cache_leaves_the_export_alone(
    bound: str, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHENGINE_CACHE_GB", bound)
    assert prepare(SPEC).exists()


def test_the_cache_is_bounded(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    old, older = entry_of("vgg19"), entry_of("resnet50")
    os.utime(older, (1, 1))
    os.utime(old, (2, 2))
    size = sum(file.stat().st_size for file in old.iterdir())
    monkeypatch.setenv("SEARCHENGINE_CACHE_GB", str(2.5 * size / 1e9))
    messages: list[str] = []
    folder = prepare(SPEC, progress=messages.append)
    assert (folder.exists(), old.exists(), older.exists()) == (True, True, False)
    assert messages[-1].startswith("removed VGG16 fc2")
    monkeypatch.setenv("SEARCHENGINE_CACHE_GB", "0")
    assert prepare(replace(SPEC, layer="fc1")).exists()
    assert len(cache.entries()) == 1


# -- the process that exports ----------------------------------------------------------------------------------------


def exported_by(script: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run a script in place of the export."""
    program = tmp_path / "export.py"
    program.write_text("import json, sys, os\n" + script)
    monkeypatch.setattr(frameworks, "_COMMAND", (str(program),))
    frameworks.run_task("export", {}, quiet, doing="Preparing VGG16")


def test_its_errors_come_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer = "print(json.dumps({'error': 'UnknownNameError', 'message': 'No such layer.'})); sys.exit(1)"
    with pytest.raises(UnknownNameError, match=r"^No such layer\.$"):
        exported_by(answer, monkeypatch, tmp_path)
    with pytest.raises(ExtractorError, match="cannot allocate"):
        exported_by("sys.exit('cannot allocate')", monkeypatch, tmp_path)
    with pytest.raises(ExtractorError, match="signal 9, perhaps because memory ran out"):
        exported_by("os.kill(os.getpid(), 9)", monkeypatch, tmp_path)
    with pytest.raises(ExtractorError, match="failed"):
        exported_by("print('no JSON')", monkeypatch, tmp_path)
