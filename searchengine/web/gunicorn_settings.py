"""How gunicorn serves the pages; ``gunicorn.conf.py`` at the top of the project takes these settings and hooks.

One process with threads: it holds the model once (VGG16 takes 0.9 GB), and the heavy work releases Python's lock. No
thread waits for a slow client (``gunicorn_worker.py``); how many decode or embed at a time is bounded elsewhere.
The index and the model are opened after the fork, in the worker. Only this machine can reach the server unless BIND
names another address.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from searchengine.address import Address, MilvusAddress
from searchengine.errors import IndexUnavailableError, SearchEngineError, file_error
from searchengine.processors import limit_library_threads
from searchengine.settings import load_settings

limit_library_threads()
try:
    _settings = load_settings()
except SearchEngineError as error:
    sys.exit(str(error))

bind = f"[{_settings.bind}]:{_settings.port}" if ":" in _settings.bind else f"{_settings.bind}:{_settings.port}"
workers = 1
worker_class = "searchengine.web.gunicorn_worker.HTTPWorker"
threads = _settings.threads
preload_app = False
timeout = 120  # s without a sign of life from the worker; a slow search gives one all the while
graceful_timeout = 10  # s for running requests when the server is stopped
keepalive = 15  # s; a page with many thumbnails comes over few connections
control_socket_disable = True  # one socket file in the home folder, which two servers would fight over


def on_starting(server: Any) -> None:
    """Before anything listens: check that every index opens, and that its model can be loaded without TensorFlow."""
    warn_if_open(server.cfg.address)
    addresses = _settings.index_dir
    for address in addresses:
        try:
            _prepare(address)
        except (SearchEngineError, OSError) as error:
            # The sentence on stderr, and exit code 1.
            sentence = file_error(error) if isinstance(error, OSError) else str(error)
            sys.exit(f"{address}: {sentence}" if len(addresses) > 1 else sentence)


def warn_if_open(addresses: Sequence[tuple[str, int] | str | bytes]) -> None:
    """Say who can see the photos where a server listens for other machines too; a path is a Unix socket's."""
    from searchengine.web.security import is_loopback

    hosts = [address[0] for address in addresses if isinstance(address, tuple)]
    if opened := [str(host) for host in hosts if not is_loopback(str(host))]:
        print(  # noqa: T201
            f"WARNING: the server listens on {', '.join(opened)}. Everyone who reaches this machine over the network "
            f"sees every photo in full{', with the place where it was taken' if _settings.keep_location else ''}. To "
            "keep them to yourself, leave BIND (--host) out; to let some people in, put a reverse proxy with a "
            "password in front.",
            file=sys.stderr,
        )


def _prepare(address: Address) -> None:
    from searchengine.extractors import ExtractorRecipe, cache
    from searchengine.index.catalog import Catalog

    if isinstance(address, MilvusAddress):
        _prepare_apart(address)
        return
    catalog = Catalog.open(address)
    try:
        recipe = ExtractorRecipe.of_manifest(catalog.need("spec"), catalog.get("weights_file"))
    finally:
        catalog.close()  # an open connection would be shared with the worker
    if _settings.runtime != "keras" and recipe.spec.embeds:
        recipe.export()
        cache.note_use(recipe.spec, address)


def _prepare_apart(address: MilvusAddress) -> None:
    """In another process: what has spoken to Milvus must not fork."""
    command = [sys.executable, "-m", "searchengine", "prepare", "--index-dir", str(address)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603  (ours)
    if done.returncode:
        raise IndexUnavailableError(f"{address} cannot be served: see above.")
