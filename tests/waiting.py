"""Waiting for what threads and processes do beside a test."""

from __future__ import annotations

import time
from collections.abc import Callable

_PATIENCE = 120  # s, on a machine that has much else to do


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again; fail if it never comes true."""
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
