"""The order in which a tape walks."""

from collections import deque

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def topological_order(parents, output):
    """The nodes that the output depends on, each after all its parents.

    parents[i]: list of the nodes that node i was computed from (in no particular
    numbering, without cycles)   output: a node
    Returns a list of node numbers, each once, that ends with the output.
    """
    order, seen, stack = [], set(), [(output, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((p, False) for p in parents[node])
    return order


def graph(d):
    n = d.choice([1, 2, 3, 4, 5]) if d.rng is None else 8
    name = list(range(n))
    for i in range(n - 1, 0, -1):  # a shuffle, so that numbers say nothing
        j = d.integers(0, i)
        name[i], name[j] = name[j], name[i]
    parents = [[] for _ in range(n)]
    for i in range(1, n):
        count = d.choice([2, 1, 0])
        drawn = [name[d.integers(0, i - 1)] for _ in range(count)]
        parents[name[i]] = list(dict.fromkeys(drawn))
    if d.rng is not None:  # a diamond with a short and a long way
        a, b, e, f, g = name[:5]
        parents[b], parents[e] = [a], [b]
        parents[f], parents[g] = [a, e], [f, b]
        return {"parents": parents, "output": g}
    return {"parents": parents, "output": name[d.integers(0, n - 1)]}


def chain(d):
    n = 5000 + d.integers(0, 3)
    return {"parents": [[]] + [[i] for i in range(n)], "output": n}


def judge(case, got):
    """Each needed node once, after its parents, the output last."""
    order, parents = got[0], case["parents"]
    if not isinstance(order, list) or any(
        isinstance(i, bool) or not hasattr(i, "__index__") for i in order
    ):
        return f"return a list of node numbers, not {type(order).__name__}"
    if any(not 0 <= i < len(parents) for i in order):
        return "the order holds a number that is no node"
    if len(set(order)) < len(order):
        twice = next(i for i in order if order.count(i) > 1)
        return f"node {twice} occurs more than once: {short(order)}"
    needed, todo = {case["output"]}, [case["output"]]
    while todo:
        new = set(parents[todo.pop()]) - needed
        needed |= new
        todo += new
    if missing := needed - set(order):
        return f"node {min(missing)} is missing: {short(order)}"
    if extra := set(order) - needed:
        return (
            f"node {min(extra)} does not lead to the output, which needs no gradient "
            f"for it: {short(order)}"
        )
    place = {node: k for k, node in enumerate(order)}
    for i in order:
        for p in parents[i]:
            if place[p] > place[i]:
                return f"node {i} comes before its parent {p}: {short(order)}"
    return ""


def short(order):
    return str(order) if len(order) < 20 else f"{str(order[:10])[:-1]}, ...]"


def by_depth(c):
    """Kahn's way: nodes whose parents are all placed."""
    needed, todo = {c.output}, [c.output]
    while todo:
        for p in c.parents[todo.pop()]:
            if p not in needed:
                needed.add(p)
                todo.append(p)
    left = {i: len(set(c.parents[i])) for i in needed}
    users = {i: [] for i in needed}
    for i in needed:
        for p in set(c.parents[i]):
            users[p].append(i)
    ready, order = [i for i in needed if not left[i]], []
    while ready:
        order.append(node := ready.pop())
        for i in users[node]:
            left[i] -= 1
            if not left[i]:
                ready.append(i)
    return order


def with_iterators(c):
    """Depth first with a stack of iterators, as recursion would go."""
    order, seen = [], {c.output}
    stack = [(c.output, iter(c.parents[c.output]))]
    while stack:
        node, rest = stack[-1]
        for p in rest:
            if p not in seen:
                seen.add(p)
                stack.append((p, iter(c.parents[p])))
                break
        else:
            order.append(node)
            stack.pop()
    return order


def by_latest_visit(c):
    """Longest distance to the output, largest first (by relaxation on a queue)."""
    depth, todo = {c.output: 0}, [c.output]
    while todo:
        node = todo.pop()
        for p in c.parents[node]:
            if depth.get(p, -1) < depth[node] + 1:
                depth[p] = depth[node] + 1
                todo.append(p)
    return sorted(depth, key=lambda i: -depth[i])


def recursive(c):
    order, seen = [], set()

    def visit(node):
        if node not in seen:
            seen.add(node)
            for p in c.parents[node]:
                visit(p)
            order.append(node)

    visit(c.output)
    return order


def small(c):
    return len(c.parents) < 1000


def breadth_first(c):
    order, todo = {}, deque([c.output])
    while todo:
        node = todo.popleft()
        if node not in order:
            order[node] = True
            todo += c.parents[node]
    return list(order)[::-1]


def preorder(c):
    order, stack = {}, [c.output]
    while stack:
        node = stack.pop()
        if node not in order:
            order[node] = True
            stack += c.parents[node]
    return list(order)[::-1]


def without_seen(c):
    def visit(node):
        return [i for p in c.parents[node] for i in visit(p)] + [node]

    return visit(c.output) if small(c) else topological_order(c.parents, c.output)


def everything(c):
    order = topological_order(c.parents, c.output)
    there = set(order)
    return order + [i for i in range(len(c.parents)) if i not in there]


EXERCISE = Exercise(
    id="e08",
    title="topological order",
    kind="implement",
    minutes=15,
    difficulty=2,
    needs=("e07",),
    ask="""
    A tape records which arrays each array was computed from. Backward walks from the
    output, each node after all its users: the reverse of the order asked for here. Long
    graphs are usual (a loop of 5000 steps), and Python stops at 1000 nested calls.
    """,
    functions=(topological_order,),
    returns=("order",),
    laws=(
        Law("the order is not topological.", graph, judge=judge),
        Law("a chain of 5000 nodes is ordered like any other.", chain, judge=judge),
    ),
    mistakes=mistakes(
        topological_order,
        ("order",),
        mistake(
            "breadth_first",
            "a breadth-first walk, reversed: a node that is reached "
            "by a short and by a long way comes too early",
            breadth_first,
        ),
        mistake(
            "preorder",
            "a depth-first walk that lists a node when it is first seen "
            "(reversed): it must be listed after its parents",
            preorder,
        ),
        mistake(
            "children_first",
            "the order of the backward walk: users before parents",
            lambda c: topological_order(c.parents, c.output)[::-1],
        ),
        mistake(
            "by_number",
            "the nodes by number; a node may have a smaller number than its parents",
            lambda c: sorted(topological_order(c.parents, c.output)),
        ),
        mistake(
            "repeated",
            "a walk that does not mark nodes as seen: shared ones occur again",
            without_seen,
        ),
        mistake(
            "everything",
            "all nodes, also those that do not lead to the output",
            everything,
        ),
        mistake(
            "output_missing",
            "the nodes before the output without itself",
            lambda c: topological_order(c.parents, c.output)[:-1],
        ),
        mistake(
            "one_parent",
            "a walk along the first parent of each node",
            lambda c: topological_order([p[:1] for p in c.parents], c.output),
        ),
    ),
    others=(by_depth, with_iterators, by_latest_visit),
    hints=(
        "Depth first: a node is listed when all its parents have been listed.",
        "Instead of calling a function for each parent, keep your own stack, and push "
        "each node twice: once to visit its parents, once to list it after them.",
        "    stack.append((node, ____))",
    ),
    why="""
    A node is pushed a second time below its parents, so it is listed when they are
    done. Marking it as seen at its first visit keeps the walk linear; listing it
    then would be wrong, because a longer way may still lead to it.
    """,
    follow_ups=(
        (
            "What happens to a depth-first walk without marks on a chain of diamonds?",
            "Its time doubles with every diamond: there are 2^n paths.",
        ),
        (
            "Why does a tape not simply use the order of creation?",
            "It may, if it keeps every node alive; walking from the output frees the "
            "rest.",
        ),
    ),
    read="lora_np/graph.py; chapter 03",
)
