"""All that decides how a training goes, but for the images and the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from searchengine.errors import LearningError
from searchengine.learn.triplets.splitting import SPLITS

TRIPLETS = ("random", "semihard", "hard")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the metric is learnt.

    ``dim`` numbers an embedding; ``margin`` of the loss, in squared distance; ``triplets`` is one of TRIPLETS;
    ``batch`` is triplets a batch for "random", and images a batch, ``images_a_class`` of each class, for the others.
    ``views`` are augmented variants of each image beside itself: with a frozen backbone they are made once, with a
    thawed one afresh at each step. ``dropout`` is the share of a feature's numbers that a step leaves out, of a frozen
    backbone. ``weight_decay``, times the learning rate, is the share of the way back to their start that weights go at
    each step. ``thaw`` is the first layer of the backbone that learns, None if only the new one does. ``patience`` is
    how many epochs without a better mAP are the end.
    """

    dim: int = 128
    margin: float = 0.2
    triplets: str = "semihard"
    batch: int = 32
    images_a_class: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    dropout: float = 0.0
    views: int = 0
    thaw: str | None = None
    split: str = "image"
    validation: float = 0.2
    epochs: int = 60
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """LearningError for what makes no sense."""
        wrong = {
            f"--triplets must be one of {', '.join(TRIPLETS)}": self.triplets not in TRIPLETS,
            f"--split must be one of {', '.join(SPLITS)}": self.split not in SPLITS,
            "--dim, --batch, --epochs and --patience must be at least 1": min(
                self.dim, self.batch, self.epochs, self.patience
            )
            < 1,
            "--images-a-class must be at least 2": self.images_a_class < 2,
            "--views and --seed must be at least 0": min(self.views, self.seed) < 0,
            "--margin and --learning-rate must be above 0": not (self.margin > 0 and self.learning_rate > 0),
            "--weight-decay must be at least 0, and times --learning-rate at most 1": not (
                self.weight_decay >= 0 and self.weight_decay * self.learning_rate <= 1
            ),
            "--dropout must be at least 0 and below 1": not 0 <= self.dropout < 1,
            "--validation must be above 0 and below 1": not 0 < self.validation < 1,
        }
        for message, is_wrong in wrong.items():
            if is_wrong:
                raise LearningError(f"{message}.")
