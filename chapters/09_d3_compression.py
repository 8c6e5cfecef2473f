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
# 09 · D3: is LoRA a compression of W, and does it slow training down?

The fourth article, signed 禅与计算机程序设计艺术 (its file begins without the title), says in our words:
$W \approx A B$ by least squares, solved with a Lagrangian; an example with a 2 by 3 matrix; a call
`LowRankAdaptation(model).fit(inputs, epochs=3)` on GPT-2; an ONNX graph; the drawback that training
takes longer because of the decomposition; LoRA as a layer after the output layer; both "faster" and "slower"; a wrong
reference for the method. The ledger has them all: `python -m lora_np documents --only D3`.
"""

# %% [markdown]
r"""
## Three ways to one optimum

**Predict:** truncated SVD, alternating least squares and gradient descent all minimise
$\lVert W - AB \rVert$. Which finds the smallest error on a pretrained 384 by 128 matrix?
"""

# %%
import numpy as np

from lora_np.documents import d3
from lora_np.documents.compress import by_alternating, by_gradients, by_svd, residual
from lora_np.plots import reconstruction

# %matplotlib inline

W, ranks = d3.base_matrix(), (1, 2, 4, 8, 16, 32)
rng = np.random.default_rng(0)
errors = {
    "SVD": [residual(W, by_svd(W, r)) for r in ranks],
    "alternating least squares": [
        residual(W, by_alternating(W, r, 60, rng)) for r in ranks
    ],
    "gradient descent": [residual(W, by_gradients(W, r, 600, rng)) for r in ranks],
}
for name, values in errors.items():
    print(f"{name:<26}", "  ".join(f"{v:.3f}" for v in values))
reconstruction(ranks, errors)

# %% [markdown]
r"""
The same, to the width of a line (three curves lie on one another). Mind the letters: here A is (M, r) and B (r, D), the other
way round than LoRA's. The article solves it with a Lagrangian and the constraint $A : B - I = 0$:

"""

# %%
from lora_np.cli.documents import check_by_id, show

show(check_by_id("D3.2"))

# %% [markdown]
r"""
## The example, redone

$W = \begin{pmatrix}1&2&3\\4&5&6\end{pmatrix}$, printed $AB$ "very close to W". **Predict:** how many
numbers do the factors of rank 2 hold, and how many has W?
"""

# %%
print("product of the printed factors\n", (d3.PRINTED_A @ d3.PRINTED_B).round(3))
print("the expansion as it is printed\n", d3.printed_expansion().round(3))
print("the product as it is printed\n", d3.PRINTED_PRODUCT)
show(check_by_id("D3.3"))

# %% [markdown]
r"""
## The call

It exists here, for our own GPT, of any size. **Predict** the shape of the hidden states for ids of
shape (8, 32) and a width of 128.
"""

# %%
from lora_np.documents.experiments import base
from lora_np.documents.low_rank_adaptation import LowRankAdaptation

ids = np.random.default_rng(0).integers(0, 256, (8, 32))
adaptation = LowRankAdaptation(base())
hidden = adaptation.fit(ids, epochs=3)
print("hidden states", hidden.shape)
print("loss of each epoch", [round(loss, 2) for loss in adaptation.history.loss])

# %% [markdown]
r"""
One vector for each *position*. The ids are random bytes; a model that is sure of English pays more than ln 256 = 5.55 nats
for them, and learns first not to be sure. (On GPT-2 small's shape, 124 million numbers, the same call is D3.4: seconds, and
under a gigabyte.)

## Does the decomposition slow training down?

**Predict** how often `numpy.linalg.svd` is called in five training steps.
"""

# %% tags=["volatile"]
show(check_by_id("D3.6"))

# %% [markdown]
r"""
Never: the factors are trained as they are.

## The ONNX graph

ONNX is a file format for computation graphs. What the article prints is none; a real one of a merged model can be had:
"""

# %% tags=["volatile"]
show(check_by_id("D3.5"))

# %% [markdown]
r"""
## In series or in parallel?

The flow diagram puts the low-rank layer *after* the output layer. The real graph of one layer puts it
*beside* the weight:
"""

# %%
from lora_np.plots import draw_graph
from lora_np.tape import Tensor, recording

rng = np.random.default_rng(0)
x = Tensor(rng.normal(size=(1, 3)), True, name="x")
W = Tensor(rng.normal(size=(3, 4)), True, name="Wᵀ")  # True: only to be drawn
A = Tensor(rng.normal(size=(3, 2)), requires_grad=True, name="Aᵀ")
B = Tensor(np.zeros((2, 4)), requires_grad=True, name="Bᵀ")
with recording():
    y = x @ W + (x @ A) @ B
    parallel = draw_graph(y)
parallel

# %%
A = Tensor(rng.normal(size=(4, 2)), requires_grad=True, name="Aᵀ")
with recording():
    serial = draw_graph(((x @ W) @ A) @ B)
serial

# %% tags=["volatile"]
show(check_by_id("D3.9"))

# %% [markdown]
r"""
In series everything passes the bottleneck; in parallel only the update does.

## Less data?

The article says that LoRA does with less training data. **Predict** who is ahead on 1,000, 10,000 and 100,000
characters, each method at its own best rate for each amount:
"""

# %% tags=["volatile"]
show(check_by_id("D3.10"))

# %% [markdown]
r"""
Neither needs less than the other.

## When someone quotes it in an interview

"The update is low-rank, not the weight; nothing is decomposed in training; a step costs about
two thirds of the operations in GPT-2 small, because the frozen weights need no gradient. The adapter is parallel to
each weight and can be merged, so the exported graph is that of the base."

## Three questions

1. When does storing A and B take fewer numbers than W (M, D)?
2. Gradient descent on $\lVert W - AB\rVert^2$ is not convex. Why does it find the SVD's optimum all the same?
3. After a merge, what does an ONNX graph show of LoRA?

<details><summary>Answers</summary>

1. When r (M + D) < M D; for 2 by 3 only at r = 1.
2. Where the singular values differ, its other stationary points are saddles (other choices of singular directions), which
   a random start leaves.
3. Nothing: the update is inside the weights.
</details>

Next: [LoRA proper, with five faults](10_d4_printed_gradients.ipynb)
"""
