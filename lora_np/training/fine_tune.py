"""The usual recipe in one call: AdamW, warm-up, cosine, clipping."""

from lora_np.nn.module import Module
from lora_np.training.loop import Draw, History, TrainOptions, train
from lora_np.training.optim import AdamW
from lora_np.training.schedule import warmup_cosine


def fine_tune(
    model: Module, draw: Draw, steps: int, lr: float, seed: int = 0,
    label: str = "fine-tuning", weight_decay: float = 0.0,
) -> History:  # fmt: skip
    """Train the parameters that are not frozen for `steps` steps.

    Five steps of warm-up, then a cosine down to a tenth of lr; gradients clipped at
    norm 1. draw(rng) gives a batch.  Raises ValueError when nothing is trainable.
    """
    trainable = list(model.trainable().values())
    if not trainable:
        raise ValueError("nothing to train: every parameter is frozen; attach_lora "
                         "or set requires_grad first")  # fmt: skip
    optimizer = AdamW(trainable, lr=lr, weight_decay=weight_decay)
    options = TrainOptions(
        steps,
        seed=seed,
        label=label,
        schedule=lambda step: warmup_cosine(step, steps, min(5, steps), floor=0.1),
    )
    return train(model, optimizer, draw, options)
