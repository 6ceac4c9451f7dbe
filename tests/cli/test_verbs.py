"""The verbs and their options: complete, loaded only when called, with the defaults that --help states."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from typing import get_args

import click
import pytest

from searchengine.analyse.neighbours import NeighboursOptions
from searchengine.cli import exchange, main, offline_index, options
from searchengine.cli.main import VERBS, load_verb
from searchengine.exchange import open_images
from searchengine.exchange.collections import DATASETS
from searchengine.extractors import networks, spec
from searchengine.indexing import IndexingOptions
from searchengine.learn.triplets import Recipe
from searchengine.learn.triplets.learner import SPLITS, TRIPLETS
from searchengine.settings import Precision, Runtime

Captured = pytest.CaptureFixture[str]

_FILTER = (
    "--label --folder --after --before --format --camera --tag --min-width --max-width --min-height --max-height --ids "
)
_QUERY = "--box --like --dislike --rule -k --k --cursor --distinct --copies --metric "
_MILVUS = "--milvus-token --milvus-tls --milvus-timeout --milvus-consistency --milvus-search-params "
_ENGINE = "--index-dir --images-dir --precision --runtime --json "
PROMISED = {
    "index": "--exclude --limit --labels --model --layer --pooling --normalize --weights --preprocessing --input-size "
    "--scaled-decoding --metric --batch-size --rebuild --prune --prune-all --relocate --strict "
    "--no-default-excludes --follow-links --check-content "
    "--index-dir --precision --runtime --ann --ray --ray-actors --ray-cpus --ray-gpus --ray-store-mb --json "
    + _MILVUS
    + "--milvus-index-type --milvus-index-params --milvus-partitions",
    "search": _ENGINE + _MILVUS + _QUERY + _FILTER + "--id --vector --text --vote",
    "words": "--index-dir --images-dir --install --json",
    "tags": "--index-dir --images-dir --json",
    "neighbours": "--index-dir --images-dir --out -k --k --metric --format --pictures --json",
    "evaluate": _ENGINE + _MILVUS + "--queries --metric --recall-at --report --seed",
    "classify": _ENGINE + "--id --fit --method -k --k",
    "recommend": _ENGINE + _QUERY + _FILTER + "--query --text",
    "train": "--out --labels --exclude --backbone --model --layer --pooling --weights --preprocessing --input-size "
    "--thaw --precision --runtime --dim --margin --triplets --batch --images-a-class --learning-rate --weight-decay "
    "--blend --dropout --views --split --validation --epochs --patience --seed --restart --json",
    "map": "--index-dir --images-dir --perplexity --iterations --seed --rebuild --png --json",
    "cluster": "--index-dir --images-dir -k --k --threshold --seed --out --json",
    "import": "--index-dir --features --ids --labels --paths --images --name --normalize --metric --append --json",
    "export": _MILVUS + "--index-dir --images-dir --out --json",
    "download": "--to --no-labels --archive --keep --classes --images --split --json",
    "serve": _MILVUS + "--index-dir --images-dir --host --port --threads --keep-location",
    "prepare": "--index-dir --weights --precision --runtime",
    "info": _MILVUS + "--index-dir --skipped --json",
    "ann": "--index-dir --remove --json",
    "verify": "--index-dir --json",
    "config": "--json",
    "models": "--json",
    "cache": "--clear --json",
    "demo": "--dir --host --port",
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_options(verb: str) -> None:
    found = [name for option in load_verb(verb).params if isinstance(option, click.Option) for name in option.opts]
    assert sorted(found) == sorted(PROMISED[verb].split())


def test_every_verb_is_listed(capsys: Captured) -> None:
    assert main(["--help"]) == 0
    listed = re.findall(r"^  (\w+)  +\w", capsys.readouterr().out, re.MULTILINE)
    assert listed == list(VERBS) == list(PROMISED)


def python(code: str, **environment: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, check=True, capture_output=True, text=True
    )
    return process.stdout


def test_help_loads_nothing_heavy() -> None:
    heavy = ("numpy", "PIL", "pydantic", "flask", "openvino", "tensorflow", "searchengine.extractors")
    commands = [["--help"], *([verb, "--help"] for verb in VERBS), ["search", "--id", "x"]]
    code = f"""
import sys
from searchengine.cli import main
loaded = {{}}
for command in {commands!r}:
    main(command)
    loaded |= {{name: command for name in {heavy!r} if name in sys.modules and name not in loaded}}
print("loaded:", loaded)
"""
    assert python(code).splitlines()[-1] == "loaded: {}"


def test_only_the_called_verb_is_loaded() -> None:
    code = "import sys\nfrom searchengine.cli import main\nmain(['config'])\nprint(sorted(sys.modules))"
    loaded = python(code).splitlines()[-1]
    assert "searchengine.cli.info" in loaded
    assert "searchengine.cli.train" not in loaded


COMPLETE = "from searchengine.cli import main\nmain()"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("searchengine ", {"plain,search", "plain,index", "plain,demo"}),
        ("searchengine search --m", {"plain,--metric"}),
        ("searchengine search --metric co", {"plain,cosine"}),
        ("searchengine export --out ", {"file,"}),
    ],
)
def test_shell_completion(words: str, expected: set[str]) -> None:
    given = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    assert expected <= set(python(COMPLETE, _SEARCHENGINE_COMPLETE="bash_complete", **given).splitlines())


def test_the_script_for_shell_completion() -> None:
    assert "_searchengine_completion" in python(COMPLETE, _SEARCHENGINE_COMPLETE="bash_source")


def test_several_values_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: dict[str, object] = {}
    monkeypatch.setattr(exchange.download, "callback", lambda **values: parsed.update(values) or 0)
    command = ["download", "open-images", "--to", "pets", "--classes", "Cat", "Polar bear", "--images", "3"]
    assert main([*command, "--split", "train", "test", "--classes", "Dog"]) == 0
    assert parsed["classes"] == ("Cat", "Polar bear", "Dog")
    assert parsed["splits"] == ("train", "test")
    assert parsed["images"] == 3


def test_the_script_is_the_verb(capsys: Captured) -> None:
    assert offline_index(["--help"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("Usage: offline_index.py [OPTIONS] IMAGES...")
    assert main(["index", "--help"]) == 0
    assert capsys.readouterr().out.partition("\n")[2] == script.partition("\n")[2]


def test_defaults_in_help_match_the_recipe() -> None:
    named = {
        option.name: default[1]
        for option in load_verb("train").params
        if isinstance(option, click.Option) and (default := re.search(r"default: ([\w.]+)\)\.$", option.help or ""))
    }
    for field in fields(Recipe):
        if field.name != "thaw":
            assert named[field.name] == str(field.default)
    assert "(default: 32)" in next(option.help for option in load_verb("index").params if option.name == "batch_size")
    assert IndexingOptions().batch_size == 32
    assert NeighboursOptions().k == 10


def test_copied_choices_match_the_library(capsys: Captured) -> None:
    assert get_args(Precision) == options.PRECISIONS
    assert get_args(Runtime) == options.RUNTIMES
    assert spec.POOLINGS == options.POOLINGS
    assert set(networks.PREPROCESSINGS) == set(options.PREPROCESSINGS)
    choices = {option.name: option.type for option in load_verb("train").params}
    assert (choices["triplets"].choices, choices["split"].choices) == (TRIPLETS, SPLITS)
    assert (*DATASETS, "open-images") == exchange.COLLECTIONS
    assert open_images.SPLITS == exchange.SPLITS
    assert main(["download", "--help"]) == 0
    help_text = capsys.readouterr().out
    assert all(f"  {name} " in help_text for name in exchange.COLLECTIONS)
