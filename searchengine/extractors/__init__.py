"""Images -> features: which network, how it is prepared, and what runs it.

Importing this loads neither TensorFlow nor OpenVINO; an extractor that runs on OpenVINO never loads TensorFlow.
"""

from searchengine.extractors.extractor import Extractor
from searchengine.extractors.loading import (
    changed_spec,
    extractor_from_spec,
    feature_size,
    load_extractor,
    make_spec,
    prepare,
    weights_file,
)
from searchengine.extractors.models import names as model_names
from searchengine.extractors.spec import ExtractorSpec

__all__ = [
    "Extractor",
    "ExtractorSpec",
    "changed_spec",
    "extractor_from_spec",
    "feature_size",
    "load_extractor",
    "make_spec",
    "model_names",
    "prepare",
    "weights_file",
]
