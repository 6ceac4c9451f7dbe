"""Measure the quality of the answers by labels: of one index, or of several side by side."""

from searchengine.analyse.evaluation.protocols import (
    EvaluationOptions,
    check_queries,
    leave_one_out,
    query_folder,
    read_queries,
)
from searchengine.analyse.evaluation.ranking import evaluate_features
from searchengine.analyse.evaluation.results import (
    EVALUATION,
    Evaluation,
    KeptEvaluation,
    keep_evaluation,
    load_evaluation,
    to_json,
)
from searchengine.analyse.evaluation.statistics import compare

__all__ = [
    "EVALUATION",
    "Evaluation",
    "EvaluationOptions",
    "KeptEvaluation",
    "check_queries",
    "compare",
    "evaluate_features",
    "keep_evaluation",
    "leave_one_out",
    "load_evaluation",
    "query_folder",
    "read_queries",
    "to_json",
]
