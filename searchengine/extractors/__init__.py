"""Images -> features: which network, how it is prepared, and what runs it.

Start reading at ``loading``. Options become a ``spec`` through the ``source`` of their model. The network is cut at a
layer (``networks``), exported in a subprocess (``frameworks``, ``export``) into the ``cache``, and run (``runtimes``).

Importing this package loads neither TensorFlow nor OpenVINO. An extractor that runs on OpenVINO never loads TensorFlow.
"""

from searchengine.extractors.extractor import Extractor
from searchengine.extractors.loading import (
    ExtractorRecipe,
    load_extractor,
    make_spec,
    spec_of,
)
from searchengine.extractors.models import names as model_names
from searchengine.extractors.source import ExtractorOptions
from searchengine.extractors.spec import ExtractorSpec

__all__ = [
    "Extractor",
    "ExtractorOptions",
    "ExtractorRecipe",
    "ExtractorSpec",
    "load_extractor",
    "make_spec",
    "model_names",
    "spec_of",
]
