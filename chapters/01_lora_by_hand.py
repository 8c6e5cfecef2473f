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
# 01 · LoRA by hand: where do dA and dB come from?

Every formula of LoRA's backward pass follows from one sentence: *the gradient of a product
with respect to one factor is the other factor, in the right place.* Finding the right
place is what this chapter does, with indices first, where nothing can be transposed by
mistake, and as matrices second.
"""

# %% [markdown]
r"""
## The setting

$L$ is the loss, one number. $G_{nm} = \partial L / \partial y_{nm}$ comes from above. For
one layer

$$y_{nm} = \sum_d x_{nd} W_{md} + s \sum_r B_{mr} \sum_d A_{rd}\, x_{nd}$$

we want $\partial L/\partial A_{rd}$, $\partial L/\partial B_{mr}$, $\partial L/\partial
x_{nd}$. By the chain rule, each is $\sum_{nm} G_{nm}\, \partial y_{nm}/\partial(\cdot)$.

**B.** $\partial y_{nm}/\partial B_{m'r} = s\,\delta_{mm'} \sum_d A_{rd} x_{nd}$, where
$\delta_{mm'}$ is 1 if $m = m'$ and 0 otherwise. Writing $u_{nr} = \sum_d A_{rd} x_{nd}$:

$$\frac{\partial L}{\partial B_{mr}} = s \sum_n G_{nm} u_{nr} = s\,(G^\top u)_{mr}
\qquad u = x A^\top$$

**A.** $\partial y_{nm}/\partial A_{rd} = s\, B_{mr} x_{nd}$, so

$$\frac{\partial L}{\partial A_{rd}} = s \sum_{nm} G_{nm} B_{mr} x_{nd}
= s\,\big((G B)^\top x\big)_{rd}$$

**x.** Two paths lead to $x$, and their gradients add:

$$\frac{\partial L}{\partial x} = G\,W + s\,(G B)\,A$$
"""

# %%
import inspect

import numpy as np

from lora_np.lora import lora_linear, lora_linear_backward

print(inspect.getsource(lora_linear_backward))

# %% [markdown]
r"""
How to read it: a suffix names an array's axes, so `dA_RD` has the shape of A, (R, D).
The forward saves $s\,u$ (as `su_NR`), so dB needs no further $s$. `needs` names the
gradients that somebody wants, and what nobody wants is not computed. A *mask*, if there
is one, is dropout's: during training some entries of $x$, a share $p$, are set to zero on
the low-rank path, and the rest divided by $1-p$ so that the mean stays.
"""

# %% [markdown]
r"""
## Does it fit?

Shapes alone catch many slips, but only if no two sizes are equal. **Predict:** suppose
somebody writes $dA = G\,B^\top x^\top$ for one column $x$ with $r = 1$. Does NumPy
object?
"""

# %%
x, A = np.array([[1.0], [2.0]]), np.array([[0.1, -0.2]])
B, G = np.array([[0.3], [-0.4], [0.5]]), np.array([[0.2], [-0.1], [0.3]])
right = B.T @ G @ x.T
print("right:", right, "shape", right.shape)
try:
    print("printed:", G @ B.T @ x.T)
except ValueError as error:
    print("printed form raises:", str(error)[:60])
as_rows = (G.T @ B) * x.T  # r = 1: Bᵀ G is a single number, and a number has no order
print("read as numbers, for r = 1:", as_rows)

# %% [markdown]
r"""
As matrices the printed form does not even multiply. Read as numbers, as one does on paper
for r = 1, $B^\top G$ is a single number, and every order gives the right answer: on paper
the mistake is invisible. Test in code, with sizes that differ and r ≥ 2.

## The saving: a matrix that is never formed

For full fine-tuning we would need $dW = G^\top x$, as large as $W$. LoRA never forms it,
although its gradients are products with it: $dA = s\,B^\top dW$ and $dB = s\,dW A^\top$.
"""

# %%
rng = np.random.default_rng(1)
N, D, M, R, s = 6, 5, 4, 2, 0.5
x, W = rng.normal(size=(N, D)), rng.normal(size=(M, D))
A, B, G = rng.normal(size=(R, D)), rng.normal(size=(M, R)), rng.normal(size=(N, M))
_, cache = lora_linear(x, W, None, A, B, s)
dx, _, dA, dB = lora_linear_backward(G, cache)
dW = G.T @ x
print("dA = s Bᵀ dW:", np.abs(dA - s * B.T @ dW).max() < 1e-14)
print("dB = s dW Aᵀ:", np.abs(dB - s * dW @ A.T).max() < 1e-14)

# %% [markdown]
r"""
It follows that $B^\top dB = s\,B^\top dW A^\top = dA\,A^\top$ for any loss.
**Predict:** if somebody forgets $s$ everywhere, does this identity notice?
"""

# %%
print("with s:   ", np.abs(B.T @ dB - dA @ A.T).max() < 1e-13)
dA_wrong, dB_wrong = dA / s, dB / s
print("without s:", np.abs(B.T @ dB_wrong - dA_wrong @ A.T).max() < 1e-13)

# %% [markdown]
r"""
It holds for the wrong gradients too: an identity between two results cannot replace an
independent answer. That is why chapter 02 exists.

## The same three lines elsewhere

An *embedding* (a table with a row for each token, looked up by the token's number) is a
linear layer on rows that are all zero but for a single 1; a *convolution* is a linear
layer on the patches that its kernel sees. The backward passes change as little:
"""

# %%
from lora_np.lora import lora_embedding_backward

print(inspect.getsource(lora_embedding_backward))

# %% [markdown]
r"""
The one new thing there: a token that occurs twice must *add* its two gradients.
**Predict** what `dA[:, ids] = ...` (an assignment) would do to a repeated id.
"""

# %%
ids, v = (
    np.array([1, 1, 0]),
    np.array([[1.0], [10.0], [5.0]]),
)  # v: gradient of each token
assigned, added = np.zeros((1, 3)), np.zeros((1, 3))
assigned[:, ids] = v.T
np.add.at(added.T, ids, v)
print("assigned:", assigned, "  added:", added)

# %% [markdown]
r"""
## Merging

After training, $W' = W + sBA$ gives one ordinary layer, with no cost at run time. In
exact arithmetic nothing changes; in a finite format the sum is rounded, and the library
computes how far that can go and tests it (the sum is formed in float64, so beside it the
float64 row shows 0):
"""

# %% tags=["volatile"]
from lora_np.lora import delta_weight, merge, merge_bound, round_trip_bound, unmerge

delta = delta_weight(A, B, s)
for dtype in (np.float64, np.float32, np.float16):
    base = W.astype(dtype)
    there = merge(base, delta)
    back = unmerge(there, delta)
    error = np.abs(there.astype(float) - (base + delta)).max()
    print(
        f"{np.dtype(dtype).name}: merging rounds by {error:.0e} "
        f"(bound {merge_bound(base, A, B, s).max():.0e}), there and back "
        f"{np.abs(back.astype(float) - base).max():.0e} "
        f"(bound {round_trip_bound(base, A, B, s).max():.0e})"
    )

# %% [markdown]
r"""
## DoRA: when the obvious backward is not the derivative

DoRA (Liu et al. 2024, 2402.09353) trains length and direction of each row apart:
$U_i = m_i V_i / \lVert V_i \rVert$ with $V = W + sBA$. The paper, and PEFT with it, treat
the norm as a constant in the backward pass. **Predict:** by how much is that gradient
off, if the norm *is* a function of A and B?
"""

# %%
from lora_np.lora import dora_linear, dora_linear_backward, row_norm

m = row_norm(W) * 1.1
constant = row_norm(W + s * B @ A)
_, full_cache = dora_linear(x, W, None, A, B, m, s)
_, detached_cache = dora_linear(x, W, None, A, B, m, s, norm_M=constant)
full = dora_linear_backward(G, full_cache)[2]
detached = dora_linear_backward(G, detached_cache)[2]
print(
    f"dA differs by {np.abs(full - detached).max() / np.abs(full).max():.0%} "
    "of its largest entry"
)

# %% [markdown]
r"""
It is a legitimate choice (cheaper, and the paper reports little loss of accuracy), but a gradient check against the whole
function rejects it, rightly. The library offers both and certifies each against its own
function.

## Three questions

1. Why is $dW$ never needed, although $dA$ and $dB$ can be written with it?
2. Where must dropout's mask appear in the backward pass, and where not?
3. A colleague tests `B.T @ dB == dA @ A.T` and calls the gradient verified. What can be
   wrong all the same?

<details><summary>Answers</summary>

1. $dA = s\,(GB)^\top x$ goes through (N, R) and $dB = s\,G^\top(xA^\top)$ through (N, R):
   nothing of size M × D is formed.
2. On the low-rank path alone: in $x_d$ where it enters dA and dB, and on the low-rank part
   of dx. The frozen path $G W$ sees no mask.
3. The scale, or any common factor of both; also both zero.
</details>

Next: [02 Is the gradient right?](02_is_the_gradient_right.ipynb)
"""
