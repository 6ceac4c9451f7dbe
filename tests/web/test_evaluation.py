"""The page of an evaluation, from the server and in a real browser."""

from __future__ import annotations

import base64
import html
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from playwright.sync_api import expect

from searchengine.analyse.evaluation import EVALUATION, keep_evaluation, leave_one_out
from searchengine.index.local import LocalIndex
from tests.analyse.filled import fill
from tests.web.browsing import RED, TRANSFER, OpenPage, fits, in_browser, serving, until
from tests.web.mapped import app_of, fill_index, store_groups, store_map


def measured(index: LocalIndex) -> None:
    keep_evaluation(index, leave_one_out(index))


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    return fill_index(tmp_path, 30, mislabelled=1)


@pytest.fixture
def client(index: LocalIndex, tmp_path: Path) -> FlaskClient:
    return app_of(index, tmp_path / "cache").test_client()


def test_without_an_evaluation_the_page_names_the_command(client: FlaskClient) -> None:
    page = client.get("/evaluation").text
    assert "No evaluation yet" in page
    assert 'href="/evaluation"' in client.get("/").text


def test_an_evaluation_is_shown_without_a_restart(client: FlaskClient, index: LocalIndex) -> None:
    assert "No evaluation yet" in client.get("/evaluation").text
    measured(index)
    page = html.unescape(client.get("/evaluation").text)
    evaluation = leave_one_out(index)
    for figure in (*evaluation.figures, evaluation.by_class):
        assert re.search(rf'<th scope="row">{figure.name}</th><td><b>{figure.value:.3f}</b></td>', page), figure.name
    assert "For 93\u00a0% of 30 pictures, the first answer has the same label" in page
    for label in ("red", "green", "blue"):
        assert f'<th scope="row">{label} <small>' in page
    # Each picture links to a search with it.
    query = evaluation.hardest[0].example.query
    image_id = next(id_ for id_, path in zip(index.ids.tolist(), index.paths, strict=True) if path == query.path)
    assert f'<a href="/search?id={image_id}"><img src="/thumbnails/{image_id}' in page
    assert " style=" not in page


def test_every_page_accepts_a_picture(client: FlaskClient, index: LocalIndex) -> None:
    """A picture can be dropped on any page, and the form says where to send it."""
    addresses = ("/", "/search?id=1", "/compare?id=1", "/map", "/groups", "/evaluation", "/search?id=99", "/nowhere")
    forms = {address: client.get(address).text.count('type="file" name="image"') for address in addresses}
    store_map(index, 30)
    store_groups(index, 30)
    measured(index)
    for address in ("/map", "/groups", "/groups?cluster=1", "/groups?duplicates=1", "/evaluation"):
        forms[f"{address}, made"] = client.get(address).text.count('type="file" name="image"')
    assert set(forms.values()) == {1}, forms


def test_a_stale_or_damaged_evaluation_is_reported(client: FlaskClient, index: LocalIndex, tmp_path: Path) -> None:
    measured(index)
    assert "have changed since" not in client.get("/evaluation").text
    fill(tmp_path / "index", np.empty((0, 6), np.float32), gone=[1, 2, 3])
    page = client.get("/evaluation").text
    assert "have changed since this was measured" in page
    assert "/thumbnails/2?" not in page
    (index.folder / EVALUATION.file).write_text("nothing")
    answer = client.get("/evaluation", environ_overrides={"REMOTE_ADDR": "192.0.2.7"})
    assert answer.status_code == 200
    assert "cannot be read" in answer.text
    assert str(tmp_path) not in answer.text


def test_one_shared_label_of_several_counts(client: FlaskClient, index: LocalIndex) -> None:
    with closing(sqlite3.connect(index.folder / "catalog.sqlite")) as catalog:
        catalog.execute("INSERT INTO labels (image, label, position) VALUES (1, 'odd', 1)")
        catalog.commit()
    measured(index)
    page = html.unescape(client.get("/evaluation").text)
    assert "the first answer shares a label" in page
    assert "has the same label" not in page


def test_an_evaluation_from_before_labels_were_counted(client: FlaskClient, index: LocalIndex) -> None:
    measured(index)
    file = index.folder / EVALUATION.file
    sheet = json.loads(file.read_text())
    del sheet["evaluation"]["counts"]["several_labels"]
    file.write_text(json.dumps(sheet))
    assert "the first answer shares a label" in client.get("/evaluation").text


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("evaluated")
    index = fill_index(folder, 60, mislabelled=1)
    measured(index)
    with serving(app_of(index, folder / "cache")) as address:
        yield address
    index.close()


class TestBrowser:
    pytestmark = in_browser

    @pytest.mark.parametrize("width", [360, 1280])
    def test_the_report_is_drawn(self, open_page: OpenPage, width: int) -> None:
        page = open_page("/", width=width)
        page.get_by_role("button", name="More").click()
        page.get_by_role("link", name="Evaluation").click()
        expect(page.get_by_role("heading", name="How good are the answers?")).to_be_visible()
        assert fits(page)
        # The policy allows the styles of plots and bars: they have the page's colours and their own sizes.
        accent = page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--accent')")
        assert accent == "rgb(31, 63, 208)"
        assert page.locator(".curve .line").evaluate("(line) => getComputedStyle(line).stroke") == accent
        page.get_by_text("Measures for experts").click()
        # Each bar is complete, and a better figure fills more of it.
        bars = page.locator(".interval").evaluate_all("(all) => all.map((bar) => bar.getBoundingClientRect().toJSON())")
        assert min(bar["width"] for bar in bars) > 40
        assert max(bar["right"] for bar in bars) <= width
        figures = page.locator("tr:has(.interval)").evaluate_all(
            "(rows) => rows.map((row) => [+row.querySelector('b').textContent, "
            "+row.querySelector('.mean').getAttribute('width')])"
        )
        assert all(filled == pytest.approx(98 * value, abs=0.1) for value, filled in figures)
        regions = page.get_by_role("region").evaluate_all("(all) => all.map((region) => region.ariaLabel)")
        assert len(regions) == len(set(regions)) > 2
        assert page.locator(".heat rect.right").count() == 3
        picture = page.locator(".example img").first
        picture.scroll_into_view_if_needed()
        until(page, "document.querySelector('.example img').naturalWidth > 0")
        picture.click()
        page.wait_for_url("**/search?id=*")
        expect(page.locator(".chip.query")).to_be_visible()

    @pytest.mark.parametrize("width", [360, 1280])
    def test_pictures_link_to_a_search(self, open_page: OpenPage, width: int) -> None:
        page = open_page("/evaluation", width=width)
        page.keyboard.press("u")
        expect(page.locator("input[name=image]")).to_be_focused()
        transfer = page.evaluate_handle(TRANSFER, ["red.png", "image/png", base64.b64encode(RED["buffer"]).decode()])
        # This index has no model to embed the upload, so it is enough that the request was sent.
        page.route("**/search", lambda route: route.fulfill(status=415, body="<p data-error>As if it was asked</p>"))
        page.dispatch_event("h1", "drop", {"dataTransfer": transfer})
        expect(page.get_by_role("alert")).to_contain_text("As if it was asked")
