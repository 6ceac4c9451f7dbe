"""Learning from labels: classifiers on features, and learnt metrics for search."""

from searchengine.learn.classifiers import (
    Classifier,
    FitReport,
    HeldOut,
    Prediction,
    latest_classifier,
    load_classifier,
    predict_by_vote,
    save_classifier,
)
from searchengine.learn.fitting import fit_classifier
from searchengine.learn.training_set import TrainingSet, training_set

__all__ = [
    "Classifier",
    "FitReport",
    "HeldOut",
    "Prediction",
    "TrainingSet",
    "fit_classifier",
    "latest_classifier",
    "load_classifier",
    "predict_by_vote",
    "save_classifier",
    "training_set",
]
