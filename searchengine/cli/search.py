"""``searchengine search``, ``recommend``, ``words`` and ``tags``: a query and its answer, and what words need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from searchengine.cli.command import ID, PATH, flag, json_flag, option, verb
from searchengine.cli.options import ENGINE, INDEX, MILVUS, filter_options, open_engine, open_index, settings_options
from searchengine.cli.output import print_json, print_note, print_result, shown
from searchengine.cli.query import query_from, query_options, read_picture, same_file
from searchengine.errors import ImageError, QueryError, SearchEngineError
from searchengine.index.filters import unknown_choices
from searchengine.index.metrics import alike, metric_title
from searchengine.query import DISLIKED, LIKED, Example, Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from searchengine.engine import FeatureOf, Results, SearchEngine
    from searchengine.index.protocol import Index
    from searchengine.index.types import Hit
    from searchengine.learn.classifiers import Vote
    from searchengine.settings import Settings

_UNIT = 1e-3  # how far from 1 the length of a query may be without a note


def _ready(query: Query, engine: SearchEngine) -> tuple[Query, dict[bytes, Path]]:
    """The query with the bytes of the files that it names, and with a vector scaled as those of the index.

    And the file of these bytes.
    """
    examples = []
    files: dict[bytes, Path] = {}
    for example in query.examples:
        if isinstance(example.source, Path):
            id_option = {LIKED: "--like", DISLIKED: "--dislike"}.get(example.sign, "--id")
            contents = read_picture(example.source, id_option=id_option)
            files.setdefault(contents, example.source)
            example = replace(example, source=contents)
        elif example.is_feature:
            example = replace(example, source=_fitted(example.source, engine.index))  # type: ignore[arg-type]
        examples.append(example)
    return replace(query, examples=tuple(examples)), files


def _fitted(vector: NDArray[np.float32], index: Index) -> NDArray[np.float32]:
    """A (1, d) query, scaled to length 1 if the features of the index are; QueryError if it has another length."""
    import numpy as np

    if vector.shape[1] != index.dimension:
        raise QueryError(
            f"The vector has {vector.shape[1]} numbers; the features of this index have {index.dimension}."
        )
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if index.normalized and np.isfinite(length) and length > 0 and abs(length - 1.0) > _UNIT:
        print_note(f"The features of this index have length 1, so the query was divided by its length, {length:.4g}.")
        return (vector / length).astype(np.float32)
    return vector


_SEARCH = """\
examples:
  searchengine search holiday.jpg -k 5
  searchengine search --text "a dog on a beach"
  searchengine search --id 42 --json
  searchengine search holiday.jpg --box 0.1,0.2,0.5,0.5
  searchengine search --id 42 --metric manhattan --label dog --after 2024-01-01
  searchengine search --vector query.npy --vote
  echo 0.1 0.7 0.2 | searchengine search --vector -
"""


@verb("search", "find the images that look like a given one", _SEARCH)
@click.argument("image", metavar="[IMAGE]", required=False, type=PATH)
@option("--id ID", "the id of an image of the index", ID, name="id_")
@option("--vector FILE", "a feature: a .npy file, or text with the numbers in a line; - reads standard input")
@query_options(10)
@filter_options
@flag("--vote", "let the labels of the k nearest images vote, the query itself left out: each label with its share")
@settings_options(*ENGINE, *MILVUS)
@json_flag
def search(settings: Settings, vote: bool, as_json: bool, **values: Any) -> None:
    """Find the images of an index that look like a given image, or that match words."""
    query = query_from(values)
    if not query.examples and query.text is None:
        raise click.UsageError("Name one query: an IMAGE, or --id, or --vector, or --text.")
    _answer(settings, query, values["vector"], vote=vote, as_json=as_json)


_RECOMMEND = """\
examples:
  searchengine recommend --like 12 --like 40 --dislike 7 -k 20
  searchengine recommend --query beach.jpg --like 12 --dislike 7
  searchengine recommend --text "a dog on a beach" --like 12
  searchengine recommend --like mine.jpg --rule rocchio --json
"""


@verb("recommend", "find images by several liked and disliked ones", _RECOMMEND)
@option("--query IMAGE", "the image with which the search began")
@query_options(20)
@filter_options
@settings_options(*ENGINE)
@json_flag
def recommend(settings: Settings, as_json: bool, **values: Any) -> None:
    """Find images that are like those you like and unlike those you dislike.

    Each is an id of the index or an image file; a file whose name is a number is given as ./42. Those that you name are
    left out of the results.
    """
    _answer(settings, query_from(values), as_json=as_json)


# -- the answer -------------------------------------------------------------------------------------------------------


def _answer(
    settings: Settings, query: Query, vector: str | None = None, *, vote: bool = False, as_json: bool = False
) -> None:
    with closing(open_engine(settings)) as engine:
        index = engine.index
        ready, files = _ready(query, engine)
        results = engine.search(ready, feature_of=_naming(files, engine))
        votes = _vote(engine, ready, results.start) if vote else []
        labels = {record.id: record.labels for record in index.known([hit.id for hit in results])}
        if query.metric and index.metric in alike(query.metric, normalized=index.normalized):
            print_note(f"These features have length 1: {metric_title(index.metric)} gives the same order.")
        for sentence in unknown_choices(index.facets(), query.filter) if query.filter else ():
            print_note(sentence)
    for note in filter(None, (results.doubt, results.remark)):
        print_note(note)
    if as_json:
        print_json(_to_json(query, results, labels, votes if vote else None, vector))
        return
    print_result("rank  distance  score  id  path")
    for hit in results:
        notes = f"  [{shown(', '.join(labels[hit.id]))}]" if labels.get(hit.id) else ""
        if hit.stands_for > 1:
            notes += f"  and {hit.stands_for - 1} {'near-duplicates' if query.distinct else 'copies'}"
        print_result(f"{hit.rank:4d}  {hit.distance:8.4f}  {hit.score:5.3f}  {hit.id}  {shown(hit.path)}{notes}")
    for share in votes:
        print_result(f"{share.share:6.1%}  {shown(share.label)}")
    if vote and not votes:
        print_note("None of them has a label, so there is no vote.")


def _naming(files: Mapping[bytes, Path], engine: SearchEngine) -> FeatureOf:
    """As ``engine.feature_of``; an ImageError names the file of the example."""

    def feature_of(example: Example) -> NDArray[np.float32]:
        try:
            return engine.feature_of(example)
        except ImageError as error:
            file = files.get(example.source) if isinstance(example.source, bytes) else None
            if file is None or str(file) in str(error):
                raise
            raise type(error)(f"{file}: {error}") from error

    return feature_of


def _to_json(
    query: Query, results: Results, labels: Mapping[int, tuple[str, ...]], votes: list[Vote] | None, vector: str | None
) -> dict[str, Any]:
    def names(examples: Iterable[Example]) -> list[int | str]:
        return [vector or str(example.source) if example.id is None else example.id for example in examples]

    start = query.start
    answer: dict[str, Any] = {"query": None if start is None else names([start])[0]}
    if start is not None and start.box is not None:
        answer["box"] = start.box.part
    if query.judged:
        answer |= {"liked": names(query.liked), "disliked": names(query.disliked), "rule": query.rule_used}
    if query.text is not None:
        answer |= {"text": query.text, "doubt": results.doubt}
    answer |= {
        "metric": results.metric,
        "ranked_by": results.ranked_by,
        "total": results.total,
        "remark": results.remark,
        "cursor": None if results.cursor is None else str(results.cursor),
        "hits": [{**hit.to_dict(), "labels": labels.get(hit.id, ())} for hit in results],
    }
    if votes is not None:
        answer["votes"] = [asdict(share) for share in votes]
    return answer


def _vote(engine: SearchEngine, query: Query, feature: NDArray[np.float32] | None) -> list[Vote]:
    """The vote of the k nearest images that are not the query itself."""
    from searchengine.learn.classifiers import vote

    if feature is None or query.start is None:
        raise QueryError("A vote needs a picture or a vector to be near to.")
    matches = _matches(engine, query.start)
    count = query.k
    while True:
        hits = engine.index.search(feature, count, query.metric, filter=query.filter)[0]
        same = [hit for hit in hits if matches(hit)]
        missing = query.k - (len(hits) - len(same))
        if missing <= 0 or len(hits) < count:
            break
        count += missing
    if same and query.start.id is None:
        print_note(f"Without a vote, because it is the query itself: {', '.join(shown(hit.path) for hit in same)}")
    voters = [hit.id for hit in hits if hit not in same][: query.k]
    return vote([record.labels for record in engine.index.known(voters)])


def _matches(engine: SearchEngine, start: Example) -> Callable[[Hit], bool]:
    """Whether a hit is what the search starts from: by its id, its bytes or, for a vector, its numbers."""
    import numpy as np

    if start.id is not None:
        return lambda hit: hit.id == start.id
    if isinstance(start.source, bytes):
        return same_file(start.source)
    return lambda hit: np.allclose(engine.index.feature(hit.id), start.source, rtol=1e-5, atol=1e-7)  # type: ignore[arg-type]


# -- words ------------------------------------------------------------------------------------------------------------

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

    An index made with CLIP or SigLIP understands words by itself. Others need a network that knows the classes of
    ImageNet, and a sentence encoder, which comes in a package. What the network sees in the images is stored for
    searching and for the filter --tag. No picture is read. An indexing run does the same where it can, so this is for
    older indexes, and for networks whose weights have to be downloaded for it.
    """
    from searchengine.text.encoder import install_packages
    from searchengine.text.search import text_search
    from searchengine.text.seen import keep_seen, keep_tags
    from searchengine.text.words import Words

    if install:
        install_packages(print_note)
    with closing(open_index(settings)) as index:
        text_search(index, print_note)
        with suppress(SearchEngineError):  # a folder that is only read, or a model that has none
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

    Without an ID, all images are listed. The network can be wrong: about five of a hundred tags are, where the picture
    shows one of its classes, and more where it shows none. Images without a tag are left out.
    """
    from searchengine.text.seen import tags_of
    from searchengine.text.words import Words

    with closing(open_index(settings)) as index:
        tagged = tags_of(Words.of(index), index, ids or None)
    if as_json:
        print_json([{"id": record.id, "path": record.path, "tags": list(map(asdict, seen))} for record, seen in tagged])
        return
    for record, seen in tagged:
        names = ", ".join(f"{tag.name} ({tag.probability:.0%})" for tag in seen)
        print_result(f"{record.id}  {shown(record.path)}  {names}")
    if not tagged:
        print_note("The network is sure of nothing in these images.")
