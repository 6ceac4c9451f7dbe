"""A metric learnt from labels: a backbone, a new last layer, L2 normalisation, and the triplet loss.

Importing this loads no TensorFlow.
"""

from searchengine.learn.triplets.learner import Recipe
from searchengine.learn.triplets.run import Trained, TrainingOptions, train_metric

__all__ = ["Recipe", "Trained", "TrainingOptions", "train_metric"]
