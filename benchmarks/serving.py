"""The server under load: responses to many clients, and to others beside misbehaving clients, and its memory.

    python benchmarks/serving.py                  a minute of 50 clients, compared with gunicorn's own threads
    python benchmarks/serving.py --index DIR      the same with your own index, without its pictures
    python benchmarks/serving.py --slow 200       also other clients, beside this many slow clients of each kind
    python benchmarks/serving.py --hostile 20     also other clients, while four upload slow pictures for 20 s
    python benchmarks/serving.py --uploads 2000   also the worker's memory, with 8 clients that upload

`--seconds 0` skips the first part. `--nginx` puts nginx in front, with the configuration that README.md recommends.
Everything is local, so the clients take processor time from the server.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from measuring import load_average, percentile, say, table
from photos import write_photos
from servers import ROOT, Server

from searchengine.index.local import LocalIndex

sys.path.insert(0, str(ROOT))
from tests.torture.clients import WITHOUT_FILES, Answer, a_photo, ask_all, get, upload
from tests.web.slow_clients import WAYS, slow_clients

_IMAGES = 200
_KEPT = 5.0  # s that slow clients hold their connections
_NGINX = """
daemon off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; {location} }}
}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--index", type=Path, metavar="DIR", help="use this index instead of synthetic photos; see above"
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--slow", type=int, metavar="N", help="number of slow clients of each kind")
    parser.add_argument("--hostile", type=float, metavar="SECONDS", help="duration of uploads that are slow to decode")
    parser.add_argument("--uploads", type=int, metavar="N", help="photos uploaded by 8 clients")
    parser.add_argument("--nginx", action="store_true", help="put nginx in front")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serving-") as name:
        folder = Path(name)
        if options.index:
            print(under_load(options.index, folder, options, ways=WITHOUT_FILES), flush=True)
            return
        index = make_index(folder)
        if options.seconds:
            print(under_load(index, folder, options), flush=True)
        if options.slow:
            print(beside_slow_clients(index, folder, options), flush=True)
        if options.hostile:
            print(beside_hostile_uploads(index, folder, options), flush=True)
        if options.uploads:
            print(memory_of_uploads(index, options.uploads), flush=True)


def make_index(folder: Path) -> Path:
    """Make an index of synthetic photos, the first of which is large."""
    write_photos(folder / "images", _IMAGES, (640, 480))
    write_photos(folder / "images" / "large", 1, (4000, 3000), quality=95)
    command = [sys.executable, str(ROOT / "offline_index.py"), str(folder / "images"), "--model", "efficientnet-lite0"]
    subprocess.run([*command, "--index-dir", str(folder / "index")], check=True, stdout=subprocess.DEVNULL)
    return folder / "index"


@contextmanager
def serving(index: Path, folder: Path, *, nginx: bool = False, settings: tuple[str, ...] = ()) -> Iterator[Server]:
    """Start the server; ``port`` is that of nginx, if it is in front."""
    shared = ("-c", str(ROOT / "gunicorn.conf.py"), "--chdir", str(ROOT))
    environment = {"SEARCHENGINE_INDEX_DIR": str(index), "SEARCHENGINE_PROXIES": str(int(nginx))}
    server = Server("app:create_app()", environment, *shared, *settings, threads=32)
    try:
        server.seconds_to(a_photo(0))
        if not nginx:
            yield server
            return
        backend, server.port = server.port, server.port + 1
        with _nginx(folder, backend, server.port):
            yield server
    finally:
        server.close()


@contextmanager
def _nginx(folder: Path, backend: int, port: int) -> Iterator[None]:
    """Start nginx in front of a port, with the location of README.md at the root."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    location = readme[readme.index("    location /photos/ {") : readme.index("        client_max_body_size")]
    location = location.replace("/photos/", "/").replace("127.0.0.1:8000", f"127.0.0.1:{backend}")
    location = location.replace("        proxy_set_header X-Forwarded-Prefix /photos;\n", "")
    file = folder / "nginx.conf"
    file.write_text(
        _NGINX.format(folder=folder, port=port, location=location + "client_max_body_size 30m; }"), encoding="utf-8"
    )
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(file)], stderr=subprocess.DEVNULL)
    try:
        while get(port, "/healthz").status != 200:
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def under_load(index: Path, folder: Path, options: argparse.Namespace, **asking: Any) -> str:
    """Measure responses to clients that send requests one by one, from our server and from gunicorn's threads."""
    rows: list[tuple[object, ...]] = []
    rates = []
    with closing(LocalIndex.open(index)) as opened:
        ids = len(opened)
    for name, settings in (("ours", ()), ("gthread", ("--worker-class=gthread",))):
        say(f"{name} ...")
        with serving(index, folder, nginx=options.nginx, settings=settings) as server:
            end = time.monotonic() + options.seconds
            answers = ask_all(server.port, options.clients, lambda end=end: time.monotonic() > end, ids=ids, **asking)  # type: ignore[misc]
            rates.append(len(answers) / options.seconds)
            ways = ["all", *sorted({answer.way for answer in answers})]
            rows += [(name, way, *_row([a for a in answers if way in ("all", a.way)])) for way in ways]
            say(f"{name}: peak of the worker {server.peak():.0f} MiB")
    header = ("server", "requests for", "answers", "errors", "p50, s", "p95, s", "p99, s", "longest, s")
    return (
        f"{options.clients} clients, {options.seconds:.0f} s{', behind nginx' * options.nginx}: {rates[0]:.0f} and "
        f"{rates[1]:.0f} answers/s, ratio {rates[0] / rates[1]:.2f}. Load average {load_average()}.\n\n"
        + table(header, rows)
    )


def beside_slow_clients(index: Path, folder: Path, options: argparse.Namespace) -> str:
    """Measure responses to other clients, from the first byte of the slow clients on."""
    rows: list[tuple[object, ...]] = []
    with serving(index, folder, nginx=options.nginx) as server:
        large = f"/images/{_IMAGES + 1}"
        photo = a_photo(1)
        for way in WAYS:
            say(f"{way} ...")
            answers: list[Answer] = []
            stop = threading.Event()

            def others(answers: list[Answer] = answers, stop: threading.Event = stop) -> None:
                while not stop.is_set():
                    answers.extend((get(server.port, "/search?id=1"), get(server.port, "/thumbnails/1")))
                    answers.append(upload(server.port, photo))

            with ThreadPoolExecutor(2) as pool:
                asking = [pool.submit(others) for _ in range(2)]
                with slow_clients(way, options.slow, server.port, large) as clients:
                    end = time.monotonic() + _KEPT
                    while time.monotonic() < end:
                        clients.drip()
                        time.sleep(0.5)
                    stop.set()
                for client in asking:
                    client.result()
            rows.append((way, *_row(answers)))
    header = (f"{options.slow} clients", "answers to others", "errors", "p50, s", "p95, s", "p99, s", "longest, s")
    return f"{'Behind nginx. ' * options.nginx}Load average {load_average()}.\n\n" + table(header, rows)


def beside_hostile_uploads(index: Path, folder: Path, options: argparse.Namespace) -> str:
    """Measure responses to other clients while four repeatedly upload pictures that are slow to decode."""
    import uploads

    rows: list[tuple[object, ...]] = []
    photo, other = a_photo(1), a_photo(1, format_="WEBP")
    with serving(index, folder, nginx=options.nginx) as server, ThreadPoolExecutor(5) as pool:
        for name in uploads.SLOW:
            hostile = uploads.SLOW[name]()
            end = time.monotonic() + options.hostile
            attacks = [pool.submit(_repeat_upload, server.port, hostile, end) for _ in range(4)]
            answers: list[Answer] = []
            while time.monotonic() < end:
                answers += [get(server.port, "/search?id=1"), upload(server.port, photo, "JPEG")]
                answers.append(upload(server.port, other, "WebP"))
            ways = ("/search?id=1", "JPEG", "WebP")
            rows += [(name, way, *_row([answer for answer in answers if answer.way == way])) for way in ways]
            say(f"{name}: {sum(attack.result() for attack in attacks)} uploads")
    header = ("uploaded by four", "others ask for", "answers", "errors", "p50, s", "p95, s", "p99, s", "longest, s")
    return f"Load average {load_average()}.\n\n" + table(header, rows)


def _repeat_upload(port: int, data: bytes, end: float) -> int:
    count = 0
    while time.monotonic() < end:
        upload(port, data)
        count += 1
    return count


def memory_of_uploads(index: Path, count: int) -> str:
    """Measure the memory of the worker before, during and after."""
    photos = [
        a_photo(seed, (1600 + 100 * (seed % 5), 1200), format_=("JPEG", "PNG", "WEBP")[seed % 3]) for seed in range(9)
    ]
    rows: list[tuple[object, ...]] = []
    with serving(index, index.parent) as server, ThreadPoolExecutor(8) as pool:
        rows.append((0, f"{server.resident():.0f}", "", ""))
        began = time.monotonic()
        for done in range(0, count, count // 10):
            answers = list(pool.map(lambda i: upload(server.port, photos[i % len(photos)]), range(count // 10)))
            errors = sum(not answer.good for answer in answers)
            rows.append((done + count // 10, f"{server.resident():.0f}", f"{server.peak():.0f}", errors))
        say(f"{time.monotonic() - began:.0f} s")
        time.sleep(5)
        rows.append(("5 s later", f"{server.resident():.0f}", f"{server.peak():.0f}", ""))
    return f"Load average {load_average()}.\n\n" + table(("uploads", "worker, MiB", "peak, MiB", "errors"), rows)


def _row(answers: list[Answer]) -> tuple[object, ...]:
    seconds = [answer.seconds for answer in answers]
    if not seconds:
        return 0, 0, "", "", "", ""
    ranks = (f"{percentile(seconds, rank):.3f}" for rank in (0.5, 0.95, 0.99, 1.0))
    return len(answers), sum(not answer.good for answer in answers), *ranks


if __name__ == "__main__":
    main()
