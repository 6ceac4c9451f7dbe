"""CLIP, SigLIP and DINOv2: small presets with random weights are compared with KerasHub itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from searchengine.cli.main import main
from searchengine.engine import SearchEngine
from searchengine.errors import ExtractorError, MissingPackageError, QueryError, UnknownNameError
from searchengine.extractors import cache, load_extractor, make_spec
from searchengine.extractors.models import FAMILIES, presets
from searchengine.extractors.presets import read_preset
from searchengine.extractors.text_tower import TextTower, Tokenizer, TokenRules, read_rules
from searchengine.images import Resizing, resize
from searchengine.query import Query
from tests.extractors.presets_by_keras_hub import RESIZINGS, TEXTS

pytestmark = pytest.mark.torture
SIZES = ((400, 300), (32, 32), (28, 28), (55, 97), (20, 24))  # (width, height)


@pytest.fixture(scope="module")
def presets_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Presets, pictures, KerasHub's results for them, and exported models, all made once by one process."""
    folder = tmp_path_factory.mktemp("presets")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)  # bicubic resizing overshoots at the edges
        picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)
        picture.save(folder / "pictures" / f"{number}.png")
    script = Path(__file__).with_name("presets_by_keras_hub.py")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
        "SEARCHENGINE_CACHE_DIR": str(folder / "cache"),
    }
    command = [sys.executable, script, folder, *sorted((folder / "pictures").iterdir())]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return folder


@pytest.fixture(autouse=True)
def exported(presets_folder: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHENGINE_CACHE_DIR", str(presets_folder / "cache"))


@pytest.fixture(scope="module")
def index(presets_folder: Path) -> Path:
    """An index of the pictures, made by the command line with the exported models."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SEARCHENGINE_CACHE_DIR", str(presets_folder / "cache"))
        options = ["--index-dir", str(presets_folder / "index"), "--precision", "float32"]
        assert main(["index", str(presets_folder / "pictures"), "--model", str(presets_folder / "clip"), *options]) == 0
    return presets_folder / "index"


def cosines(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((ours * theirs).sum(axis=1) / np.linalg.norm(theirs, axis=1))


@pytest.mark.parametrize("name", ["clip", "siglip2", "dinov2"])
def test_features_are_those_of_kerashub(presets_folder: Path, index: Path, name: str) -> None:
    extractor = load_extractor(presets_folder / name, precision="float32")
    ours = extractor.embed(sorted((presets_folder / "pictures").iterdir()))
    with np.load(presets_folder / f"{name}.npz") as theirs:
        equal = cosines(ours, theirs["features"])
    assert equal.min() >= 0.99999


@pytest.mark.parametrize("how", RESIZINGS)
def test_pictures_are_resized_as_by_keras(presets_folder: Path, how: str) -> None:
    with np.load(presets_folder / "resized.npz") as theirs:
        for number in range(len(SIZES)):
            pixels = np.asarray(Image.open(presets_folder / "pictures" / f"{number}.png"))
            exact = resize(pixels, (24, 32), how=Resizing.parse(f"{how} exact"))
            # without antialiasing, TensorFlow takes bicubic weights from a table of 1024 values
            assert np.abs(exact - theirs[f"{how} {number}"]).max() <= 0.2
            rounded = resize(pixels, (24, 32), how=Resizing.parse(how))  # Pillow resizes twice, and clips in between
            assert np.median(np.abs(rounded - exact.clip(0, 255))) <= 0.5


def test_resizing_has_one_spelling() -> None:
    spelt = [*RESIZINGS, "bicubic antialias exact"]
    assert [str(Resizing.parse(how)) for how in spelt] == spelt
    for text in ("nearest", "bicubic bicubic", "crop"):
        with pytest.raises(ValueError, match="not a way to resize"):
            Resizing.parse(text)


def test_tokens_of_the_first_siglip_are_those_of_kerashub(presets_folder: Path) -> None:
    with np.load(presets_folder / "siglip.npz") as theirs:
        assert np.array_equal(Tokenizer(read_rules(presets_folder / "siglip", 16))(TEXTS), theirs["tokens"])


@pytest.mark.parametrize("name", ["clip", "siglip2"])
def test_words_are_those_of_kerashub(presets_folder: Path, index: Path, name: str) -> None:
    model = cache.lookup(make_spec(presets_folder / name))
    assert model is not None
    rules = TokenRules.from_json((model.xml.parent / "text.json").read_text())
    with np.load(presets_folder / f"{name}.npz") as theirs:
        assert np.array_equal(Tokenizer(rules)(TEXTS), theirs["tokens"])
        assert cosines(TextTower(model.xml.parent).embed(TEXTS), theirs["vectors"]).min() >= 0.9999


def test_an_index_is_searched_by_the_text_tower(
    presets_folder: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(presets_folder / "clip.npz") as theirs:
        text = theirs["vectors"][0] / np.linalg.norm(theirs["vectors"][0])
        expected = np.argsort(-cosines(np.tile(text, (len(SIZES), 1)), theirs["features"]))
    with closing(SearchEngine.open(index, precision="float32")) as engine:
        results = engine.search(Query(text=TEXTS[0]))
        assert [int(Path(hit.path).stem) for hit in results] == expected.tolist()
        assert (results.metric, results.ranked_by, results.doubt) == ("cosine", "the words", None)
        assert engine.search(presets_folder / "pictures" / "2.png")[0].path == "2.png"
        assert engine.search(Query(text="2.png"))[0].path == "2.png"  # a name comes first, as in every index
        with pytest.raises(QueryError, match="a few words"):
            engine.search(Query(text="x" * 501))
    assert main(["words", "--index-dir", str(index)]) == 0
    assert "5 images can be searched" in capsys.readouterr().out
    assert main(["tags", "--index-dir", str(index)]) == 1
    assert "CLIP has no fixed classes" in capsys.readouterr().err
    assert main(["index", str(presets_folder / "pictures"), "--index-dir", str(index)]) == 0
    assert "5 unchanged" in capsys.readouterr().out


def test_serving_loads_neither_tensorflow_nor_kerashub(index: Path) -> None:
    code = (
        "import sys\n"
        "from searchengine.engine import SearchEngine\n"
        "from searchengine.query import Query\n"
        "from searchengine.web import create_app\n"
        "engine = SearchEngine.open(sys.argv[1], precision='float32')\n"
        "engine.warm()\n"
        "assert len(engine.search(Query(text='a cat'))) == 5\n"
        "assert not {'tensorflow', 'keras', 'keras_hub'} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, index], check=True)


def test_dinov2_knows_no_words(presets_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--index-dir", str(tmp_path / "index"), "--precision", "float32"]
    assert main(["index", str(presets_folder / "pictures"), "--model", str(presets_folder / "dinov2"), *options]) == 0
    assert main(["words", "--index-dir", str(tmp_path / "index")]) == 1
    assert "trained on pictures alone and knows no words" in capsys.readouterr().err
    with closing(SearchEngine.open(tmp_path / "index")) as engine, pytest.raises(QueryError, match="pictures alone"):
        engine.search(Query(text="cat"))


def test_the_presets_that_are_listed_are_those_of_kerashub(presets_folder: Path) -> None:
    known = json.loads((presets_folder / "known.json").read_text())
    assert {name: [line.family, line.parameters] for name, line in presets().items()} == known
    assert {line.family for line in presets().values()} == set(FAMILIES)


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        ("config.json", {"class_name": "BertBackbone"}, "is a BertBackbone"),
        ("config.json", {"registered_name": "mine>CLIPBackbone"}, "is a CLIPBackbone"),
        ("config.json", {"more": {"class_name": "Lambda", "config": {"name": "run"}}}, "the layer 'run'"),
        ("config.json", {"more": {"class_name": "Own", "module": "os.path"}}, "Own, whose code is not"),
        ("config.json", None, "cannot be read"),
        ("image_converter.json", {"config": {"interpolation": "lanczos3"}}, "unsupported way: lanczos3"),
        ("image_converter.json", {"config": {"image_size": [64, 64]}}, "contradicts itself"),
    ],
)
def test_a_preset_that_cannot_be_used_says_why(
    presets_folder: Path, tmp_path: Path, file: str, change: dict[str, object] | None, reason: str
) -> None:
    folder = tmp_path / "preset"
    shutil.copytree(presets_folder / "clip", folder)
    values = json.loads((folder / file).read_text())
    (folder / file).write_text("{" if change is None else json.dumps({**values, **change}))
    with pytest.raises(ExtractorError, match=reason):
        read_preset(folder)
    (folder / file).unlink()
    with pytest.raises(ExtractorError, match=f"has no {file}"):
        read_preset(folder)


def test_options_that_a_preset_refuses(presets_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"layer": "head"}, {"pooling": "avg"}, {"input_size": 64}, {"weights": "mine.h5"}):
        with pytest.raises(ExtractorError, match="Leave out --"):
            make_spec(presets_folder / "clip", **options)
    with pytest.raises(UnknownNameError, match="clip_vit_base_patch16"):
        make_spec("clip_vit_base_patch17")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r'pip install "searchengine\[clip\]"'):
        make_spec("clip_vit_base_patch16")


@pytest.fixture(params=["siglip2", "clip"])
def rules(request: pytest.FixtureRequest, presets_folder: Path, index: Path) -> TokenRules:
    model = cache.lookup(make_spec(presets_folder / request.param))
    assert model is not None
    return TokenRules.from_json((model.xml.parent / "text.json").read_text())


def test_a_tokenizer_that_is_not_installed_is_named(rules: TokenRules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install (tokenizers|sentencepiece)"):
        Tokenizer(rules)
