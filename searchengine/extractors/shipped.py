"""The compact model, which comes with the package: as a spec, on OpenVINO, on Keras."""

from __future__ import annotations

from searchengine.errors import ExtractorError
from searchengine.extractors import backbones, building, compact
from searchengine.extractors.building import Built
from searchengine.extractors.cache import ExportedModel
from searchengine.extractors.spec import ExtractorSpec


def shipped_spec(normalize: str = "l2") -> ExtractorSpec:
    """The spec of the model that is shipped now; JPEGs may be decoded at a reduced scale for it."""
    try:
        card = compact.read_card()
        size = int(card["size"])
        weights = f"compact:{card['sha256'][compact.GRAPH_WEIGHTS][:16]}"
    except (ValueError, KeyError, TypeError) as error:
        raise ExtractorError(f"the compact model is damaged ({compact.CARD}): install it again") from error
    return ExtractorSpec(backbones.COMPACT, None, "none", normalize, weights, (size, size), full_decode=False)


def dimension() -> int:
    """Numbers in a feature of the model that is shipped now."""
    return int(compact.read_card()["dimension"])


def exported(spec: ExtractorSpec) -> ExportedModel:
    """Its OpenVINO files, their hashes checked. ExtractorError if they are damaged, or not those of the spec."""
    _check_version(spec)
    return ExportedModel(compact.graph_file(), (dimension(),))


def built(spec: ExtractorSpec, *, policy: str = "float32") -> Built:
    """As ``building.build``, its weights loaded. Errors as ``exported``."""
    _check_version(spec)
    with building.dtype_policy(policy):
        network = compact.load_compact()
        model = building.in_float32(network)
    return Built(model, network, (int(model.output_shape[-1]),))


def _check_version(spec: ExtractorSpec) -> None:
    shipped = shipped_spec(spec.normalize)
    if spec != shipped:
        raise ExtractorError(
            f"The compact model of this package ({shipped.weights}) is not the one that is asked for ({spec.weights}): "
            "the index was made with another version, and the two cannot be compared. Run the command that made it "
            "once more, with --rebuild: searchengine index IMAGES --index-dir INDEX --rebuild."
        )
