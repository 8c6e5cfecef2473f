# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
r"""
# 05 · Adapting with LoRA: which rank, which scale, and what is forgotten?

Now the method meets a model and a text. Each section asks one question that people answer
by habit, and computes the answer. Symbols are those of chapter 00.
"""

# %% [markdown]
r"""
## Why does exactly one factor start at zero?

Three ways to begin, and the size of both gradients over the first steps. **Predict** each
row before you run it.
"""

# %%
import numpy as np

from lora_np.lora import init_lora, lora_linear, lora_linear_backward
from lora_np.nn import Parameter
from lora_np.training import SGD

# %matplotlib inline


def first_gradients(A, B, steps=3):
    rng = np.random.default_rng(0)
    x, W, target = (rng.normal(size=s) for s in ((16, 6), (4, 6), (16, 4)))
    A, B = Parameter(A.copy()), Parameter(B.copy())
    optimizer, sizes = SGD([A, B], lr=0.05), []
    for _ in range(steps):
        y, cache = lora_linear(x, W, None, A.data, B.data, 2.0)
        _, _, A.grad, B.grad = lora_linear_backward((y - target) / 16, cache)
        sizes.append((np.abs(A.grad).max(), np.abs(B.grad).max()))
        optimizer.step()
    return sizes


A, B = init_lora((2, 6), (4, 2), np.random.default_rng(1), dtype=np.float64)
for name, start in (
    ("A random, B = 0", (A, B)),
    ("both zero", (0 * A, B)),
    ("both random", (A, A[:, :4].T)),
):
    steps = "   ".join(f"dA {a:.2f} dB {b:.2f}" for a, b in first_gradients(*start))
    print(f"{name:<16} {steps}")

# %% [markdown]
r"""
*A random, B = 0*: dA is zero at step 0 and alive from step 1. *Both zero*: dead for
ever. *Both random*: alive, but the model's output changes before any training. The library
refuses "both zero" with that explanation.

## Which scale keeps the first step the same for every rank?

One says $s = \alpha/r$ (the paper), another $s = \alpha/\sqrt r$ (rsLoRA). (*SGD* moves a
weight against its gradient, $-\eta\,g$ with the *learning rate* $\eta$; *Adam* divides by a
running size of the gradient, so its first step is $\eta$ whatever $g$ is.) Take one step from
$B = 0$ at width 512 and measure how far the loss falls, to first order. **Predict:**
which scale makes that fall independent of r with SGD? And with Adam, whose step does not
care how large the gradient is?
"""

# %%
from lora_np.training.planted import first_update

ranks = (4, 16, 64, 256)
for optimizer in ("sgd", "adam"):
    for use_rslora in (False, True):
        falls = [
            np.mean(
                [first_update(r, use_rslora, optimizer, s)["loss"] for s in range(6)]
            )
            for r in ranks
        ]
        label = "α/√r" if use_rslora else "α/r "
        print(
            f"{optimizer:<5}{label}  "
            + "  ".join(f"r={r}: {f / falls[0]:6.2f}" for r, f in zip(ranks, falls))
        )

# %% [markdown]
r"""
(Each row is divided by its value at r = 4; the mean over six draws.) SGD wants
$\alpha/\sqrt r$, Adam wants $\alpha/r$: with SGD the update $B = -\eta\, s\, dW A^\top$ carries a
second factor $s$, with Adam it does not. The answer depends on the measure, too. By the
size of the update itself, $\lVert\Delta W\rVert$:
"""

# %%
for optimizer in ("sgd", "adam"):
    for use_rslora in (False, True):
        sizes = [
            np.mean(
                [first_update(r, use_rslora, optimizer, s)["weight"] for s in range(6)]
            )
            for r in ranks
        ]
        label = "α/√r" if use_rslora else "α/r "
        print(
            f"{optimizer:<5}{label}  "
            + "  ".join(f"r={r}: {f / sizes[0]:6.2f}" for r, f in zip(ranks, sizes))
        )

# %% [markdown]
r"""
By that measure Adam wants $\alpha/\sqrt r$, because the r directions add like the sides of a
right angle and not like lengths in a row. So "rsLoRA stabilises the update" needs two more
words: under which optimizer, measured how. (rsLoRA's own argument is about every step of
training as r grows, not the first. And 1.15 at r = 256: so many directions in 512 are no
longer nearly at right angles.)

## Which rank is enough?

For real text nobody knows. For a *planted* teacher, whose weight differs from the base by
a matrix of rank exactly 4, we know. **Predict** the loss for r = 2, 4 and 8, with little
noise in the training targets (0.1) and with much (0.3). The loss is measured on fresh
inputs against the teacher without noise.
"""

# %%
from lora_np.cli.figures import RANKS, TRUE_RANK, rank_losses
from lora_np.plots import loss_against_rank

losses = rank_losses()
for name, values in losses.items():
    print(name, {r: round(v, 4) for r, v in zip(RANKS, values)})
loss_against_rank(RANKS, losses, TRUE_RANK)

# %% [markdown]
r"""
A knee at the true rank; beyond it, with noise, more rank fits more noise. "A larger r is
more precise" is true only up to the rank that the task has.

## A real text: who learns, who forgets?

LoRA, full fine-tuning, and training the output head alone (a copy of the tied matrix, so
that the embedding stays); the same bytes, the same steps, each with the learning rate that
was best for it in a recorded search (sixty steps, another seed, the same held-out
windows, so these losses are a little optimistic for all three). **Predict**
who reaches the lowest loss on the new text, and who loses most on the old.
"""

# %%
from lora_np.cli.adapt import METHODS, adapt, recorded_rates

outcomes = {m: adapt(m, recorded_rates()[m], steps=15) for m in METHODS}
print("method  trained    new text         old text")
for m, o in outcomes.items():
    print(
        f"{m:<6}{o.trainable:>9,}    {o.new_text[0]:.2f} -> {o.new_text[1]:.2f}     "
        f"{o.old_text[0]:.2f} -> {o.old_text[1]:.2f}"
    )

# %% [markdown]
r"""
After fifteen steps LoRA and full fine-tuning have learnt about as much, and full
fine-tuning has forgotten most, with a dozen times the numbers. The main job
(`python -m lora_np`) runs sixty steps; there full fine-tuning also learns a little more,
"LoRA learns less and forgets less" (Biderman et al. 2024, 2405.09673) in miniature, and
the head alone learns least and forgets about as little as LoRA.

## What did it cost?

Multiply-adds can be counted. Each weight of a linear layer takes part in three products
a token: forward, gradient of the input, gradient of the weight. LoRA leaves the third one
out for $W$ and pays three for its factors. **Predict** the ratio for D = M = 768, r = 8.
"""

# %%
from lora_np.lora import full_step_flops, lora_step_flops

for width, r in ((128, 8), (768, 8), (4096, 8)):
    ratio = lora_step_flops([(width, width)], r) / full_step_flops([(width, width)])
    print(f"width {width}, r {r}: {ratio:.4f} of full fine-tuning")

# %% [markdown]
r"""
About two thirds, for a layer with something trained below it: the forward pass and the
gradient of the input remain. (Below the lowest adapter the latter falls away too.) What
falls by far more is memory for gradients, optimizer state and checkpoints:
"""

# %%
from lora_np.plots import memory_bars

for m, o in outcomes.items():
    print(
        f"{m:<5} state {(o.memory.gradients + o.memory.optimizer) / 1e6:6.2f} MB, "
        f"checkpoint {o.memory.checkpoint / 1e6:5.2f} MB, weights {o.memory.weights / 1e6:.2f} MB"
    )
memory_bars(
    {
        m: {
            "weights": o.memory.weights,
            "gradients": o.memory.gradients,
            "optimizer state": o.memory.optimizer,
            "checkpoint": o.memory.checkpoint,
        }
        for m, o in outcomes.items()
    }
)

# %% [markdown]
r"""
The weights themselves do *not* shrink: LoRA makes training and storage of many variants
cheap, not the model.

## Merged, saved, read by others

After merging, the layers are ordinary again. The adapter is saved in the format of PEFT,
under its keys.
"""

# %%
import tempfile
from pathlib import Path

from lora_np.data import split_ids
from lora_np.files import load_tensors
from lora_np.nn import merge_lora, save_adapter
from lora_np.tape import no_grad

model, probe = outcomes["lora"].model.eval(), split_ids("devil")[1][:128].reshape(2, 64)
with tempfile.TemporaryDirectory() as folder, no_grad():
    save_adapter(model, folder)
    tensors = load_tensors(Path(folder) / "adapter_model.safetensors")
    apart = model.logits(probe).data
    merge_lora(model)
    merged = model.logits(probe).data
print(
    "largest difference of a logit is rounding:",
    bool(np.abs(apart - merged).max() < 1e-4 * np.abs(apart).max()),
)
for key in sorted(tensors)[:2]:
    print(key, tensors[key].shape)

# %% [markdown]
r"""
## Three questions

1. Your LoRA uses $\alpha = 16$ at r = 8 with AdamW. You try r = 64. What should α be, if the
   first step is to lower the loss as much as before?
2. Why do the multiply-adds of an adapted layer not fall below two thirds?
3. The loss on the old text rises under LoRA as well. Is the base damaged?

<details><summary>Answers</summary>

1. With α/r and Adam the first fall does not depend on r: keep 16. (With $\alpha/\sqrt r$ it
   would have to shrink by $\sqrt 8$.)
2. Of three products a weight, only its own gradient is saved; the forward pass is needed
   for the loss and the gradient of the input to reach adapters further down.
3. No: remove the adapter and the old model is back bit for bit. Under full fine-tuning it
   is gone.
</details>

Next: [five articles, five systems](06_d0_features.ipynb)
"""
