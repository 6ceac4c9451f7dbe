"""``searchengine words`` and ``tags``: make an index ready for words, and say what the network sees in its pictures."""

from __future__ import annotations

import contextlib
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from searchengine.cli.command import ID, flag, json_flag, verb
from searchengine.cli.options import INDEX, open_index, settings_options
from searchengine.cli.output import print_json, print_note, print_result, shown

if TYPE_CHECKING:
    from searchengine.settings import Settings

_WORDS = """\
examples:
  searchengine words --install
  searchengine search --text "a dog on a beach"
"""


@verb("words", "make an index ready to be searched by words", _WORDS)
@flag("--install", "install the packages that words need, if any is missing (90 MB)")
@settings_options(*INDEX)
@json_flag
def words(settings: Settings, install: bool, as_json: bool) -> None:
    """Make an index ready to be searched by words, or say what is missing.

    An index made with CLIP or SigLIP has words of its own. Others need the classes of ImageNet as the network of the
    index knows them, and a sentence encoder, which comes in a package. What the network sees in the images is kept for
    searching and for the filter (`--tag`). No picture is read. An indexing run does the same where it can, so this is
    for indexes that were made before, and for networks whose weights have to be downloaded for it.
    """
    from searchengine.errors import SearchEngineError
    from searchengine.text.packages import install_packages
    from searchengine.text.seen import keep_seen
    from searchengine.text.tags import keep_tags
    from searchengine.text.towers import text_search
    from searchengine.text.words import Words

    if install:
        install_packages(print_note)
    with closing(open_index(settings)) as index:
        text_search(index, print_note)
        with contextlib.suppress(SearchEngineError):  # a folder that is only read, or a model that has none
            keep_tags(known := Words.of(index), index)
            keep_seen(known, index)
        images = len(index)
    if as_json:
        print_json({"images": images, "ready": True})
    else:
        print_result(f'{settings.index_dir[0]}: {images} images can be searched: searchengine search --text "a dog"')


_TAGS = """\
examples:
  searchengine tags 7 12
  searchengine tags --json > tags.json
"""


@verb("tags", "say what the network sees in images of an index", _TAGS)
@click.argument("ids", metavar="[ID...]", nargs=-1, type=ID)
@settings_options(*INDEX)
@json_flag
def tags(settings: Settings, ids: tuple[int, ...], as_json: bool) -> None:
    """Say which classes of ImageNet the network of an index sees in its images, with the probability of each.

    Without an ID, of all images. What the network sees need not be there: of a hundred tags some five are wrong where
    the picture shows one of its classes, and more where it shows none. Images without a tag are left out.
    """
    from searchengine.text.tags import tags_of
    from searchengine.text.words import Words

    with closing(open_index(settings)) as index:
        found = tags_of(Words.of(index), index, ids or None)
    if as_json:
        print_json([{"id": record.id, "path": record.path, "tags": list(map(asdict, seen))} for record, seen in found])
        return
    for record, seen in found:
        names = ", ".join(f"{tag.name} ({tag.probability:.0%})" for tag in seen)
        print_result(f"{record.id}  {shown(record.path)}  {names}")
    if not found:
        print_note("The network is sure of nothing in these images.")
