"""Have a process of its own do what needs TensorFlow: one JSON object goes in, and lines of JSON come out."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from searchengine import errors
from searchengine.errors import ExtractorError

Say = Callable[[str], None]


def ask(command: Sequence[str], request: Mapping[str, Any], say: Say, *, doing: str) -> dict[str, Any]:
    """The last answer of ``python COMMAND``; ``say`` gets its ``{"progress": text}``.

    ``doing`` begins the sentence where it fails, "Preparing VGG16". Of ``{"error": class, "message": text}`` comes
    that error; ExtractorError where the process ends otherwise than well.
    """
    answer: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603  (nothing in it comes from outside)
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(),
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
            for line in process.stdout:
                with contextlib.suppress(ValueError):  # a line that is no answer: the exit code tells the rest
                    answer = json.loads(line)
                if "progress" in answer:
                    say(answer["progress"])
        except BaseException:
            process.kill()
            raise
        code = process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    if "error" in answer:
        raise getattr(errors, answer["error"], ExtractorError)(answer["message"])
    if code == 0 and answer and "progress" not in answer:
        return answer
    if code < 0:
        raise ExtractorError(
            f"{doing} was stopped by signal {-code}, perhaps for want of memory: it takes about 3 GB once. Free some, "
            "or prepare it on another machine and copy the cache."
        )
    raise ExtractorError(f"{doing} failed: {said[-2000:] or f'exit code {code}'}")


def serve(answer_to: Callable[[Mapping[str, Any], Say], Mapping[str, Any]]) -> int:
    """The other side: answer the one request on stdin; gives the exit status."""
    with _answers() as answer:
        try:
            answer(answer_to(json.load(sys.stdin), lambda text: answer({"progress": text})))
        except ExtractorError as error:
            answer({"error": type(error).__name__, "message": str(error)})
            return 1
        except Exception as error:  # whatever it is, the person who waits for it wants a sentence
            message = f"TensorFlow failed: {type(error).__name__}: {error}"
            answer({"error": "ExtractorError", "message": message})
            raise
    return 0


@contextlib.contextmanager
def _answers() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the libraries print is no answer

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    with answers:
        yield answer


def _environment() -> dict[str, str]:
    """Of this process, so that the same package is found, and TensorFlow stays quiet and off the GPU."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONWARNINGS": "ignore",  # those of TensorFlow, which are not ours to mend
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    home = Path(__file__).resolve().parents[2]
    if home.name not in {"site-packages", "dist-packages"}:  # not installed: a source tree
        environment["PYTHONPATH"] = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
    return environment
