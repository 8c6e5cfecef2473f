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
# 11 · Exercises: can you derive it with nobody helping?

Reading a derivation is not the same as finding it. There are 47 exercises, in the order of a path:
implement, derive, find the bug, explain. Each is graded here, without a network, and the grader says
which mistake you made.

Two ways to work. In a terminal, with your own editor:

```
python -m lora_np exercises                what there is, and what comes next
python -m lora_np exercises start e19      writes my_exercises/e19_lora_backward.py
python -m lora_np exercises check e19      grades it; --watch grades at every save
python -m lora_np exercises hint e19       three grades: the law, the line, the line with a blank
python -m lora_np exercises solution e19   with the why, and what interviewers ask next
python -m lora_np exercises reset e19      the stub again; your answer is kept as a backup
python -m lora_np exercises interview --minutes 45
```

Or in notebooks: the folder [exercises](exercises/) beside this chapter has one for each, and `start e19 --notebook` writes
one into your folder. What `check(...)` finds in a notebook is added to the progress of the terminal where the notebook
lies in your folder or beside it (or `$LORA_NP_EXERCISES` names the folder); elsewhere it is only printed.
"""

# %% [markdown]
r"""
## One exercise, from the stub to the pass

This cell runs the real command in an empty folder, as you would.
"""

# %%
import os
import subprocess
import sys
from pathlib import Path

os.environ["LORA_NP_EXERCISES"] = "my_exercises"


def terminal(command):
    """Run `python -m lora_np exercises ...` and print what it prints."""
    print(f"$ python -m lora_np exercises {command}")
    done = subprocess.run(
        [sys.executable, "-m", "lora_np", "exercises", *command.split()],
        capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    print(done.stdout + done.stderr + f"(exit status {done.returncode})")


terminal("start e19")
answer = Path("my_exercises/e19_lora_backward.py")
print(answer.read_text("utf-8"))
terminal("check e19")

# %% [markdown]
r"""
Somebody writes the following. **Predict:** on the smallest possible input, with every size 1 and every
number 1 except $s = 2$, what does it return for dA, and what is right?
"""

# %%
stub = answer.read_text("utf-8")
attempt = """    u = x @ A.T
    dB = s * dy.T @ u
    dA = (dy @ B).T @ x
    dx = dy @ W + s * dy @ B @ A
    return dx, dA, dB
"""
answer.write_text(stub.replace("    raise NotImplementedError\n", attempt), "utf-8")
terminal("check e19")

# %% [markdown]
r"""
The report has an order: shapes, the first law that is broken, the smallest input on which that shows, what was
computed instead, and where to look. If that is not enough, there are hints:
"""

# %%
terminal("hint e19")
terminal("hint e19")

# %%
better = answer.read_text("utf-8").replace("dA = (dy @ B)", "dA = s * (dy @ B)")
answer.write_text(better, "utf-8")
terminal("check e19")

# %%
terminal("solution e19")

# %% [markdown]
r"""
## Why the grader can name a mistake

Each exercise keeps the wrong answers that people give. Yours and theirs are evaluated on the same *probes*:
random numbers in sizes that all differ. If the results agree there, it is the same mistake.

**Predict:** how many of the 15 mistakes kept for dA, dB and dx would a test miss whose only input has
$s = 1$? One with a single row ($N = 1$)? One with $B = 0$? One whose dy is all ones?
"""

# %%
import numpy as np

from lora_np.exercises import catalogue
from lora_np.exercises.cases import Cases

e19 = catalogue.load("e19")


def missed(change):
    """The mistakes that agree with the right answer on one changed input."""
    case = e19.laws[0].case(Cases.probe(0))
    case = {**case, **change(case)}
    right = e19.functions[0](**case)
    return [
        m.name
        for m in e19.mistakes
        if all(
            a.shape == b.shape and np.allclose(a, b)
            for a, b in zip(m.compute(case), right, strict=True)
        )
    ]


tests = {
    "s = 1 (lora_alpha = r)": lambda c: {"s": 1.0},
    "one row": lambda c: {"x": c["x"][:1], "dy": c["dy"][:1]},
    "B = 0": lambda c: {"B": 0 * c["B"]},
    "dy all ones": lambda c: {"dy": 1 + 0 * c["dy"]},
    "all four": lambda c: {"s": 1.0, "x": c["x"][:1], "B": 0 * c["B"],
                           "dy": np.ones_like(c["dy"][:1])},
    "none of them": lambda c: {},
}  # fmt: skip
for name, change in tests.items():
    found = missed(change)
    print(
        f"{name:<24}{len(found):2d} of {len(e19.mistakes)} missed  {', '.join(found)}"
    )

# %% [markdown]
r"""
A test with lora_alpha = r cannot see the scale; one row cannot tell a mean from a sum; B = 0, which is how a fresh
adapter starts, hides dA and the low-rank part of dx. Published graders have such inputs. That is why the cases here are drawn: sizes,
options and entries all vary, and hard-coded answers fail.

## Why the answer is not simply compared with the solution

The right numbers for a *derive* exercise are not those of a stored backward. They come from the toolkit's own
*forward*, by moving each entry of each input. For LoRA this is exact: y is linear in each entry, so on whole numbers the
comparison needs no tolerance at all. **Predict:** is a gradient that is wrong in the twelfth digit accepted?
"""

# %%
from lora_np.exercises.check import verdict_of


def lora_backward(dy, x, W, A, B, s):
    v = s * (dy @ B)
    return dy @ W + v @ A, v.T @ x * (1 + 1e-12), s * dy.T @ (x @ A.T)


verdict = verdict_of(lora_backward)
print(verdict.state, verdict.fault.arrays)
print(verdict.computed)

# %% [markdown]
r"""
Where a softmax or a root lies between, the complex step gives the right numbers to about 1e-13, and the comparison
allows 1e-9: sums may be taken in any order.

Your code runs in a process of its own, with limits. An endless loop costs two seconds and not the session:
"""

# %% tags=["volatile"]
from lora_np.exercises import check


def softmax(z):
    total = 0
    while total < 1:
        total = total * 2
    return z / total


check(softmax)

# %% [markdown]
r"""
## Find the bug, explain, and the interview

*Find the bug* gives you code that runs and is wrong, with the complaint of somebody who uses it. The grader shows the symptom
and does not name the fault; any repair that obeys the law passes.

*Explain* asks for numbers, which are checked, and for words, which are not: when the numbers are right you see a rubric, and
you are the judge of your words. Seven of these are the interview questions of the second article (chapter 07), with
answers that differ from its own.

`interview --minutes 45` draws a set (other exercises each time), writes the stubs into a folder of their own, starts a clock and gives no
hints. While the clock runs, `check e19` grades the interview's file. At the end, or after `--finish`, you get what passed and the inputs on
which the rest failed, what an interviewer would ask next, and the points of the rubric; what passed counts, and the next interview prefers
what is left.

## How we know that the graders work

`python -m lora_np exercises gate` gives every grader its stub, its solution, all kept mistakes and other right answers,
and prints what it says. For one exercise:
"""

# %% tags=["volatile"]
terminal("gate --only e23")

# %%
code = [e for e in catalogue.exercises() if e.functions]
print(len(catalogue.exercises()), "exercises,", len(code), "of them with code;")
print(sum(len(e.mistakes) for e in code), "kept mistakes,", end=" ")
print(sum(len(e.others) for e in code), "other right answers")

# %% [markdown]
r"""
## Three questions

1. A friend's grader for LoRA compares with torch on one random input of shape (1, 8), with r = lora_alpha = 8. Name three
   wrong implementations that it accepts.
2. Why is the smallest counterexample often all ones, and when is it not?
3. Your backward agrees with the numerical gradient on ten random inputs. What can still be wrong?

<details><summary>Answers</summary>

1. No scale, the scale inverted or squared (r = lora_alpha); a mean over rows instead of the sum (one row); and if the layer is fresh, with B = 0, any dA at
   all that has B as a factor.
2. 1 is tried before other entries and small sizes before large ones. It is not all ones where the fault needs two rows, different sizes, a sign, or two
   entries that differ: the sizes and entries that remain are a hint by themselves.
3. What the ten inputs had in common: sizes, options, the dtype (float32 in, float64 out), an input changed in place, zero rows, and everything that the loss does not depend on.
</details>

Next: [12 · Test your own](12_test_your_own.ipynb)
"""
