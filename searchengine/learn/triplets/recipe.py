"""All settings of a training, except the images and the backbone."""

from __future__ import annotations

from dataclasses import dataclass

from searchengine.errors import LearningError

TRIPLETS = ("random", "semihard", "hard")
SPLITS = ("image", "class")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the metric is learnt.

    Attributes:
        dim: numbers in an embedding.
        margin: of the loss, in squared distance.
        triplets: how they are chosen, one of ``TRIPLETS``.
        batch: triplets in a batch for "random"; images in a batch for the others.
        images_a_class: images of each class in a batch; not for "random".
        learning_rate: of Adam.
        weight_decay: times the learning rate, the share of the way back to their start that weights go at each step.
        blend: the model that is validated and written has weights ``start + blend * (learnt - start)``. 1 is what was
            learnt; less keeps more of what the backbone knows of other classes.
        dropout: share of a feature's numbers that a step leaves out; frozen backbones only.
        views: augmented variants of each image besides itself. For a frozen backbone they are made once, for a thawed
            one again at each step.
        thaw: the first layer of the backbone that learns; None if only the new layer does.
        split: what is held back for validation: some images of each class, or all images of some classes.
        validation: share of the images, or of the classes, that is held back.
        epochs: at most.
        patience: epochs without a better mAP after which training stops.
        seed: of everything random.
    """

    dim: int = 384
    margin: float = 0.2
    triplets: str = "semihard"
    batch: int = 32
    images_a_class: int = 4
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    blend: float = 0.4
    dropout: float = 0.0
    views: int = 0
    thaw: str | None = None
    split: str = "image"
    validation: float = 0.2
    epochs: int = 60
    patience: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values that make no sense; LearningError."""
        faults = {
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
            "--blend must be above 0 and at most 1": not 0 < self.blend <= 1,
            "--dropout must be at least 0 and below 1": not 0 <= self.dropout < 1,
            "--validation must be above 0 and below 1": not 0 < self.validation < 1,
        }
        for message, is_wrong in faults.items():
            if is_wrong:
                raise LearningError(f"{message}.")
