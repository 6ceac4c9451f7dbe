"""How numbers and names are written on the pages."""

from __future__ import annotations

from flask import Flask

from searchengine.analyse.evaluation.wording import interval_text
from searchengine.feedback import rule_title
from searchengine.web.headers import nonce
from searchengine.web.judging import rule_note


def grouped(number: int) -> str:
    """4000 -> "4 000"."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, one: str, many: str) -> str:
    """1 -> "1 picture", 4000 -> "4 000 pictures"."""
    return f"{grouped(number)} {one if number == 1 else many}"


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
    """0.934 -> "93 %"; what is not quite all or nothing is not called so."""
    rounded = f"{100 * share:.0f}"
    if rounded == "100" and share < 1:
        return "> 99\N{NO-BREAK SPACE}%"
    if rounded == "0" and share > 0:
        return "< 1\N{NO-BREAK SPACE}%"
    return f"{rounded}\N{NO-BREAK SPACE}%"


def teach(app: Flask) -> None:
    """Lets the templates use the above."""
    app.add_template_filter(grouped)
    app.add_template_filter(file_size)
    app.add_template_filter(decimal)
    app.add_template_filter(percent)
    app.add_template_filter(rule_title, "rule")
    app.add_template_filter(rule_note)
    app.add_template_filter(interval_text, "interval")
    app.add_template_global(counted)
    app.add_template_global(nonce)
