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
# 02 · Is the gradient right, and how would you know?

A wrong gradient rarely crashes. The loss falls a little more slowly, and everybody blames
the learning rate. This chapter builds the tools that say *right* or *wrong*, and shows on
what inputs even good tools are blind.
"""

# %% [markdown]
r"""
## Turning a table of outputs into one number

A layer has many outputs; a derivative check wants one. Draw a random array $G$ of the
output's shape (the *cotangent*) and look at $L = \sum G \cdot y$. Then the backward
pass, given $dy = G$, must return the derivative of $L$. **Predict:** why not simply
$G = 1$ everywhere, that is $L = \sum y$?
"""

# %%
import numpy as np

from lora_np.functional import softmax, softmax_backward

z = np.array([[0.3, -1.0, 2.0]])
p, cache = softmax(z)
ones = np.ones_like(p)
print("right backward, G = 1:      ", softmax_backward(ones, cache)[0].round(15))
print("a backward that returns 0:  ", 0 * p)
G = np.array([[1.0, -2.0, 0.5]])
print("right backward, random G:   ", softmax_backward(G, cache)[0].round(4))

# %% [markdown]
r"""
(*Softmax* turns a row of numbers into weights, $p_i = e^{z_i} / \sum_j e^{z_j}$.) The rows
of a softmax sum to 1 whatever $z$ is, so with $G = 1$ the derivative is zero: any
nonsense that returns zero passes. A random $G$ looks at every output.

## First method: a difference with h = 1

For $y = xW^\top + b$ the loss $L$ is *linear* in each single entry of $W$ (with the rest
held). A line has the same slope over any distance, so the step may be as large as 1:
$D = (L(w+1) - L(w-1))/2$. With small integers nothing is rounded, and the comparison is
`array_equal`, with no tolerance at all. **Predict:** is LoRA's $y$ linear in each entry
of A? Of A and B together?
"""

# %%
from lora_np.lora import lora_linear, lora_linear_backward
from lora_np.numerics import certify

rng = np.random.default_rng(0)


def whole(*shape):
    return rng.integers(1, 4, shape) * rng.choice([-1.0, 1.0], shape)


problem = {
    "x_ND": whole(4, 3),
    "W_MD": whole(5, 3),
    "b_M": whole(5),
    "A_RD": whole(2, 3),
    "B_MR": whole(5, 2),
    "s": 0.5,
}
report = certify(
    lora_linear, lora_linear_backward, problem, rng=rng, exact=("x", "b", "A", "B")
)
for row in report.rows:
    print(
        f"{row.array:<4}{row.method:<9}{row.passed}  relative error "
        f"{'0' if row.relative == 0 else 'below the limit'}"
    )

# %% [markdown]
r"""
Linear in each entry with all others held, which is all that is needed (together they
form a product, which is not linear). The other two methods:

* **central difference** $(L(w+h) - L(w-h))/2h$ with a small $h$: works for every smooth
  function, but subtracts two nearly equal numbers.
* **complex step** $\operatorname{Im} L(w + ih)/h$: for functions made of $+,\times,\exp$
  and the like, $L(w + ih) = L(w) + ihL'(w) + O(h^2)$, so the imaginary part over $h$ is
  the derivative up to $O(h^2)$, and nothing is subtracted: $h$ can be $10^{-30}$.

**Predict** the best accuracy of each as $h$ shrinks.
"""

# %% tags=["volatile"]
f, slope = np.exp, np.exp(1.0)
for h in (1e-2, 1e-5, 1e-8, 1e-11, 1e-30):
    central = (f(1 + h) - f(1 - h)) / (2 * h)
    complex_step = np.imag(f(1 + 1j * h)) / h
    print(
        f"h = {h:.0e}:  central is off by {abs(central - slope):.0e}, "
        f"complex step by {abs(complex_step - slope):.0e}"
    )

# %% [markdown]
r"""
The central difference has a best $h$ near $10^{-5}$ and gets no further than about
$10^{-11}$: truncation falls with $h$, cancellation rises. The complex step just gets
better. It has one trap: operations that drop the imaginary part, such as `abs`, `max`
of the whole number, or a conjugating product, make it silently wrong.

## How large is an error?

*Attention*, for now, is a function of three arrays whose output is a mean of the rows of
$v$ with softmax weights (chapter 04). **Predict:** its correct gradient, compared entry by entry as |got − want| /
|want|: is the worst entry off by 1e-9, or more?
"""

# %%
from lora_np.functional import attention, attention_backward

q, k, v = (rng.normal(size=(2, 16, 2, 8)) for _ in range(3))
dO = rng.normal(size=q.shape)
_, cache = attention(q, k, v, causal=True)
dq = attention_backward(dO, cache)[0]
central = np.empty_like(dq)
for at in np.ndindex(q.shape):
    moved = []
    for sign in (1, -1):
        q2 = q.copy()
        q2[at] += sign * 6e-6
        moved.append((attention(q2, k, v, causal=True)[0] * dO).sum())
    central[at] = (moved[0] - moved[1]) / 1.2e-5
error = np.abs(dq - central)
itself = np.where(central != 0, error / np.abs(np.where(central == 0, 1, central)), 0)
at = np.unravel_index(itself.argmax(), itself.shape)
print(
    f"largest entry {np.abs(central).max():.0f}, the entry at {tuple(map(int, at))} "
    f"{central[at]:.0e}"
)
print(
    "that entry, relative to itself, is off by more than 1e-7:", bool(itself[at] > 1e-7)
)
print(
    "all entries, relative to the largest, by less than 1e-9: ",
    bool(error.max() / np.abs(central).max() < 1e-9),
)

# %% [markdown]
r"""
An entry that happens to be small is still off by the method's noise of about $10^{-10}$,
so relative to *itself* it looks a thousand times worse than it is. All errors in this
library are relative to the array's largest entry.

## Break it

The library keeps its wrong implementations, and a test shows that each is rejected.
Here is a common fault, the forgotten scale. **Predict:** which
witness sees it?
"""

# %%
from lora_np.cli.check import certify_pair
from lora_np.reference import WRONG, pair, wrong

fault = wrong("lora_linear:no_scale")
failed = [
    r for r in certify_pair(pair("lora_linear"), 0, 2, fault) if r.passed is False
]
print(fault.why)
print(sorted({(r.array, r.method) for r in failed}))

# %% [markdown]
r"""
Only the *tape* witness, an independent form of the same layer: the forward forgot $s$
and its backward is the perfectly right derivative of the wrong function. Numerical
derivatives cannot see that; a second, independent forward can. And a fault in the
backward alone:
"""

# %%
fault = wrong("lora_linear:dA_not_scaled")
failed = [
    r for r in certify_pair(pair("lora_linear"), 0, 2, fault) if r.passed is False
]
print(sorted({(r.array, r.method) for r in failed}))
print(len(WRONG), "wrong implementations are kept")

# %% [markdown]
r"""
## Blind spots

The same wrong code, tested as tutorials test: $\alpha = r$, so $s = 1$.
"""

# %%
blind = {**problem, "s": 1.0}
y_right, _ = lora_linear(**blind)
y_wrong, _ = wrong("lora_linear:no_scale").forward(**blind)
print("α = r:  outputs equal", np.array_equal(y_right, y_wrong))
zero_B = {**problem, "B_MR": 0 * problem["B_MR"]}
y_right, _ = lora_linear(**zero_B)
y_wrong, _ = wrong("lora_linear:no_scale").forward(**zero_B)
print("B = 0:  outputs equal", np.array_equal(y_right, y_wrong))

# %% [markdown]
r"""
So the problems that the library draws have sizes that differ (and a square case apart),
$\alpha \ne r$, $B \ne 0$, two rows or more, a random cotangent and repeated ids.

## At a kink

`relu` has no derivative at 0. The report says so instead of pretending:
"""

# %%
from lora_np.functional import relu, relu_backward

x = np.array([[0.0, 1.5, -2.0]])
row = certify(relu, relu_backward, [x], rng=rng, analytic="a branch").row(
    "dx", "central"
)
print(row.passed, "-", row.note)

# %% [markdown]
r"""
## Certify your own

One call, for any `f(...) -> (y, cache)` and `f_backward(dy, cache)`:
"""


# %%
def cube(x):
    return x**3, x


def cube_backward(dy, x):
    return 2 * x**2 * dy  # a slip


for row in certify(
    cube, cube_backward, [np.array([1.0, 2.0])], rng=np.random.default_rng(7)
).rows:
    print(
        f"{row.array} {row.method}: passed {row.passed}, worst at {row.worst}, "
        f"{row.note or f'relative error {row.relative:.3f}'}"
    )

# %% [markdown]
r"""
## Three questions

1. Why can $h = 1$ be exact for LoRA but not for a softmax?
2. Your forward and backward both forget the scale. Which checks pass?
3. Why is a tolerance of 1e-2 in a gradient test worth almost nothing?

<details><summary>Answers</summary>

1. LoRA's output is linear in each single entry of x, A and B, so a secant is the tangent.
   A softmax is curved.
2. Every numerical derivative, because the pair is consistent. Only a comparison with an
   independent forward (or with merging) fails.
3. It catches a lost factor of 2, but not a missing term or factor worth less than one
   percent (1/(1 − p) with p = 0.005). Right code is at 1e-13 or 1e-7, so a looser limit
   only hides faults.
</details>

Next: [03 A tape](03_a_tape.ipynb)
"""
