"""The user's own pictures in a real browser: how they are chosen, kept, and found again by their address."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from searchengine.web import create_app
from tests.web.browsing import RED, TRANSFER, OpenPage, choose, fits, ids, in_browser, serving, until
from tests.web.conftest import encoded
from tests.web.fake import COLOURS, FakeEngine, draw

pytestmark = in_browser

SCRIPT = """import(document.querySelector("link[href$='/uploads.js']").href)"""
GONE = "Choose the picture again"
ADDRESS = "https://example.org/a.jpg"


@pytest.fixture(scope="module")
def base(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engines = FakeEngine(collection, name="unit"), FakeEngine(collection, name="raw", normalized=False)
    config = {"CACHE_DIR": tmp_path_factory.mktemp("cache"), "SAMPLE": 20, "DEFAULT_K": 10}
    with serving(create_app(config, *engines)) as address:
        yield address


def search_by(page: Page, colour: str) -> str:
    """Return the address of the results of a picture, once it is kept."""
    name = f"{colour}.png"
    choose(page, {"name": name, "mimeType": "image/png", "buffer": encoded(draw(COLOURS[colour], (200, 150)))})
    expect_results_of(page, name)
    until(page, f"(async () => (await (await {SCRIPT}).recent())[0]?.name === '{name}')()")
    return page.url


def expect_results_of(page: Page, name: str) -> None:
    expect(page.locator(".chip.query")).to_have_attribute("title", name)
    expect(page.locator(".tile")).not_to_have_count(0)


def test_results_of_a_picture_survive_a_reload_and_open_in_another_tab(open_page: OpenPage) -> None:
    page = open_page(width=360)
    address = search_by(page, "red")
    page.locator(".tile [data-judge=dislike]").first.click()
    expect(page.locator("#main .facts")).to_contain_text("1 disliked")
    assert "&dislike=" in page.url
    shown = ids(page)[:5]
    page.evaluate("scrollTo(0, 200)")
    until(page, "history.state.top === 200")
    page.reload()
    expect_results_of(page, "red.png")
    expect(page.locator("#main .facts")).to_contain_text("1 disliked")
    assert ids(page)[:5] == shown
    until(page, "scrollY === 200")
    other = page.context.new_page()
    other.goto(page.url)
    expect_results_of(other, "red.png")
    assert ids(other)[:5] == shown
    # Another index, and a comparison, with the same picture.
    other.goto(address.replace("/search", "/i/raw/search"))
    expect_results_of(other, "red.png")
    other.goto(address.replace("/search", "/compare"))
    expect(other.locator(".side")).to_have_count(2)
    assert fits(other)


def test_back_and_forward_through_several_pictures(open_page: OpenPage) -> None:
    page = open_page()
    colours = list(COLOURS)[:2]
    for colour in colours:
        search_by(page, colour)
        page.goto("/")  # another document
    for colour in reversed(colours):
        page.go_back()
        expect_results_of(page, f"{colour}.png")
        page.go_back()
        expect(page.get_by_role("heading", name="All pictures")).to_be_visible()
    page.go_forward()
    expect_results_of(page, f"{colours[0]}.png")


FULL = "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); };"
CLOSED = "IDBFactory.prototype.open = () => { throw new DOMException('private', 'SecurityError'); };"


@pytest.mark.parametrize("refusal", [FULL, CLOSED])
def test_a_browser_without_storage_can_search(open_page: OpenPage, refusal: str) -> None:
    page = open_page()
    page.evaluate(f"async () => (await {SCRIPT}).clear()")
    page.add_init_script(refusal)
    page.goto("/")
    choose(page)
    expect(page.get_by_role("status")).to_contain_text("It is kept until you leave this page")
    page.locator(".tile [data-judge=like]").first.click()
    expect(page.locator("#main .facts")).to_contain_text("1 liked")
    page.go_back()
    expect_results_of(page, "red.png")
    page.reload()
    expect(page.get_by_role("heading", name=GONE)).to_be_visible()


def test_the_oldest_pictures_are_removed_first(open_page: OpenPage) -> None:
    page = open_page()
    kept = page.evaluate(
        "async () => { const { keep, file, recent, noteWords, clear } = await "
        + SCRIPT
        + """;
          await clear();
          const names = async () => (await recent()).map(({ name, words }) => name ?? words);
          for (let at = 0; at < 23; at += 1) {
            await keep(`k${at}`, new File(["x"], `${at}.png`), "");
            await noteWords(`words ${at}`);
          }
          const many = await names();
          await keep("large", new File([new Uint8Array(99.9e6)], "large.png"), "");
          await keep("next", new File([new Uint8Array(0.2e6)], "next.png"), "");
          const few = await names();
          const gone = await file("k22");
          await clear();
          return { many, few, gone, none: [await file("next"), await names()] };
        }"""
    )
    assert sorted(kept["many"]) == sorted(name for at in range(3, 23) for name in (f"words {at}", f"{at}.png"))
    assert [name for name in kept["few"] if name.endswith(".png")] == ["next.png"]
    assert (kept["gone"], kept["none"]) == (None, [None, []])


def test_recent_searches_are_shown_under_the_bar(open_page: OpenPage) -> None:
    page = open_page("/i/raw/", width=360)
    page.evaluate(f"async () => (await {SCRIPT}).clear()")
    address = search_by(page, "red")
    page.goto("/i/raw/")
    page.evaluate(f"async () => (await {SCRIPT}).noteWords('a red square')")
    field, strip = page.locator("#bar [name=q]"), page.get_by_role("group", name="Recent searches")
    field.focus()
    expect(strip.get_by_role("link")).to_have_count(2)
    assert fits(page)
    assert page.evaluate("document.querySelector('.tile').getBoundingClientRect().y") <= 140  # nothing has moved
    page.keyboard.press("Escape")
    expect(strip).to_be_hidden()
    page.locator(".tile .photo").first.focus()
    field.focus()
    expect(strip).to_be_visible()
    page.evaluate(COMES, ["paste", "#bar [name=q]", {"text/plain": ADDRESS}])
    expect(strip).to_be_hidden()  # it does not cover the results
    page.locator(".tile .photo").first.focus()
    field.focus()
    expect(strip.get_by_role("link", name="a red square")).to_have_attribute("href", re.compile("/i/raw/search.q=a"))
    strip.get_by_role("link", name="red.png").click()
    expect_results_of(page, "red.png")
    assert page.url == address
    page.locator("#bar [name=q]").focus()
    strip.get_by_role("button", name="Clear").click()
    expect(page.get_by_role("status")).to_contain_text("have been removed from this browser")
    expect(strip).to_be_hidden()
    page.reload()
    expect(page.get_by_role("heading", name=GONE)).to_be_visible()


COMES = """([kind, target, data]) => {
  const dataTransfer = new DataTransfer();
  for (const [type, text] of Object.entries(data)) dataTransfer.setData(type, text);
  return (kind === "paste" ? ["paste"] : ["dragenter", "dragover", "drop"]).map((name) => {
    const options = { bubbles: true, cancelable: true };
    const event = kind === "paste"
      ? new ClipboardEvent(name, { clipboardData: dataTransfer, ...options })
      : new DragEvent(name, { dataTransfer, ...options });
    document.querySelector(target).dispatchEvent(event);
    return event.defaultPrevented;
  });
}"""


def test_an_address_instead_of_a_picture(open_page: OpenPage) -> None:
    page = open_page("about:blank")
    for kind, target, data in [
        ("drop", "body", {"text/uri-list": ADDRESS, "text/html": f'<img src="{ADDRESS}">'}),
        ("drop", "body", {"text/plain": ADDRESS}),
        ("paste", "body", {"text/plain": ADDRESS}),
        ("paste", "#bar [name=q]", {"text/plain": f" {ADDRESS}\n"}),
    ]:
        page.goto("/")
        assert all(page.evaluate(COMES, [kind, target, data]))
        expect(page.get_by_role("alert")).to_contain_text("Save the picture first")
        assert page.evaluate(COMES, ["paste", "#bar [name=q]", {"text/plain": "a red square"}]) == [False]
    page.locator("#bar [name=q]").fill(ADDRESS)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("That is a web address")


def test_several_files_a_folder_and_a_pasted_picture(open_page: OpenPage) -> None:
    page = open_page("/search?id=3")
    data = base64.b64encode(RED["buffer"]).decode()
    transfer = page.evaluate_handle(TRANSFER, ["notes.txt", "text/plain", data])
    transfer.evaluate(
        """(transfer, data) => {
          const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
          transfer.items.add(new File([bytes], "red.png", { type: "image/png" }));
        }""",
        data,
    )
    page.dispatch_event("#main", "drop", {"dataTransfer": transfer})
    expect(page.get_by_role("status")).to_have_text("Only red.png is used: you can search with one picture at a time.")
    expect_results_of(page, "red.png")
    page.evaluate(
        "(clipboardData) => document.querySelector('#bar [name=q]').dispatchEvent("
        "new ClipboardEvent('paste', { clipboardData, bubbles: true, cancelable: true }))",
        page.evaluate_handle(TRANSFER, ["pasted.png", "image/png", data]),
    )
    expect_results_of(page, "pasted.png")
    page.evaluate("DataTransferItem.prototype.webkitGetAsEntry = () => ({ isDirectory: true })")
    page.dispatch_event("#main", "drop", {"dataTransfer": transfer})
    expect(page.get_by_role("alert")).to_contain_text("That is a folder")


def test_a_phone_takes_a_photo(open_page: OpenPage) -> None:
    page = open_page(width=360, height=740, has_touch=True, is_mobile=True)
    camera = page.get_by_label("Take a photo")
    expect(camera).to_have_attribute("capture", "environment")
    assert fits(page)
    camera.set_input_files(RED)
    expect_results_of(page, "red.png")
    expect(camera).to_be_hidden()
    assert fits(page)
