"""Learning from labels and from likes: classifiers on features, and recommendations."""

from searchengine.classifying.classifiers import Classifier, Prediction
from searchengine.classifying.feedback import DEFAULT_RULE, RULES, recommend, rule_title
from searchengine.classifying.fitting import fit_classifier
from searchengine.classifying.nearest import predict_by_vote
from searchengine.classifying.scores import FitReport, HeldOut
from searchengine.classifying.storing import LatestClassifier, load_classifier, save_classifier
from searchengine.classifying.training_set import TrainingSet, training_set

__all__ = [
    "DEFAULT_RULE",
    "RULES",
    "Classifier",
    "FitReport",
    "HeldOut",
    "LatestClassifier",
    "Prediction",
    "TrainingSet",
    "fit_classifier",
    "load_classifier",
    "predict_by_vote",
    "recommend",
    "rule_title",
    "save_classifier",
    "training_set",
]
