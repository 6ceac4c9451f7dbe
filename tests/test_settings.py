"""Settings: defaults < file < environment < flags, and messages for invalid values."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from searchengine.extractors import extractor
from searchengine.settings import Precision, Runtime, Settings, SettingsError, load_settings, origins


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_order(working_folder: Path) -> None:
    assert load_settings(environ={}) == Settings()
    file = working_folder / "searchengine.toml"
    file.write_text('max_upload_mb = 5\nport = 8001\nthreads = 2\nindex_dir = ["a", "b"]\n')
    environ = {"SEARCHENGINE_MAX_UPLOAD_MB": "7", "PORT": "8002", "BIND": ""}
    settings = load_settings({"port": 8003, "threads": None, "TESTING": True}, environ=environ)
    assert (settings.threads, settings.max_upload_mb, settings.port) == (2, 7, 8003)
    assert settings.index_dir == (Path("a"), Path("b"))
    where = origins(environ)
    assert (where["threads"], where["max_upload_mb"], where["bind"]) == ("searchengine.toml", "environment", "default")
    file.rename(working_folder / "other.toml")
    assert load_settings(environ={"SEARCHENGINE_CONFIG": "other.toml"}).threads == 2
    assert load_settings(environ={}).threads == 32


@pytest.mark.parametrize("key", ["MAX_UPLOAD_MB", "SEARCHENGINE_MAX_UPLOAD_MB", "max_upload_mb"])
def test_flags_in_any_spelling(key: str) -> None:
    assert load_settings({key: "9"}, environ={"SEARCHENGINE_MAX_UPLOAD_MB": "7"}).max_upload_mb == 9


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"PORT": "http"}, "PORT must be a whole number from 1 to 65535, not 'http'."),
        (
            {"SEARCHENGINE_MAX_UPLOAD_MB": "0"},
            "SEARCHENGINE_MAX_UPLOAD_MB must be a whole number from 1 to 1000, not '0'.",
        ),
        ({"SEARCHENGINE_RUNTIME": "x"}, "SEARCHENGINE_RUNTIME must be one of auto, openvino, keras, not 'x'."),
        ({"SEARCHENGINE_CACHE_GB": "-1"}, "SEARCHENGINE_CACHE_GB must be a number of at least 0, not '-1'."),
        ({"SEARCHENGINE_CONFIG": "none.toml"}, "none.toml cannot be read: No such file or directory."),
    ],
)
def test_an_invalid_environment_is_reported(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(environ=environ)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("port = 0", "port in searchengine.toml must be a whole number from 1 to 65535, not 0."),
        ("images_dir = 3", "images_dir in searchengine.toml cannot be 3."),
        ("index_dir = 3", "index_dir in searchengine.toml cannot be 3."),
        ("prot = 8001", "searchengine.toml has an unknown setting 'prot'. Known settings: index_dir, "),
        ("port =", "searchengine.toml is not valid TOML: "),
        ("port = " + "[" * 100_000, "searchengine.toml is not valid TOML: "),
    ],
)
def test_an_invalid_file_is_reported(text: str, sentence: str, working_folder: Path) -> None:
    (working_folder / "searchengine.toml").write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_settings(environ={})
    assert str(refused.value).startswith(sentence)


def test_invalid_settings_that_are_not_used_are_ignored() -> None:
    settings = load_settings(only=("index_dir",), environ={"PORT": "http", "SEARCHENGINE_INDEX_DIR": "a"})
    assert (settings.index_dir, settings.port) == ((Path("a"),), 8000)


def test_sizes() -> None:
    settings = load_settings({"max_upload_mb": 2, "max_upload_megapixels": 3, "cache_dir": "cache"}, environ={})
    assert (settings.max_upload_bytes, settings.max_upload_pixels) == (2_000_000, 3_000_000)
    assert settings.cache_root == Path("cache").absolute()


def test_choices_of_settings_match_the_extractors() -> None:
    assert get_args(Precision) == extractor.PRECISIONS
    assert get_args(Runtime) == extractor.RUNTIMES
