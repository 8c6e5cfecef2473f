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
# 12 · Test your own: does your LoRA layer do what it says?

It trains; the loss falls. So it does with a wrong scale, with a dead factor, and with a merge that changes the output: gradient descent
works around what it meets. This chapter brings a layer in PyTorch with one fault of the kind that public code has, and finds it by running
*laws*: sentences that every LoRA layer must obey, tried on drawn cases that shrink.

You need nothing but a file with a function `factory(case)` that gives your layer. The laws call what it has (`forward`, `gradients`,
`merge`, …) and report the rest as "not offered".
"""

# %% [markdown]
r"""
## A layer that somebody wrote

Below is the whole file. `TorchLayer` copies a case's arrays into the module's parameters by their names. `factory` must raise `NotOffered` for every
`case.layer` and `case.option` that the layer does not have (rsLoRA, DoRA, dropout, …); otherwise it is tested as if it had them.
"""

# %%
import subprocess
import sys
from pathlib import Path

LAYER = """
import torch
from lora_np.reference.conformance.protocol import NotOffered
from lora_np.reference.subjects.torch_module import TorchLayer


class LoraLinear(torch.nn.Module):
    def __init__(self, inside, outside, r, lora_alpha):
        super().__init__()
        self.base = torch.nn.Linear(inside, outside)
        self.base.requires_grad_(False)
        self.lora_A = torch.nn.Parameter(torch.randn(r, inside) / inside**0.5)
        self.lora_B = torch.nn.Parameter(torch.zeros(outside, r))
        self.scaling, self.merged = lora_alpha / r, False

    def forward(self, x):
        y = self.base(x)
        if not self.merged:
            y = y + (x @ self.lora_A.T @ self.lora_B.T) * self.scaling
        return y

    def merge(self):
        self.base.weight.data += self.lora_B @ self.lora_A
        self.merged = True


def factory(case):
    if case.layer != "linear" or case.option != "plain":
        raise NotOffered("plain linear layers")
    layer = LoraLinear(case.W.shape[1], case.W.shape[0], case.r, case.lora_alpha)
    return TorchLayer(layer, case, weight="base.weight", bias="base.bias",
                      A="lora_A", B="lora_B", merge=LoraLinear.merge)
"""
_ = Path("my_lora.py").write_text(LAYER, encoding="utf-8")

# %% [markdown]
r"""
Its author tests it: train a few steps, merge, compare. **Predict:** does this test pass?
"""

# %% tags=["volatile"]
OWN_TEST = """
import torch
from my_lora import LoraLinear

torch.manual_seed(0)
layer, x = LoraLinear(32, 32, r=8, lora_alpha=8), torch.randn(64, 32)
target = torch.randn(64, 32)
optimizer = torch.optim.AdamW([layer.lora_A, layer.lora_B], lr=1e-2)
for step in range(100):
    loss = ((layer(x) - target) ** 2).mean()
    if step in (0, 99):
        print(f"step {step}: loss {loss.item():.3f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
before = layer(x)
layer.merge()
print("merged equals unmerged:", torch.allclose(layer(x), before, atol=1e-5))
"""


def python(*arguments):
    """Run Python on a file or a module, and print what it prints."""
    print("$ python", *arguments)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if "No module named 'torch'" in done.stderr:
        print("torch is not installed; pip install torch, and run this cell again")
    else:
        text = done.stdout + done.stderr + f"(exit status {done.returncode})"
        print(text.replace(f"{Path.cwd()}/", ""))


Path("own_test.py").write_text(OWN_TEST, encoding="utf-8")
python("own_test.py")

# %% [markdown]
r"""
It trains, and merged equals unmerged. Now the laws. **Predict:** which group will have the failure: initialisation, algebra, gradient,
combining, modes, numeric, files?
"""

# %% tags=["volatile"]
COMMAND = ("-m", "lora_np", "conformance", "--subject", "my_lora.py:factory",
           "--layer", "linear", "--option", "plain")  # fmt: skip
python(*COMMAND, "--scripts", "scripts")

# %% [markdown]
r"""
Two laws fail and they name the place: `merge` adds $BA$, `forward` uses $sBA$. The author's test had `r = lora_alpha`, so $s = 1$. In the laws' cases
`lora_alpha` is never r, no two sizes need be equal, and B is never zero.

The counterexample has shrunk to numbers that you can follow by hand, and each failure comes with a script. Run in the folder of *your* file, it loads that and needs
nothing of this package beyond what your file imports itself:
"""

# %% tags=["volatile"]
script = Path("scripts") / "algebra.merged_weight-linear-plain.py"
if script.is_file():
    print(script.read_text("utf-8"))
    python(str(script))

# %% [markdown]
r"""
Mend the line and run again. What remains is what the layer does not offer. (A few laws are not in this table at all: those on dropout, DoRA and float32 are asked
of other options.)
"""

# %% tags=["volatile"]
mended = LAYER.replace(
    "+= self.lora_B @ self.lora_A", "+= self.scaling * self.lora_B @ self.lora_A"
)
Path("my_lora.py").write_text(mended, encoding="utf-8")
python(*COMMAND)

# %% [markdown]
r"""
To have more laws asked, offer more: `unmerge=` as `merge=` above; a subclass of `TorchLayer` with `delta`, `scale_by`, `disable`, `combine`, `save`; on the
function `factory.fresh` and `factory.initialisations` (how it starts) and `factory.load`; `factory(case, adapters)` for several adapters. All of it is listed in
`lora_np/reference/conformance/protocol.py`.

To keep it that way, two lines in the `conftest.py` at the root of your project make every law a test (`lora_only` and `lora_layers` choose some):

```python
pytest_plugins = ["lora_np.reference.pytest_plugin"]
lora_subject = "my_lora.py:factory"
```

A program in another language is a subject too (`--subject 'command:./my_lora'`: it reads and writes plain binary files with a JSON index), a JAX function
(`lora_np/reference/subjects/jax_function.py`), and for those who run no Python there are
[golden vectors](../lora_np/reference/golden/FORMAT.md) with a reader in C.

## What the laws ask
"""

# %%
from lora_np.reference.conformance.laws import LAWS

group = ""
for law in LAWS:
    if law.group != group:
        group = law.group
        print(f"\n{group}")
    print(f"  {law.name:<20} {law.says}")
print(f"\n{len(LAWS)} laws")

# %% [markdown]
r"""
## Can a law fail?

A test that cannot fail proves nothing. So wrong implementations are kept, and each must be caught. **Predict:** for the four below, name the
law before you look: a column of A that moves for a token that never came; a weight that enters A *and* B when adapters are combined; unmerging without
the scale; gradients averaged inside the layer.
"""

# %%
from lora_np.reference.conformance.mutants import caught_by, mutants

kept = {m.label: m for m in mutants()}
for name in ("unseen_move", "weight_squared", "unmerge_unscaled", "averages"):
    mutant = kept[f"life:{name}"]
    print(f"{mutant.why}\n    caught by {next(caught_by(mutant))}")
print(f"\n{len(kept)} wrong implementations are kept")

# %% [markdown]
r"""
`python -m lora_np conformance --mutants` tries all of them against all laws (minutes) and says which law is the only one to catch something.

## What was found in released libraries

The same laws were run on the two most used Python implementations, and their tools for combining, swapping, converting and saving were then tried with the laws in mind.
Where something failed, the library's documentation and code were read before it was called anything. Not every failure is a defect: some are documented, and one law does
not apply to DoRA at all. One cause fails many cells: a convolution that ignores the dilation cannot obey any law.
"""

# %%
from collections import Counter

from lora_np.reference.conformance import findings

found, versions, day = findings.load()
print(day, ", ".join(f"{name} {version}" for name, version in versions.items()))
by_law = set()
for library in ("peft", "loralib"):
    summary, explained = findings.failing(library)
    names = set(explained.values())
    by_law |= names
    print(f"  {library}: {summary}; explained by {len(names)} findings")
print()
for (library, judgement), count in sorted(
    Counter((f.package, f.judgement) for f in found).items()
):
    print(f"  {library:<8} {judgement:<22} {count}")
for f in found[:12]:
    print(f"\n{f.package} {versions[f.package]}: {f.says}")
    how = "found by the law" if f.name in by_law else "found by hand, with the law"
    print(f"    got {f.got}; want {f.want}  ({f.judgement}; {how} {f.law})")
    if f.upstream:
        print(f"    upstream: {f.upstream}")

# %% [markdown]
r"""
All of them: `python -m lora_np conformance --findings`; each has a script beside it that runs without this package. They are statements about those versions on that day, on a CPU;
where the libraries have mended a fault since, its script ends with status 0.

What held in the same runs, because that is information too: PEFT's linear layers, stored either way, with rsLoRA, DoRA (its constant-norm gradient, and no row of zeros), in
float64, float32, float16 and bfloat16: the default start, output, gradients, merging, unmerging, mixed batches, three optimizer steps, saving and loading. loralib's `Linear`,
`MergedLinear` (with a part enabled) and `Embedding` (without max_norm) pass every law in these runs. The faults lie where weights are *edited by tools*: combining, swapping, converting, rescaling; and in
layers that fewer people use.

## Three questions

1. A colleague's test merges and compares, with a tolerance of 0.1 and `r = lora_alpha = 16`. Which two faults of `merge` does it accept?
2. The identity $\langle A, dA\rangle = \langle B, dB\rangle$ holds for any loss. Why is there also a law that compares dA with an oracle?
3. A law fails on somebody's library. What must you read before you call it a defect?

<details><summary>Answers</summary>

1. A missing scale, because $s = 1$; and any error below the tolerance, for example merging in float16 or with a slightly stale factor.
2. The identity is blind to a common factor: twice both gradients, or a mean in place of a sum in both, passes.
3. Its documentation (is the behaviour stated?), the code (is it meant?), the warnings (was the user told?), and the law itself: does it speak of this layer at all? Scale 0 is the base
   for LoRA and not for DoRA.
</details>

Back to [the start](00_start_here.ipynb)
"""
