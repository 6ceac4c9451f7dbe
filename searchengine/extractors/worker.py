"""Runs what needs TensorFlow in a subprocess: one JSON object goes in, and lines of JSON come out.

``python -m searchengine.extractors.export TASK`` reads one JSON object from stdin, and answers on stdout with one JSON
object a line: any number of ``{"progress": text}``, then the result or ``{"error": class, "message": text}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from searchengine import errors
from searchengine.errors import ExtractorError, SearchEngineError
from searchengine.extractors.frameworks import NO_AVX
from searchengine.files import parse_json
from searchengine.processes import environment, python
from searchengine.progress import Say

Task = Callable[[Mapping[str, Any], Say], Mapping[str, Any]]
_COMMAND = ("-m", "searchengine.extractors.export")


def run(task: str, request: Mapping[str, Any], say: Say, *, doing: str) -> dict[str, Any]:
    """The result of a task, "describe" or "export"; ``say`` gets the progress.

    ``doing`` begins the sentence of a failure: "Preparing VGG16". An error of this package is raised again here;
    ExtractorError if the subprocess fails in another way.
    """
    with tempfile.TemporaryFile() as log:
        answer, code = _asked(task, request, say, log)
        log.seek(0)
        output = log.read().decode(errors="replace").strip()
    if "error" in answer:
        raise getattr(errors, answer["error"], ExtractorError)(answer["message"])
    if code == 0 and answer and "progress" not in answer:
        return answer
    if code == -signal.SIGILL:
        raise ExtractorError(f"{doing} was stopped by an illegal instruction. {NO_AVX}")
    if code < 0:
        raise ExtractorError(
            f"{doing} was stopped by signal {-code}, perhaps because memory ran out: this takes about 3 GB, once. Free "
            "some, or prepare it on another machine and copy the cache."
        )
    raise ExtractorError(f"{doing} failed: {output[-2000:] or f'exit code {code}'}")


def _asked(task: str, request: Mapping[str, Any], say: Say, log: IO[bytes]) -> tuple[dict[str, Any], int]:
    """The last answer of the subprocess, and its exit code; what else it prints goes to ``log``."""
    variables = environment(
        KERAS_BACKEND="tensorflow",
        TF_CPP_MIN_LOG_LEVEL="3",
        PYTHONWARNINGS="ignore",  # those of TensorFlow
        CUDA_VISIBLE_DEVICES="-1",  # a GPU is not needed
    )
    pipe = subprocess.PIPE
    answer: dict[str, Any] = {}
    with subprocess.Popen(  # noqa: S603  (nothing in it comes from outside)
        python(*_COMMAND, task), stdin=pipe, stdout=pipe, stderr=log, env=variables
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has already ended: the exit code says why
                process.stdin.write(json.dumps(request).encode())
                process.stdin.close()
            for line in process.stdout:
                with contextlib.suppress(ValueError):  # not an answer: the exit code says the rest
                    answer = parse_json(line)
                if "progress" in answer:
                    say(answer["progress"])
        except BaseException:
            process.kill()
            raise
        return answer, process.wait()


def serve(task: Task) -> int:
    """The subprocess: perform one task; gives the exit status."""
    with _answers() as answer:
        try:
            answer(task(parse_json(sys.stdin.read()), lambda text: answer({"progress": text})))
        except SearchEngineError as error:
            answer({"error": type(error).__name__, "message": str(error)})
            return 1
        except Exception as error:  # whatever it is, the waiting user gets a sentence
            message = f"TensorFlow failed: {type(error).__name__}: {error}"
            answer({"error": "ExtractorError", "message": message})
            raise
    return 0


@contextlib.contextmanager
def _answers() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that output of the libraries is not taken for an answer

    def answer(values: Mapping[str, Any]) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    with answers:
        yield answer
