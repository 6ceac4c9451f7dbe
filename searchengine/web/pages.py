"""The first page, and what all pages share: their query, the numbers to choose from, the filters of the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from flask import render_template, request, url_for

from searchengine.analyse.evaluation.report import interval_text
from searchengine.errors import SearchEngineError
from searchengine.feedback import rule_title
from searchengine.files import file_size
from searchengine.index.filters import Filter
from searchengine.index.types import ImageRecord, IndexStatus
from searchengine.query import Box
from searchengine.settings import MAX_K
from searchengine.spelling import parse_id
from searchengine.web.cards import Card, CardUrls, card_of, query_style
from searchengine.web.choices import Address, Choice, index_choices
from searchengine.web.filters import FilterPanel, filter_panel
from searchengine.web.indexes import IndexBlueprint, ServedIndex, this_index, this_site
from searchengine.web.queries import how_many, rule_note
from searchengine.web.uploads import DecodedUpload, why_no_uploads

K_CHOICES = (10, 30, 60, 120, 240, MAX_K)

pages = IndexBlueprint("pages", __name__)


@dataclass(frozen=True)
class Page:
    """What a template shows: each field is a variable of it."""

    template: ClassVar[str]

    def render(self) -> str:
        """The page as HTML."""
        return render_template(self.template, **vars(self))


@dataclass(frozen=True)
class HomePage(Page):
    """The upload form, and images of the collection, of which there are ``total`` that pass the filter.

    They are a sample, or all of them in the order of their ids, some at a time. ``more`` leads to a larger sample or to
    what follows, ``whole`` from a sample to all.
    """

    template: ClassVar[str] = "home.html"

    status: IndexStatus
    extractor: str
    cards: list[Card]
    k: int
    k_choices: list[int]
    total: int
    filter: FilterPanel
    kept: dict[str, list[str]]
    form: dict[str, str | None]
    more: str | None
    whole: str | None


@dataclass(frozen=True)
class QueryPage(Page):
    """What every page shows of its query, which is an image of the index, an upload, or neither."""

    record: ImageRecord | None
    upload: DecodedUpload | None
    k: int
    indexes: list[Choice]

    def render(self) -> str:
        """The page as HTML; templates also get how the query looks."""
        query = {
            "query": None if self.record is None else card_of(self.record),
            "query_style": _style_of_query(self.record, self.upload),
            "file_gone": self.record is not None and self.record.has_picture and not self.record.has_file,
            "k_choices": k_choices(self.k),
        }
        return render_template(self.template, **vars(self), **query)


@pages.get("/")
def home() -> str:
    """The first page."""
    index, settings = this_index().engine.index, this_site().settings
    k = how_many("k", settings.default_k)
    n = how_many("n", settings.sample)
    status = index.status()
    filter, cursor = Filter.from_fields(request.args.to_dict(flat=False)), parse_id(request.args.get("cursor"))

    def address(**values: Any) -> str:
        return url_for("pages.home", **{"k": None if k == settings.default_k else k, **values})

    if filter or cursor is not None or request.args.get("all"):
        records = index.page(filter, cursor, n + 1)
        shown, follows = records[:n], len(records) > n
        kept = {"n": None if n == settings.sample else n, **filter.to_fields()}
        more = address(cursor=shown[-1].id, **kept) if follows else None
        whole = None
    else:
        shown, larger = index.sample(n), min(2 * n, MAX_K, status.images)  # those shown already are among them
        more = address(n=larger) if larger > len(shown) else None
        whole = address(all=1) if status.images > len(shown) else None
    return HomePage(
        status=status,
        extractor=status.extractor,
        cards=[card_of(record) for record in shown],
        k=k,
        k_choices=k_choices(k),
        total=index.count(filter) if filter else status.images,
        filter=filter_panel(index, filter, lambda other: Address(address(**other.to_fields()))),
        kept=filter.to_fields(),
        form={"k": None if k == settings.default_k else str(k)},
        more=more,
        whole=whole,
    ).render()


@pages.app_context_processor
def common() -> dict[str, Any]:
    """What every template may use; a page may have its own values."""
    settings = this_site().settings
    try:
        no_pictures, indexes = why_no_uploads(this_index().engine.spec), index_choices()
    except (SearchEngineError, OSError):  # a page that says what is wrong with an index does without it
        no_pictures, indexes = "This index cannot be read at present.", []
    return {
        "max_bytes": settings.max_upload_bytes,
        "default_k": settings.default_k,
        "k": settings.default_k,
        "k_choices": k_choices(settings.default_k),
        "no_pictures": no_pictures,
        "indexes": indexes,
    }


@pages.app_template_global("addresses")
def card_urls(index: ServedIndex | None = None, endpoint: str = "search.by_id", **values: Any) -> CardUrls:
    """The addresses of the images of an index; None is this one."""
    return CardUrls(index, endpoint, values)


def _style_of_query(record: ImageRecord | None, upload: DecodedUpload | None) -> str:
    """The proportions and tint of the query's image, for the page's style element."""
    if upload is not None:
        return query_style(upload.width, upload.height)
    if record is None:
        return ""
    return query_style(record.width or 4, record.height or 3, record.colour)


def k_choices(k: int) -> list[int]:
    """How many images can be asked for, ``k`` among them."""
    return sorted({*K_CHOICES, k})


def next_k(shown: int, k: int, images: int) -> int | None:
    """The next larger k, or None where nothing more can be shown on one page."""
    step = max(k, 30) if k < 120 else 120
    return min(k + step, MAX_K) if shown == k < min(images, MAX_K) else None


def query_json(
    record: ImageRecord | None, upload: DecodedUpload | None, box: Box | None = None
) -> dict[str, Any] | None:
    """What was searched by, in a JSON answer; None where it is feedback alone."""
    part = {} if box is None else {"box": box.part}
    if upload is not None:
        return {"upload": upload.name, "width": upload.width, "height": upload.height, **part}
    return None if record is None else {"id": record.id, "path": record.path, **part}


@pages.app_template_filter()
def grouped(number: int) -> str:
    """4000 -> "4 000"."""
    return f"{number:,}".replace(",", " ")


@pages.app_template_global()
def counted(number: int, singular: str, plural: str) -> str:
    """1 -> "1 picture", 4000 -> "4 000 pictures"."""
    return f"{grouped(number)} {singular if number == 1 else plural}"


@pages.app_template_filter()
def decimal(number: float) -> str:
    """Three places, and no minus before a zero."""
    return f"{number:.3f}".replace("-0.000", "0.000")


@pages.app_template_filter()
def percent(share: float) -> str:
    """0.934 -> "93 %"; only 0 and 1 themselves become 0 % and 100 %."""
    rounded = f"{100 * share:.0f}"
    if rounded == "100" and share < 1:
        return "> 99\N{NO-BREAK SPACE}%"
    if rounded == "0" and share > 0:
        return "< 1\N{NO-BREAK SPACE}%"
    return f"{rounded}\N{NO-BREAK SPACE}%"


pages.add_app_template_filter(file_size)
pages.add_app_template_filter(rule_title, "rule")
pages.add_app_template_filter(rule_note)
pages.add_app_template_filter(interval_text, "interval")
