"""What an extractor is, as a value: two features can be compared only when their specs are equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from searchengine.errors import ExtractorError

NORMALIZATIONS = ("l2", "none")
SEVERAL = "+"  # stands between the layers of a spec
IMPORTED = "imported"  # stands for the model of features that came ready-made


@dataclass(frozen=True, slots=True)
class ExtractorSpec:
    """Everything that decides the numbers in a feature, and nothing else.

    ``weights`` is ``"imagenet"`` for the published file, ``"sha256:<hex>"`` for a file of one's own and
    ``"compact:<hex>"`` for the model that ships here. ``input_size`` is (height, width) in pixels: the whole image is
    resized to it. ``full_decode`` False allows a JPEG to be decoded at a reduced scale, see ``decoded_at_least``.
    Several layers are written ``"fc1+fc2"``: their outputs stand side by side in the feature, each normalised by itself
    before the whole if it is normalised at all. ``preprocessing`` is one of ``backbones.PREPROCESSINGS`` for a model
    file of one's own, and None for the others, which have a fixed one.
    Precision and device are not part of it: they change a feature by less than what is compared.
    """

    model: str
    layer: str | None
    pooling: str
    normalize: str
    weights: str
    input_size: tuple[int, int]
    full_decode: bool
    preprocessing: str | None = None

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ whenever the spec does."""
        return _fingerprint(self)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers one by one; empty where the feature is the output of the whole network."""
        return tuple(self.layer.split(SEVERAL)) if self.layer else ()

    @property
    def is_scaled(self) -> bool:
        """Whether large JPEGs are decoded at a reduced scale because somebody asked for it."""
        return not self.full_decode and not self.weights.startswith("compact:")

    @property
    def decoded_at_least(self) -> tuple[int, int] | None:
        """(height, width) that a JPEG keeps when it is decoded; None for its full size.

        Twice the input size where scaled decoding was asked for, one and a half times for the compact model, which was
        measured so: a photo of 500 x 375 can then be decoded at half its size.
        """
        if self.full_decode:
            return None
        height, width = self.input_size
        return (2 * height, 2 * width) if self.is_scaled else (3 * height // 2, 3 * width // 2)

    @property
    def embeds(self) -> bool:
        """Whether a model stands behind it; none is known for features that were imported."""
        return self.model != IMPORTED

    @property
    def unnormalized(self) -> ExtractorSpec:
        """The same without normalisation."""
        return replace(self, normalize="none")

    @property
    def network(self) -> ExtractorSpec:
        """The same as far as the model itself goes; normalisation comes after it, decoding before.

        All specs with one network share one exported model.
        """
        return replace(self, normalize="none", full_decode=True)

    @property
    def title(self) -> str:
        """For people, for example "VGG16 fc2, ImageNet weights, L2-normalised"."""
        from searchengine.extractors.backbones import OWN, display_name

        if not self.embeds:
            return f"Imported features, {'L2-normalised' if self.normalize == 'l2' else 'not normalised'}"
        name = " ".join(part for part in (display_name(self.model), self.layer) if part)
        if self.pooling != "none":
            name += f" ({'GeM' if self.pooling == 'gem' else self.pooling} pooling)"
        if self.preprocessing not in (None, "none"):
            name += f" ({self.preprocessing} preprocessing)"
        scaled = "scaled decoding" if self.is_scaled else None
        kind, _, digest = self.weights.partition(":")
        weights = {
            "imagenet": "ImageNet weights",
            "sha256": f"{'file' if self.model == OWN else 'own weights'} {digest[:8]}",
        }.get(kind)
        normalized = "L2-normalised" if self.normalize == "l2" else "not normalised"
        return ", ".join(part for part in (name, scaled, weights, normalized) if part)

    def to_json(self) -> str:
        """Canonical: equal specs give equal text."""
        values = asdict(self)
        if self.preprocessing is None:  # the specs of before it existed keep their fingerprints
            del values["preprocessing"]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ExtractorSpec:
        """The inverse of ``to_json``; ExtractorError for anything else."""
        try:
            values = json.loads(text)
            height, width = values["input_size"]
            spec = cls(**{**values, "input_size": (int(height), int(width))})
        except (KeyError, TypeError, ValueError) as error:
            raise ExtractorError(f"This is not the description of an extractor: {text[:200]!r}.") from error
        words = (spec.model, spec.pooling, spec.normalize, spec.weights, spec.layer or "", spec.preprocessing or "")
        if not all(isinstance(word, str) for word in words) or not isinstance(spec.full_decode, bool):
            raise ExtractorError(f"This is not the description of an extractor: {text[:200]!r}.")
        return spec


@lru_cache(maxsize=64)
def _fingerprint(spec: ExtractorSpec) -> str:
    """Remembered: a server asks for it at each request."""
    return hashlib.sha256(spec.to_json().encode()).hexdigest()[:16]
