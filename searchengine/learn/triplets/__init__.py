"""Metric learning from labels: a backbone, a new last layer, L2 normalisation, and the triplet loss.

Start reading at ``run``. Importing this package loads no TensorFlow.
"""

from searchengine.learn.triplets.learner import Recipe
from searchengine.learn.triplets.run import Trained, TrainingOptions, train_metric

__all__ = ["Recipe", "Trained", "TrainingOptions", "train_metric"]
