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
# 10 · D4: are the printed gradients right, and which test would have noticed?

The fifth article, 《大规模语言模型从理论到实践 LoRA》 (no author given), is about LoRA proper:
$y = (W + BA)x$, only A and B trained, gradients by hand, a worked example, a PyTorch layer. Its other claims
(larger r, convolution and attention, general knowledge kept) follow below. In our words; its columns are vectors, so x is (in,) and dy is (out,).

| | printed | right |
|---|---|---|
| update | $B A^\top$ with A (r, in) | $B A$ |
| dA | $dy\, B^\top x^\top$ | $B^\top dy\, x^\top$ |
| dB | $dy\, A$ | $dy\, (A x)^\top$ |
"""

# %% [markdown]
r"""
## The worked example

A = [0.1, -0.2], B = [0.3, -0.4, 0.5]ᵀ, x = [1, 2], dy = [0.2, -0.1, 0.3]. **Predict** BA's first row and
dA with pencil and paper, before you run it.
"""

# %%
import numpy as np

from lora_np.documents import d4

# %matplotlib inline

right = d4.worked_example()
for name, printed in d4.PRINTED.items():
    print(f"{name}: printed {printed.tolist()}")
    print(f"{'':<{len(name)}}  right   {right[name].round(4).tolist()}")

# %% [markdown]
r"""
All four are wrong. (The printed *number* for dA is wrong; the printed *expression*, evaluated, gives the right one: two separate
slips, see below.) How wrong is a wrong gradient? Take the loss that is a parabola in y with
the given dy as its gradient; y is linear in B, so it is a parabola in B too. Step from B against each
gradient, with the length that takes the right one exactly to the bottom:
"""

# %%
from lora_np.plots import two_gradients

B, dB, printed = d4.EXAMPLE["B"][:, 0], right["dB"], d4.PRINTED["dB"]
Ax = float(d4.EXAMPLE["A"][0] @ d4.EXAMPLE["x"])
step = 1 / Ax**2  # one over the curvature
size, cosine = (
    np.linalg.norm(printed) / np.linalg.norm(dB),
    dB @ printed / np.linalg.norm(dB) / np.linalg.norm(printed),
)
print("right dB  ", dB.round(3).tolist(), "  printed dB", printed.tolist())
print(
    f"the printed one is {size:.2f} times as long, {np.degrees(np.arccos(cosine)):.0f} degrees off"
)
target = B[1:] - step * dB[1:]
two_gradients(B[1:], dB[1:], printed[1:], target, ("B[1]", "B[2]"), step)

# %% [markdown]
r"""
(All three numbers; the picture shows the last two.) It points roughly downhill, so a small step still lowers the loss and
nobody notices; the step drawn here, right for the true gradient, raises it.

## Which test notices the order of factors?

The printed expression for dA, $dy\,B^\top x^\top$, read as the example reads it, row times column times row. **Predict:** at which
ranks does it give the right answer, a wrong one, or an error?
"""

# %%
for R in (1, 2, 3):
    A, B, W, x, dy = d4.one_example(R)
    want = d4.right_gradients(dy, A, B, x)[0]
    try:
        got = d4.printed_dA_row(dy, B, x)
        print(f"r = {R}: error {np.abs(got - want).max():.1e}")
    except ValueError:
        print(f"r = {R}: raises")

# %% [markdown]
r"""
At r = 1 the wrong order is invisible: a 1 by 1 block commutes with everything. **A test at r = 1 would let it pass.**
That is why the problems in this library draw sizes that all differ, r = 1 *and* r > min(in, out).

And the other one, $dB = dy\,A$? x is missing, so no choice of shapes can save it:
"""

# %%
from lora_np.cli.documents import check_by_id, show

show(check_by_id("D4.4"))

# %% [markdown]
r"""
## Five faults of a listing

**Predict** which of these raise and which train on without a word: a parameter called like a function;
the bias dropped; both factors random; no α/r; the base weight handed to the optimizer.
"""

# %% tags=["volatile"]
show(check_by_id("D4.6"))

# %% [markdown]
r"""
Only the first raises; the other four say nothing.

## Does it keep what the model knew?

The claim that everybody repeats: LoRA keeps the general knowledge that full fine-tuning damages.
In chapter 05 each method ran at the rate that was best *for the new text*, and full fine-tuning had forgotten
most. **Predict** what happens when both are compared at the same loss on the new text.
"""

# %% tags=["volatile"]
show(check_by_id("D4.9"))

# %% [markdown]
r"""
At an equal gain LoRA forgot a little more here (one small model, one text, thirty steps; interpolated between two rates of full
fine-tuning). The rate matters as much as the method: chapter 05's rate for full fine-tuning was three times the
larger of these two. What LoRA does guarantee is another thing: the base is untouched, and
without the adapter the old model is back, bit for bit.

## Convolution, attention, larger r

"Also for convolution and attention": yes, each with its own derivation and certification. "A larger r
for precision": **predict** where the error stops falling for a planted teacher of rank 4 (chapter 05):
"""

# %% tags=["volatile"]
show(check_by_id("D4.7"))
show(check_by_id("D4.8"))

# %% [markdown]
r"""
On real text it still fell a little at 16.

## When someone quotes it in an interview

"From shapes, on the board: dA must be (r, in), so $B^\top$ (r, out) comes first, then dy (out), then
$x^\top$; dB must be (out, r), so dy first, then $(Ax)^\top$. Then name the test: sizes that all differ, r of
at least 2, a random upstream gradient, B not zero."

## Three questions

1. Give two inputs on which the printed dA and the right one agree.
2. Why does no choice of shapes save $dB = dy\,A$?
3. You compare forgetting of two methods at each one's best learning rate. What is unfair?

<details><summary>Answers</summary>

1. r = 1 with any sizes, read as the example reads it; dy = 0 or B = 0 or x = 0, where the product exists: again only r = 1 (all zero).
2. It does not contain x: doubling the input doubles the true gradient and leaves the printed one as it is.
3. They stop at different losses on the new text; who learnt more has usually forgotten more. Compare
   the old loss at an equal new loss.
</details>

Next: [exercises, graded here](11_exercises.ipynb)
"""
