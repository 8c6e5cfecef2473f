"""Find the bug: training works, merging changes the output."""

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def adapter_output(x, W, A, B, lora_alpha, r, use_rslora):
    """y = x Wᵀ + scale (x Aᵀ) Bᵀ; the scale is lora_alpha / r, or / sqrt(r) in rsLoRA.

    x: (N, D)   W: (M, D)   A: (r, D)   B: (M, r)   Returns y: (N, M).
    """
    scale = lora_alpha / (r**0.5 if use_rslora else r)
    return x @ W.T + scale * (x @ A.T @ B.T)


def merged_weight(W, A, B, lora_alpha, r, use_rslora):
    """The (M, D) weight of a plain layer that does the same as `adapter_output`."""
    scale = lora_alpha / (r**0.5 if use_rslora else r)
    return W + scale * (B @ A)


def adapter_output_as_found(x, W, A, B, lora_alpha, r, use_rslora):
    """y = x Wᵀ + scale (x Aᵀ) Bᵀ; the scale is lora_alpha / r, or / sqrt(r) in rsLoRA.

    x: (N, D)   W: (M, D)   A: (r, D)   B: (M, r)   Returns y: (N, M).
    """
    scale = lora_alpha / (r**0.5 if use_rslora else r)
    return x @ W.T + scale * (x @ A.T @ B.T)


def merged_weight_as_found(W, A, B, lora_alpha, r, use_rslora):
    """The (M, D) weight of a plain layer that does the same as `adapter_output`."""
    scale = lora_alpha / r
    return W + scale * (B @ A)


def problem(d):
    N, D, M = d.sizes(3)
    r = d.choice([4, 1, 16]) if d.rng is None else d.choice([4, 9, 7])
    return {
        "x": d.array(N, D),
        "W": d.array(M, D),
        "A": d.array(r, D),
        "B": d.array(M, r),
        "lora_alpha": d.scale() * r,
        "r": r,
        "use_rslora": d.choice([True, False]),
    }


def scale(c):
    return L.scaling(c["lora_alpha"], c["r"], c["use_rslora"])


def wanted(c):
    y = L.lora_linear(c["x"], c["W"], None, c["A"], c["B"], scale(c))[0]
    return y, L.merge(c["W"], L.delta_weight(c["A"], c["B"], scale(c)))


EXERCISE = Exercise(
    id="e24",
    title="it trains, but merging changes the output",
    kind="find the bug",
    minutes=8,
    difficulty=1,
    needs=("e22", "e23"),
    ask="""
    "Our LoRA layer trains well, but after merging the model writes something else." The
    two functions below are all there is. The configuration has use_rslora (the scale
    lora_alpha / sqrt(r)). Find out why, and repair it; the outputs of trained adapters
    must not change.
    """,
    functions=(adapter_output, merged_weight),
    found=(adapter_output_as_found, merged_weight_as_found),
    returns=("y", "merged"),
    want=wanted,
    laws=(
        Law(
            "{arrays} differs: x mergedᵀ must equal the output of base and adapter.",
            problem,
            True,
        ),
    ),
    mistakes=mistakes(
        adapter_output,
        ("y",),
        mistake(
            "forward_changed",
            "the forward with lora_alpha / r: both functions now "
            "agree, but trained adapters give other outputs",
            lambda c: c.x @ c.W.T + c.lora_alpha / c.r * (c.x @ c.A.T @ c.B.T),
        ),
    ),
    others=(
        lambda c: (
            c.x @ (c.W + L.scaling(c.lora_alpha, c.r, c.use_rslora) * (c.B @ c.A)).T
        ),
        lambda c: (
            c.x @ c.W.T
            + (c.lora_alpha * c.r ** (-0.5 if c.use_rslora else -1))
            * (c.x @ (c.B @ c.A).T)
        ),
    ),
    hints=(
        "The law: forward = forward after merge, for every option.",
        "Compare the line that computes the scale in both functions.",
        "    scale = lora_alpha / (____ if use_rslora else r)",
    ),
    why="""
    The scale was written twice, and an option was added to one of the two. With
    use_rslora off nothing shows. The remedy that lasts is one function for the scale,
    used by both.
    """,
    follow_ups=(
        (
            "What else makes a merge change the output?",
            "Dropout still on, a transposed weight, a merge in float16, a merge done "
            "twice, a tied weight that is used elsewhere, a bias that was trained "
            "and not merged.",
        ),
        (
            "How would you test it once for all?",
            "Draw every option, B ≠ 0, lora_alpha ≠ r, and compare x mergedᵀ with "
            "the layer.",
        ),
    ),
    read="lora_np/lora/scale.py, merge.py; chapter 05",
)
