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
# 03 · A tape: how does a computer apply the chain rule to any program?

Deriving every layer by hand is instructive once and tiresome for ever. An *autograd* does
it for any program made of known operations: it writes down what was done (the *tape*, or
graph) and walks it backward. Ours is three short files (`graph`, `tensor`, `tape`), and
this chapter shows the four ways in which such a thing is usually broken.
"""

# %% [markdown]
r"""
## One operation, one link

Each operation makes a new `Tensor` and keeps, for each operand that needs a gradient, one
*link*: a function that turns the gradient of the result into that of the operand. Here is
multiplication, the derivative under the operation:
"""

# %%
import inspect

import numpy as np

from lora_np import tape
from lora_np.graph import run_backward
from lora_np.tape import Tensor, recording

print(inspect.getsource(tape.mul))

# %% [markdown]
r"""
`unbroadcast` is there because NumPy repeats small arrays to fit large ones: what was
copied to many places has a gradient that is the sum over them.

## A picture

**Predict** the gradient at $x$ for $y = x \cdot x + x$ at $x = 3$, then read it off.
"""

# %%
from lora_np.plots import draw_graph

with recording():  # keep values and gradients for the drawing
    x = Tensor(np.array(3.0), requires_grad=True, name="x")
    y = x * x + x
y.backward()
print("dy/dx =", x.grad)
draw_graph(y)

# %% [markdown]
r"""
7: from the product 3 twice (x stands on both sides), and 1 from the sum. Three gradients
arrive at one node, and they *add*.

## Backward, in order

A node may pass its gradient on only when all its children have sent theirs. So the nodes
are sorted: parents before children, then walked from the end. (The *parents* of a result
are its operands, its *children* the results made from it; a *leaf* was made by nobody and
collects its gradient.) The sort uses a stack
instead of recursion, because a chain of 100,000 operations is not rare and Python's
recursion ends at a thousand.
"""

# %%
print(inspect.getsource(run_backward).split('"""')[0])
print(inspect.getsource(run_backward).split('"""')[2])

# %% [markdown]
r"""
## Four classic faults

Each of these is easy to write, and each passes on simple graphs.

**1. Overwriting instead of adding.** **Predict** what $y = x \cdot x + x$ gives when the
last gradient to arrive wins.
"""

# %%
from lora_np.graph import topological


def backward_overwriting(root, gradient):
    gradients = {root: gradient}
    for node in topological(root)[::-1]:
        g = gradients.pop(node)
        if node.leaf is not None:
            node.leaf.grad = g
            continue
        for parent, d in zip(node.parents, node.backward(g)):
            gradients[parent] = d  # should add


x = Tensor(np.array(3.0), requires_grad=True)
y = x * x + x
backward_overwriting(y.node, np.ones(()))
print("overwriting gives", x.grad, "instead of 7")

# %% [markdown]
r"""
**2. No order.** Walking the graph as it comes, a node may be visited before all of its
children. In $h + 8h$ with the second path longer, the first visit of $h$ carries only a
part.
"""


# %%
def backward_unordered(root, gradient):
    queue, seen = [(root, gradient)], set()
    while queue:
        node, g = queue.pop(0)
        if node.leaf is not None:
            node.leaf.grad = g if node.leaf.grad is None else node.leaf.grad + g
        elif node not in seen:  # "already done", but not with everything
            seen.add(node)
            queue += zip(node.parents, node.backward(g))


x = Tensor(np.array(2.0), requires_grad=True)
h = x * 1.0
y = h + h * 2.0 * 2.0 * 2.0
backward_unordered(y.node, np.ones(()))
print("no order gives", x.grad, "instead of 9")

# %% [markdown]
r"""
**3. No un-broadcast.** A bias of shape (3,) added to four rows: its gradient must have
shape (3,), the sum over the rows, not (4, 3).
"""

# %%
b = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
(Tensor(np.ones((4, 3))) + b).sum().backward()
print(b.grad)

# %% [markdown]
r"""
**4. Backward twice.** Inner gradients that survive the first call are counted again in
the second. Ours frees the graph while it walks, which also gives the memory back, and
says so if you try:
"""

# %%
x = Tensor(np.array(3.0), requires_grad=True)
y = x * x
y.backward()
try:
    y.backward()
except RuntimeError as error:
    print(error)

# %% [markdown]
r"""
Leaf gradients *do* add up over several graphs, on purpose: that is gradient
accumulation, and `zero_grad` ends it.

## Linear time

**Predict:** thirty doublings `y = y + y`. How many paths lead from the end to x, and how
many nodes must be visited?
"""

# %%
x = Tensor(np.array(1.0), requires_grad=True)
y = x
for _ in range(30):
    y = y + y
nodes = len(topological(y.node))
y.backward()
print(f"gradient {x.grad:.0f} = 2**30 paths: {x.grad == 2**30}; nodes visited: {nodes}")

# %% [markdown]
r"""
## Hand-derived pairs as single nodes

A transformer layer made of primitives would have hundreds of nodes, each with saved
arrays. `lift` makes a hand-derived pair one node: the tape does the bookkeeping between
layers, the formulas of chapter 01 the work inside. And the primitives check the pairs:
"""

# %%
from lora_np.functional import layer_norm, layer_norm_backward
from lora_np.reference import primitive
from lora_np.tape import lift

print(inspect.getsource(primitive.layer_norm))
rng = np.random.default_rng(0)
arrays = [rng.normal(size=(4, 5)), rng.normal(size=5), rng.normal(size=5)]
G = rng.normal(size=(4, 5))
gradients = []
for f in (lift(layer_norm, layer_norm_backward), primitive.layer_norm):
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    out = f(*leaves, 1e-5)
    out.backward(G)
    gradients.append([t.grad for t in leaves])
for name, by_hand, by_tape in zip(("dx", "dg", "db"), *gradients):
    print(
        name, "agrees:", np.abs(by_hand - by_tape).max() < 1e-13 * np.abs(by_tape).max()
    )

# %% [markdown]
r"""
## Three questions

1. Why must a node wait for all of its children?
2. What does the tape save for `y = W @ x` when W is frozen?
3. `x.grad` is twice as large as expected. Name two causes.

<details><summary>Answers</summary>

1. Its gradient is the sum over all paths; passing on a part sends too little downward, and
   sending again later either repeats work (exponentially often) or is lost.
2. Only W, for dx. The link to W is not kept, and x with it.
3. `zero_grad` was forgotten between two backward passes; or the tensor is used twice (then
   it is right).
</details>

Next: [04 A tiny transformer](04_tiny_transformer.ipynb)
"""
