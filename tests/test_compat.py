"""Workarounds for library bugs work, and are still needed: a test fails once one is not."""

from __future__ import annotations

import inspect
import io
import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from searchengine.compat import lacks_avx, make_openvino_convert_on_python_3_13, pillow_warnings_ignored
from searchengine.errors import DamagedImageError, ExtractorError
from searchengine.extractors import frameworks
from searchengine.images import decode, thumbnail
from searchengine.images.decoding import ImageSource
from tests.images.pictures import encoded, quadrants, tiff

# Its EXIF block is announced beyond the end of the file.
CORRUPT_EXIF = tiff(1, b"\x80", bits=8, more=[(0x8769, 4, (10**9,))])


def open_with_pillow() -> None:
    Image.open(io.BytesIO(CORRUPT_EXIF)).load()


# -- Pillow warns about odd metadata -----------------------------------------------------------------------------------


def test_still_needed_pillow_warns() -> None:
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        open_with_pillow()


def test_still_needed_catch_warnings_affects_other_threads() -> None:
    inside, done = threading.Event(), threading.Event()

    def ignore() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inside.set()
            done.wait(10)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        thread = threading.Thread(target=ignore)
        thread.start()
        try:
            assert inside.wait(10)
            open_with_pillow()
        finally:
            done.set()
            thread.join()
    assert not seen, "use warnings.catch_warnings, which is thread-safe now"


@pytest.mark.filterwarnings("always")
def test_decoding_neither_warns_nor_fails_where_warnings_are_errors() -> None:
    with warnings.catch_warnings(record=True) as seen:
        assert decode(CORRUPT_EXIF).pixels.tolist() == [[[128, 128, 128]]]
        thumbnail(CORRUPT_EXIF)
        assert not seen
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(CORRUPT_EXIF).pixels.tolist() == [[[128, 128, 128]]]


def test_other_threads_keep_their_warnings() -> None:
    inside, done = threading.Event(), threading.Event()

    def decoding() -> None:
        with pillow_warnings_ignored():
            inside.set()
            done.wait(10)

    thread = threading.Thread(target=decoding)
    thread.start()
    try:
        assert inside.wait(10)
        with pytest.warns(UserWarning, match="Corrupt EXIF"):
            open_with_pillow()
    finally:
        done.set()
        thread.join()


def test_pillow_prints_no_log_messages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(TiffImagePlugin, "MAX_SAMPLESPERPIXEL", 0)  # at which Pillow logs an error
    with pytest.raises(DamagedImageError):
        ImageSource(encoded(quadrants(), "TIFF"))  # in this process, where the handlers are patched
    assert capsys.readouterr() == ("", "")


# -- OpenVINO cannot convert TensorFlow models on Python 3.13 ----------------------------------------------------------


def test_still_needed_openvino_deletes_what_exec_imported() -> None:
    from openvino.frontend.tensorflow import utils

    assert 'exec("del tensorflow")' in inspect.getsource(utils.get_environment_setup)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 13), reason="the fault begins with Python 3.13")
def test_openvino_checks_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow  # noqa: F401
    from openvino.frontend.tensorflow import utils

    monkeypatch.setattr(utils, "exec", exec, raising=False)
    with pytest.raises(NameError):
        utils.get_environment_setup("tf")
    make_openvino_convert_on_python_3_13()
    assert utils.get_environment_setup("tf")["tensorflow"]


def test_scikit_learn_can_copy_the_warning_filters() -> None:
    """Its parallel functions read the pattern of each filter."""
    parallel = pytest.importorskip("sklearn.utils.parallel")
    with warnings.catch_warnings(), pillow_warnings_ignored():
        assert parallel.Parallel(n_jobs=1)([parallel.delayed(abs)(-1)]) == [1]


# -- Processors without AVX --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("processor : 0\nflags\t\t: fpu sse4_2 popcnt\n", True),
        ("processor : 0\nflags\t\t: fpu sse4_2 avx avx2\n", False),
        ("processor : 0\nFeatures\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_flags_of_a_processor_on_linux(tmp_path: Path, text: str, lacks: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert lacks_avx(tmp_path / "cpuinfo") == lacks
    assert not lacks_avx(tmp_path / "missing")


def test_a_processor_without_avx_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks, "_COMMAND", ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)"))
    with pytest.raises(ExtractorError, match=r"Preparing x was stopped by an illegal instruction. .*lacks AVX"):
        frameworks.run_task("describe", {}, print, doing="Preparing x")
    monkeypatch.setattr(frameworks, "lacks_avx", lambda: True)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(ExtractorError, match=r"This processor lacks AVX.*efficientnet-lite0"):
        frameworks.import_keras()


_FREED = """
import re, sys, threading
from pathlib import Path
from PIL import Image
from searchengine.compat import give_back_memory

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

if sys.argv[1] == "told":
    give_back_memory()
barrier = threading.Barrier(5)
def work():
    for _ in range(3):
        image = Image.new("RGB", (2000, 2000), "red")
        kept.append(image.resize((8, 8)))
        barrier.wait(60)
        del image
    barrier.wait(60)

kept, before = [], resident()
threads = [threading.Thread(target=work) for _ in range(5)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(resident() - before)
"""


def test_memory_of_images_is_returned_to_the_system() -> None:
    command = [sys.executable, "-c", _FREED, "told"]  # untold, 78 MiB are kept
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 30
