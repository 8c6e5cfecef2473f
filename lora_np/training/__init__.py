"""Optimizers, schedule, loop, resumable state, generation."""

from lora_np.training.allocator import tune_allocator
from lora_np.training.fine_tune import fine_tune
from lora_np.training.generate import generate, next_distribution
from lora_np.training.loop import (
    History,
    TrainOptions,
    accumulate_gradients,
    held_out_loss,
    train,
)
from lora_np.training.optim import SGD, Adam, AdamW
from lora_np.training.schedule import clip_grad_norm, warmup_cosine
from lora_np.training.state import load_training, save_training

__all__ = [name for name in dir() if not name.startswith("_")]
