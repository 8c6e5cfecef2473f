"""Backpropagation on a graph of numbers."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def backpropagate(parents, slopes):
    """The derivative of the last node with respect to every node.

    parents[i]: list of the nodes that node i was computed from, each below i, perhaps
    the same twice   slopes[i]: the derivative of node i by each of them, in that order
    Returns an array g with g[i] = d last / d node i.
    """
    g = np.zeros(len(parents))
    g[-1] = 1
    for i in reversed(range(len(parents))):
        for p, slope in zip(parents[i], slopes[i]):
            g[p] += g[i] * slope
    return g


def graph(d):
    n = d.choice([2, 3, 4, 5]) if d.rng is None else 6
    parents, slopes = [[]], [[]]
    for i in range(1, n):
        count = d.choice([1, 2])
        parents.append([d.integers(0, i - 1) for _ in range(count)])
        slopes.append([d.scale() for _ in range(count)])
    if d.rng is not None:
        parents[1:4] = [[0, 0], [1, 0], [1]]  # a square; a node with several uses
        slopes[1:4] = [[1.7, 1.7], [0.3, -2.6], [1.2]]
        parents[5], slopes[5] = [4, 3, 2], [1.7, -2.6, 0.3]
    return {"parents": parents, "slopes": slopes}


def moved(case):
    """Move each node by 1 and follow the change forward to the last."""
    parents, slopes = case["parents"], case["slopes"]
    found = np.zeros(len(parents))
    for start in range(len(parents)):
        change = np.zeros(len(parents))
        for i in range(len(parents)):
            flows = [change[p] * s for p, s in zip(parents[i], slopes[i])]
            change[i] = sum(flows) + (i == start)
        found[start] = change[-1]
    return found


def run(c, step, order=None, start=None):
    """backpropagate with another step: step(g, i, parents, slopes)."""
    n = len(c.parents)
    g = np.zeros(n)
    g[-1] = 1
    if start is not None:
        g[:] = start
    for i in order(n) if order else reversed(range(n)):
        step(g, i, c.parents[i], c.slopes[i])
    return g


def add(g, i, parents, slopes):
    for p, slope in zip(parents, slopes):
        g[p] += g[i] * slope


def overwrite(g, i, parents, slopes):
    for p, slope in zip(parents, slopes):
        g[p] = g[i] * slope


def once_each(g, i, parents, slopes):
    for p, slope in dict(zip(parents, slopes)).items():
        g[p] += g[i] * slope


def first_parent(g, i, parents, slopes):
    add(g, i, parents[:1], slopes[:1])


def local_only(g, i, parents, slopes):
    for p, slope in zip(parents, slopes):
        g[p] += slope


def added(g, i, parents, slopes):
    for p, slope in zip(parents, slopes):
        g[p] += g[i] + slope


def by_matrix(c):
    """(I - Sᵀ)⁻¹ applied to the last unit vector; S holds the slopes."""
    n = len(c.parents)
    S = np.zeros((n, n))
    for i in range(n):
        for p, slope in zip(c.parents[i], c.slopes[i]):
            S[i, p] += slope
    return np.linalg.solve(np.eye(n) - S.T, np.eye(n)[-1])


def by_paths(c):
    """The sum over all paths of the product of their slopes."""

    def down(i):
        if i == len(c.parents) - 1:
            return 1.0
        return sum(
            s * down(j)
            for j in range(i + 1, len(c.parents))
            for p, s in zip(c.parents[j], c.slopes[j])
            if p == i
        )

    return np.array([down(i) for i in range(len(c.parents))], float)


def in_a_list(c):
    g = [0.0] * (len(c.parents) - 1) + [1.0]
    for i in range(len(g) - 1, -1, -1):
        for k, p in enumerate(c.parents[i]):
            g[p] = g[p] + c.slopes[i][k] * g[i]
    return np.array(g)


EXERCISE = Exercise(
    id="e07",
    title="backpropagation on a graph",
    kind="implement",
    minutes=10,
    difficulty=2,
    needs=("e06",),
    ask="""
    The heart of a tape. Nodes are numbered so that a node's parents come before it.
    For z = x * x both parents are x: parents [0, 0], slopes [x, x]. Return the
    derivative of the last node by every node (0 where it does not depend on it).
    """,
    functions=(backpropagate,),
    returns=("g",),
    want=moved,
    laws=(
        Law(
            "{arrays} is not what moving each node by 1 does to the last node.",
            graph,
            exact=True,
        ),
    ),
    mistakes=mistakes(
        backpropagate,
        ("g",),
        mistake(
            "overwritten",
            "g[p] = ... where g[p] += ... belongs: of several uses the last one wins",
            lambda c: run(c, overwrite),
        ),
        mistake(
            "twice_is_once",
            "one contribution for a parent that occurs twice (x * x)",
            lambda c: run(c, once_each),
        ),
        mistake(
            "first_parent_only",
            "the first parent's share alone",
            lambda c: run(c, first_parent),
        ),
        mistake(
            "forward_order",
            "a walk from the first node to the last: gradients are "
            "passed on before they are complete",
            lambda c: run(c, add, order=range),
        ),
        mistake(
            "local_slopes",
            "sums of local slopes: the gradient of the node itself is "
            "not multiplied in",
            lambda c: run(c, local_only),
        ),
        mistake(
            "slopes_added",
            "slope + gradient where slope * gradient belongs",
            lambda c: run(c, added),
        ),
        mistake(
            "all_seeded",
            "a start with 1 at every node: only the output has "
            "derivative 1 with respect to itself",
            lambda c: run(c, add, start=1.0),
        ),
        mistake(
            "not_seeded",
            "a start with 0 at the output: everything stays 0",
            lambda c: run(c, add, start=0.0),
        ),
    ),
    others=(by_matrix, by_paths, in_a_list),
    hints=(
        "The derivative of the output by a node is the sum over all paths between them "
        "of the product of the slopes.",
        "Go from the last node to the first: when you reach node i all that follow it "
        "have given their share. Then give each parent its own.",
        "    g[p] ____ g[i] * slope",
    ),
    why="""
    When the walk reaches node i, g[i] is complete, because all its users have a larger
    number. Each of its parents then receives g[i] times the local slope, added to what
    other users gave. Overwriting instead of adding is right exactly as long as nothing
    is used twice, which is why it survives small tests.
    """,
    follow_ups=(
        (
            "Why must gradients be zeroed between two steps of training?",
            "Because backward adds. Not zeroing is gradient accumulation.",
        ),
        (
            "Forward mode or reverse mode for one output and many inputs?",
            "Reverse: one walk gives all derivatives; forward mode needs one for "
            "each input.",
        ),
    ),
    read="lora_np/graph.py; chapter 03",
)
