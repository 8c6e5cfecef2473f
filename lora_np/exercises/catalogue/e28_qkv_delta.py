"""LoRA on a fused query-key-value matrix."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def qkv_delta(Aq, Bq, Ak, Bk, Av, Bv, widths, s):
    """The update of a fused weight whose rows are those of q, then k, then v.

    A: (r, D) and B: (width, r) of each part, or None for a part that is not adapted
    widths: (rows of q, of k, of v); k and v have fewer with grouped heads
    s: the scale   Returns an array (sum of widths, D).
    """
    given = next(A for A in (Aq, Ak, Av) if A is not None)
    rows = []
    for A, B, width in zip((Aq, Ak, Av), (Bq, Bk, Bv), widths, strict=True):
        zeros = np.zeros((width, given.shape[1]), given.dtype)
        rows.append(zeros if A is None else s * (B @ A))
    return np.concatenate(rows)


def problem(d):
    D, r, P, C = d.sizes(4)
    widths = (P, C, C)
    given = {
        "Aq": d.array(r, D),
        "Bq": d.array(P, r),
        "Ak": None,
        "Bk": None,
        "Av": d.array(r, D),
        "Bv": d.array(C, r),
    }
    if d.choice([True, False]):
        given |= {"Ak": d.array(r, D), "Bk": d.array(C, r)}
    return {**given, "widths": widths, "s": d.scale()}


def others_absent(d):
    """q or v without an adapter; at least one part has one."""
    given = problem(d)
    given |= {key: None for key in d.choice([("Aq", "Bq"), ("Av", "Bv")])}
    return given


def there(c):
    """The factor A of some part that is adapted."""
    return next(A for A in (c.Aq, c.Ak, c.Av) if A is not None)


def wanted(case):
    """Row by row of the definition."""
    given = next(case[k] for k in ("Aq", "Ak", "Av") if case[k] is not None)
    D = given.shape[1]
    delta = np.zeros((sum(case["widths"]), D), given.dtype)
    start = 0
    for part, width in zip("qkv", case["widths"], strict=True):
        A, B = case["A" + part], case["B" + part]
        for i in range(width if A is not None else 0):
            delta[start + i] = case["s"] * sum(B[i, j] * A[j] for j in range(len(A)))
        start += width
    return delta


def parts(c, order="qkv"):
    """The blocks in an order; zeros for what is left out."""
    own = {
        p: (getattr(c, "A" + p), getattr(c, "B" + p), w)
        for p, w in zip("qkv", c.widths, strict=True)
    }
    D = there(c).shape[1]
    return [
        np.zeros((w, D), there(c).dtype) if A is None else c.s * (B @ A)
        for A, B, w in (own[p] for p in order)
    ]


def stacked(c, order="qkv"):
    return np.vstack(parts(c, order))


def skipped(c):
    own = zip(parts(c), (c.Aq, c.Ak, c.Av), strict=True)
    return np.vstack([block for block, A in own if A is not None])


def equal_widths(c):
    """Every part as wide as the query: the blocks overlap or leave gaps."""
    out = np.zeros((3 * c.widths[0], there(c).shape[1]), there(c).dtype)
    for i, block in enumerate(parts(c)):
        rows = min(len(block), c.widths[0])
        out[i * c.widths[0] : i * c.widths[0] + rows] = block[:rows]
    return out


def one_dense(c):
    """Stacked B times the sum of the A's: every part sees every A."""
    A = sum(a for a in (c.Aq, c.Ak, c.Av) if a is not None)
    B = [
        np.zeros((w, len(A)), A.dtype) if b is None else b
        for b, w in zip((c.Bq, c.Bk, c.Bv), c.widths, strict=True)
    ]
    return c.s * (np.vstack(B) @ A)


def block_diagonal(c):
    """blockdiag(B) times stacked A, as in the definition by matrices."""
    own = [
        (a, b, w)
        for a, b, w in zip(
            (c.Aq, c.Ak, c.Av), (c.Bq, c.Bk, c.Bv), c.widths, strict=True
        )
    ]
    total = sum(len(a) for a, _, _ in own if a is not None)
    left = np.zeros((sum(c.widths), total), there(c).dtype)
    row = column = 0
    for a, b, w in own:
        if a is not None:
            left[row : row + w, column : column + len(a)] = b
            column += len(a)
        row += w
    return c.s * (left @ np.vstack([a for a, _, _ in own if a is not None]))


def into_slices(c):
    out = np.zeros((sum(c.widths), there(c).shape[1]), there(c).dtype)
    P, C, V = c.widths
    if c.Aq is not None:
        out[:P] = c.s * c.Bq @ c.Aq
    if c.Ak is not None:
        out[P : P + C] += c.s * c.Bk @ c.Ak
    if c.Av is not None:
        out[P + C : P + C + V] = c.s * c.Bv @ c.Av
    return out


def with_einsum(c):
    made = [
        np.zeros((w, there(c).shape[1]), there(c).dtype)
        if a is None
        else np.einsum("mr,rd->md", c.s * b, a)
        for a, b, w in zip(
            (c.Aq, c.Ak, c.Av), (c.Bq, c.Bk, c.Bv), c.widths, strict=True
        )
    ]
    return np.concatenate(made, axis=0)


EXERCISE = Exercise(
    id="e28",
    title="a fused qkv matrix with grouped heads",
    kind="implement",
    minutes=12,
    difficulty=2,
    needs=("e22",),
    ask="""
    Many models keep the projections of query, key and value in one matrix (rows of
    q, then k, then v), and with grouped heads k and v are narrower than q. Adapters
    of their own for q, k and v, some perhaps absent, make one update of the fused
    matrix: a part without an adapter has rows of zeros.
    """,
    functions=(qkv_delta,),
    returns=("delta",),
    want=wanted,
    laws=(
        Law("{arrays} is not the update of each part in its own rows.", problem, True),
        Law("any part may be without an adapter.", others_absent, True),
    ),
    mistakes=mistakes(
        qkv_delta,
        ("delta",),
        mistake(
            "absent_skipped",
            "the adapted parts one below the other: without rows of "
            "zeros for k, v's update lands on k",
            skipped,
        ),
        mistake("no_scale", "the update without s", lambda c: stacked(c) / c.s),
        mistake(
            "v_before_k", "the parts in the order q, v, k", lambda c: stacked(c, "qvk")
        ),
        mistake(
            "k_first", "the parts in the order k, q, v", lambda c: stacked(c, "kqv")
        ),
        mistake(
            "widths_of_q",
            "parts that are all as wide as q: k and v are narrower with grouped heads",
            equal_widths,
        ),
        mistake(
            "dense_B",
            "all B's times the sum of all A's: that is one adapter on the "
            "fused matrix, in which q sees v's A",
            one_dense,
        ),
        mistake("transposed", "the update as (D, rows)", lambda c: stacked(c).T),
        mistake(
            "v_for_k",
            "v's adapter in k's rows where k has none",
            lambda c: np.vstack(
                [
                    parts(c)[0],
                    parts(c)[1] if c.Ak is not None else parts(c)[2],
                    parts(c)[2],
                ]
            ),
        ),
        mistake(
            "q_scaled_alone",
            "s for q only",
            lambda c: np.vstack([parts(c)[0], parts(c)[1] / c.s, parts(c)[2] / c.s]),
        ),
    ),
    others=(block_diagonal, into_slices, with_einsum),
    hints=(
        "Three blocks of rows, concatenated; every block is s B A or zeros.",
        "The number of rows of an absent part is its width; its dtype that of the "
        "others.",
        "        zeros = np.zeros((____, given.shape[1]), given.dtype)",
    ),
    why="""
    ΔW = blockdiag(B_q, B_k, B_v) [A_q; A_k; A_v] with zero rows for what is left
    out: the rows of a part see its own A only. PEFT puts one adapter on the whole
    fused matrix instead: rank r for all three together and one A. Both are called
    LoRA on qkv, and their files do not fit each other.
    """,
    follow_ups=(
        (
            "Which of the two has more parameters at equal r?",
            "Three adapters: 3 r D + r (P + 2 C), against r D + r (P + 2 C).",
        ),
        (
            "The paper adapts q and v. Why not k?",
            "By its experiments q and v give more than q and k at equal numbers; it "
            "is no law.",
        ),
    ),
    read="lora_np/lora/qkv.py; chapter 04",
)
