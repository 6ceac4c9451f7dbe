"""How the templates write numbers and names."""

from __future__ import annotations

from flask import Flask

from searchengine.analyse.evaluation.report import interval_text
from searchengine.feedback import rule_title
from searchengine.web.queries import rule_note


def grouped(number: int) -> str:
    """4000 -> "4 000"."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, singular: str, plural: str) -> str:
    """1 -> "1 picture", 4000 -> "4 000 pictures"."""
    return f"{grouped(number)} {singular if number == 1 else plural}"


def file_size(size: int) -> str:
    """A number of bytes in the largest unit that leaves it above one."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def decimal(number: float) -> str:
    """Three places, and no minus before a zero."""
    return f"{number:.3f}".replace("-0.000", "0.000")


def percent(share: float) -> str:
    """0.934 -> "93 %"; only 0 and 1 themselves become 0 % and 100 %."""
    rounded = f"{100 * share:.0f}"
    if rounded == "100" and share < 1:
        return "> 99\N{NO-BREAK SPACE}%"
    if rounded == "0" and share > 0:
        return "< 1\N{NO-BREAK SPACE}%"
    return f"{rounded}\N{NO-BREAK SPACE}%"


def add_filters(app: Flask) -> None:
    """Let the templates of ``app`` use these."""
    app.add_template_filter(grouped)
    app.add_template_filter(file_size)
    app.add_template_filter(decimal)
    app.add_template_filter(percent)
    app.add_template_filter(rule_title, "rule")
    app.add_template_filter(rule_note)
    app.add_template_filter(interval_text, "interval")
    app.add_template_global(counted)
