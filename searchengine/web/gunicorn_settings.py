"""The gunicorn configuration; ``gunicorn.conf.py`` at the top of the project imports it.

The server is one process with threads: it holds the model once (VGG16 takes 0.9 GB), and the heavy work releases the
GIL. No thread waits for a slow client (``gunicorn_worker.py``), and the number of threads that decode or embed at a
time is limited elsewhere. The index and the model are opened after the fork, in the worker. The server is reachable
only from this machine unless BIND names another address.
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
timeout = 120  # s without a heartbeat from the worker, which sends one during slow searches too
graceful_timeout = 10  # s for running requests to finish when the server stops
keepalive = 15  # s; lets a page load many thumbnails over few connections
control_socket_disable = True  # it is one file in the home folder, so two servers would conflict


def on_starting(server: Any) -> None:
    """Check, before the server listens, that each index opens and its model can be loaded without TensorFlow."""
    warn_if_open(server.cfg.address)
    addresses = _settings.index_dir
    for address in addresses:
        try:
            _prepare(address)
        except (SearchEngineError, OSError) as error:
            message = file_error(error) if isinstance(error, OSError) else str(error)
            sys.exit(f"{address}: {message}" if len(addresses) > 1 else message)


def warn_if_open(addresses: Sequence[tuple[str, int] | str | bytes]) -> None:
    """Warn if other machines can reach the server, and say what they see; a path is that of a Unix socket."""
    from searchengine.web.security import is_loopback

    hosts = [address[0] for address in addresses if isinstance(address, tuple)]
    if opened := [str(host) for host in hosts if not is_loopback(str(host))]:
        print(  # noqa: T201
            f"WARNING: the server listens on {', '.join(opened)}. Everyone who can reach this machine over the network "
            f"can see every photo in full{', including where it was taken' if _settings.keep_location else ''}. To "
            "keep the photos to yourself, leave out BIND (--host). To share them with some people, put a reverse proxy "
            "with a password in front.",
            file=sys.stderr,
        )


def _prepare(address: Address) -> None:
    from searchengine.extractors import ExtractorRecipe, cache
    from searchengine.index.catalog import Catalog

    if isinstance(address, MilvusAddress):
        _prepare_milvus(address)
        return
    catalog = Catalog.open(address)
    try:
        recipe = ExtractorRecipe.of_manifest(catalog.need("spec"), catalog.get("weights_file"))
    finally:
        catalog.close()  # the worker would inherit an open connection
    if _settings.runtime != "keras" and recipe.spec.embeds:
        recipe.export()
        cache.note_use(recipe.spec, address)


def _prepare_milvus(address: MilvusAddress) -> None:
    """Prepare an index in another process, because a process that has connected to Milvus must not fork."""
    command = [sys.executable, "-m", "searchengine", "prepare", "--index-dir", str(address)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)  # noqa: S603  (ours)
    if done.returncode:
        raise IndexUnavailableError(f"{address} cannot be served: see the message above.")
