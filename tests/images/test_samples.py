"""The sample collection is large enough, labelled, and the same each time."""

from __future__ import annotations

import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from searchengine import samples
from searchengine.errors import MissingPackageError
from searchengine.images import Walk, decode

needs_packages = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None or importlib.util.find_spec("sklearn") is None,
    reason='needs pip install "searchengine[demo]"',
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples") / "made"
    assert samples.write_samples(folder) == 171
    return folder


@needs_packages
def test_count_labels_and_sizes(collection: Path) -> None:
    paths = [file.path.decode() for file in Walk(collection)]
    assert len({(collection / path).read_bytes() for path in paths}) == len(paths) == 171
    labels = [path.split("/")[0] for path in paths]
    assert {label: labels.count(label) for label in labels} == {
        subject: 18 if subject == "motorcycle" else 9 for subject, _, _ in samples.PHOTOS
    }
    for path in paths:
        image = decode((collection / path).read_bytes())
        crop = Path(path).stem.split("-", 1)[1]
        assert image.format == "JPEG"
        assert max(image.width, image.height) <= samples.CROPS[crop][1]
        assert min(image.width, image.height) >= 70


@needs_packages
def test_existing_samples_are_kept_and_missing_ones_are_the_same_each_time(
    tmp_path: Path, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "PHOTOS", [photo for photo in samples.PHOTOS if photo[0] == "cat"])
    samples.write_samples(tmp_path)
    kept, lost = tmp_path / "cat/chelsea-whole.jpg", tmp_path / "cat/chelsea-small.jpg"
    kept.write_bytes(b"mine")
    lost.unlink()
    assert samples.write_samples(tmp_path) == 9
    assert kept.read_bytes() == b"mine"
    assert lost.read_bytes() == (collection / "cat/chelsea-small.jpg").read_bytes()


def test_any_two_crops_of_a_photo_overlap() -> None:
    boxes = [box for box, _ in samples.CROPS.values()]
    for a, b in itertools.combinations(boxes, 2):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        assert width >= 0.5
        assert height >= 0.5


def test_a_crop_shows_its_part_and_is_not_enlarged() -> None:
    image = Image.new("RGB", (100, 40), "black")
    image.paste("white", (50, 0, 100, 40))
    left = decode(samples._crop(image, (0.0, 0.0, 0.5, 1.0), 480))
    right = decode(samples._crop(image, (0.5, 0.0, 1.0, 1.0), 10))
    assert left.pixels.shape == (40, 50, 3)
    assert left.pixels[:, :44].max() < 10
    assert right.pixels.shape == (10, 10, 3) or max(right.pixels.shape[:2]) == 10
    assert right.pixels.min() > 245


def test_without_the_packages_the_command_to_install_them_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'searchengine\[demo\]'"):
        samples.write_samples(tmp_path)


@needs_packages
def test_the_packages_are_not_loaded(collection: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from searchengine.samples import write_samples; "
        "print(write_samples(Path(sys.argv[1])), {'skimage', 'sklearn', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, collection], capture_output=True, text=True, check=True)
    assert done.stdout == "171 set()\n"
