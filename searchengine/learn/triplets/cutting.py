"""Where the new layer begins in a model of one's own: its last dense layer is taken off, if it has one."""

from __future__ import annotations

from pathlib import Path

from searchengine.extractors import own

# What may stand behind the last dense layer without being one.
_AFTER = {"Activation", "Softmax", "UnitNormalization", "Dropout", "BatchNormalization", "LayerNormalization"}


def last_layer_off(backbone: str) -> str | None:
    """The layer of a ``.keras`` file that the last dense one follows; None where the whole is to be kept, and for the
    models of the table, which know theirs. The errors of ``own.describe``.
    """
    if not own.is_model_file(backbone):
        return None
    layers = list(own.describe(Path(backbone).expanduser()).layers.values())
    while layers and layers[-1].kind in _AFTER:
        layers.pop()
    return layers[-2].name if len(layers) > 1 and layers[-1].kind == "Dense" else None
