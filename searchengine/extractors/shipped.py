"""The compact model, which comes with the package: as a spec, on OpenVINO, on Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from searchengine.errors import ExtractorError
from searchengine.extractors import backbones, compact
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.spec import ExtractorSpec

if TYPE_CHECKING:
    import keras


def shipped_spec(normalize: str = "l2") -> ExtractorSpec:
    """The spec of the model that is shipped now; JPEGs may be decoded at a reduced scale for it."""
    try:
        card = compact.read_card()
        size = int(card["size"])
        weights = f"compact:{card['sha256'][compact.GRAPH_WEIGHTS][:16]}"
    except (ValueError, KeyError, TypeError) as error:
        raise ExtractorError(f"the compact model is damaged ({compact.CARD}): install it again") from error
    return ExtractorSpec(backbones.COMPACT, None, "none", normalize, weights, (size, size), full_decode=False)


def exported(spec: ExtractorSpec) -> ExportedModel:
    """Its OpenVINO files, their hashes checked. ExtractorError if they are damaged, or not those of the spec."""
    _check_version(spec)
    return ExportedModel(compact.graph_file(), int(compact.read_card()["dimension"]))


def keras_model(spec: ExtractorSpec, *, policy: str = "float32") -> keras.Model:
    """As ``backbones.build``: (n, h, w, 3) uint8 RGB -> (n, d) float32, not normalised. Errors as ``exported``."""
    _check_version(spec)
    with backbones.dtype_policy(policy):
        return backbones.in_float32(compact.load_compact())


def _check_version(spec: ExtractorSpec) -> None:
    shipped = shipped_spec(spec.normalize)
    if spec != shipped:
        raise ExtractorError(
            f"The compact model of this package ({shipped.weights}) is not the one that is asked for ({spec.weights}): "
            "the index was made with another version. Make it again with --rebuild."
        )
