"""Flask's own server during development: changes of styles, scripts and templates show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

import app as application
from tests.web.conftest import make_app
from tests.web.fake import FakeEngine

ROOT = Path(__file__).resolve().parents[2]


def test_changes_show(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Flask] = []
    told: dict[str, Any] = {}

    def create_app(config: dict[str, Any] | None = None) -> Flask:
        made.append(make_app(engine, tmp_path, **(config or {})))
        return made[0]

    monkeypatch.setattr(application, "create_app", create_app)
    monkeypatch.setattr(Flask, "run", lambda _, **options: told.update(options))
    assert application.main() == 0
    # Templates are checked for each page. Everything else is read at the start, so the server restarts.
    assert made[0].jinja_env.auto_reload
    assert told["use_reloader"]
    watched = {Path(file) for file in told["extra_files"]}
    assert {ROOT / "static" / name for name in ("base.css", "pages.js", "favicon.svg")} <= watched
    assert all(file.is_file() for file in watched)  # in a folder it would watch only Python files
