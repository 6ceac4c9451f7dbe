"""``ExtractorSpec`` describes an extractor as a value: features are comparable only if their specs are equal."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from searchengine.errors import ExtractorError
from searchengine.extractors.models import CUSTOM, IMPORTED, facts, is_preset
from searchengine.files import parse_json

NORMALIZATIONS = ("l2", "none")
POOLINGS = ("none", "avg", "max", "gem")
IMAGENET = "imagenet"  # stands for the published weights, in place of a hash
SEVERAL = "+"  # separates the layers of a spec


@dataclass(frozen=True, slots=True)
class ExtractorSpec:
    """Everything that determines the numbers in a feature, and nothing else.

    Precision and device are left out: they change a feature by less than the differences that matter in a search.

    Attributes:
        model: a name that ``models.facts`` knows.
        layer: a layer, or several joined as ``"fc1+fc2"``: their outputs are concatenated, each normalised separately
            before the whole is (if it is normalised at all). None for the output of the whole network.
        pooling: one of ``POOLINGS``.
        normalize: one of ``NORMALIZATIONS``.
        weights: ``"imagenet"`` for the published file, ``"sha256:<hex>"`` for a file of the user's own.
        input_size: (height, width) in pixels, to which the whole image is resized.
        full_decode: False allows JPEGs to be decoded at a reduced scale; see ``decoded_at_least``.
        preprocessing: one of ``networks.PREPROCESSINGS`` for a custom model; None for the others, which have a fixed
            one.
        resizing: how pictures are resized, if not in the usual way; see ``images.Resizing``.
    """

    model: str
    layer: str | None
    pooling: str
    normalize: str
    weights: str
    input_size: tuple[int, int]
    full_decode: bool
    preprocessing: str | None = None
    resizing: str | None = None

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the spec."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers as a tuple; empty if the feature is the output of the whole network."""
        return tuple(self.layer.split(SEVERAL)) if self.layer else ()

    @property
    def missing(self) -> str | None:
        """Why no model can compute such features and what to do instead; None if a model can."""
        return facts(self.model).missing

    @property
    def embeds(self) -> bool:
        """Whether a model can compute such features."""
        return self.missing is None

    @property
    def is_imported(self) -> bool:
        """Whether the features were imported ready-made, without the model that computed them."""
        return self.model == IMPORTED

    @property
    def decoded_at_least(self) -> tuple[int, int] | None:
        """The (height, width) in pixels below which decoding must not reduce a JPEG; None to decode at full size."""
        if self.full_decode:
            return None
        height, width = self.input_size
        margin = facts(self.model).decode_margin
        return int(margin * height), int(margin * width)

    @property
    def unnormalized(self) -> ExtractorSpec:
        """The same spec without normalisation."""
        return replace(self, normalize="none")

    @property
    def network(self) -> ExtractorSpec:
        """The part of the spec that determines the exported model: decoding comes before it, normalisation after it.

        All specs with the same network share one exported model.
        """
        return replace(self, normalize="none", full_decode=facts(self.model).full_decode)

    @property
    def title(self) -> str:
        """A description for the user, for example "VGG16 fc2, ImageNet weights, L2-normalised"."""
        model = facts(self.model)
        name = " ".join(part for part in (model.title, self.layer) if part)
        if self.pooling != "none":
            name += f" ({'GeM' if self.pooling == 'gem' else self.pooling} pooling)"
        if self.preprocessing not in (None, "none"):
            name += f" ({self.preprocessing} preprocessing)"
        size = f"{self.input_size[0]} px" if model.input_size not in (None, self.input_size) else None
        decoding = None
        if self.full_decode != model.full_decode:
            decoding = "full decoding" if self.full_decode else "scaled decoding"
        normalized = "L2-normalised" if self.normalize == "l2" else "not normalised"
        return ", ".join(part for part in (name, size, decoding, self._weights_title, normalized) if part)

    @property
    def _weights_title(self) -> str | None:
        if self.weights == IMAGENET:
            return "ImageNet weights"
        kind, _, digest = self.weights.partition(":")
        if kind != "sha256":
            return None
        kind = "file" if self.model == CUSTOM else "weights" if is_preset(self.model) else "own weights"
        return f"{kind} {digest[:8]}"

    def to_json(self) -> str:
        """Return the spec as canonical JSON: equal specs give equal text."""
        values = asdict(self)
        for added in ("preprocessing", "resizing"):  # left out where None, so that older specs keep their fingerprints
            if values[added] is None:
                del values[added]
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ExtractorSpec:
        """Parse the output of ``to_json``. Raises ExtractorError for anything else."""
        try:
            values = parse_json(text)
            height, width = values["input_size"]
            spec = cls(**{**values, "input_size": (int(height), int(width))})
        except (KeyError, TypeError, ValueError) as error:
            raise ExtractorError(f"Not a valid extractor description: {text[:200]!r}.") from error
        optional = (word or "" for word in (spec.layer, spec.preprocessing, spec.resizing))
        words = (spec.model, spec.pooling, spec.normalize, spec.weights, *optional)
        if not all(isinstance(word, str) for word in words) or not isinstance(spec.full_decode, bool):
            raise ExtractorError(f"Not a valid extractor description: {text[:200]!r}.")
        return spec
