"""A GPT as an ONNX graph, for any ONNX runtime. Needs the optional package `onnx`.

B batch · T time · D width · V vocabulary · H heads · G key/value heads · K head size
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.files.weights import write_beside
from lora_np.models.gpt import GPT

OPSET = 20  # the first with Gelu


class _Graph:
    """Nodes and weights, collected in order; every method returns an output's name."""

    def __init__(self, onnx: Any):
        self.onnx: Any = onnx
        self.nodes: list = []
        self.weights: list = []
        self._count = 0

    def weight(self, array: np.ndarray, name: str = "") -> str:
        """A constant of the graph."""
        name = name or f"constant_{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        """A one-dimensional integer constant."""
        return self.weight(np.array(values, np.int64))

    def node(self, op: str, *inputs: str, outputs: int = 1, **options: Any) -> Any:
        """One operation; its output's name, or a list of them."""
        self._count += 1
        names = [f"{op}_{self._count}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, inputs, names, **options))
        return names if outputs > 1 else names[0]

    def linear(self, x: str, layer: Any, name: str) -> str:
        """x Wᵀ + b."""
        y = self.node("MatMul", x, self.weight(layer.weight.data.T.copy(), name + ".W"))
        if layer.bias is None:
            return y
        return self.node("Add", y, self.weight(layer.bias.data, name + ".b"))

    def norm(self, x: str, layer: Any, name: str) -> str:
        """Layer norm over the last axis."""
        g, b = (self.weight(p.data, f"{name}.{n}") for p, n in
                ((layer.weight, "g"), (layer.bias, "b")))  # fmt: skip
        return self.node("LayerNormalization", x, g, b, axis=-1, epsilon=layer.eps)


def _heads(graph: _Graph, x: str, heads: int, size: int, repeat: int) -> str:
    """(B, T, heads · size) → (B, heads · repeat, T, size)."""
    split = graph.node("Reshape", x, graph.ints(0, 0, heads, size))
    y = graph.node("Transpose", split, perm=[0, 2, 1, 3])
    if repeat == 1:
        return y
    order = np.repeat(np.arange(heads), repeat).astype(np.int64)
    return graph.node("Gather", y, graph.weight(order), axis=1)


def _attention(graph: _Graph, x: str, attn: Any, mask: str, name: str) -> str:
    D = attn.c_proj.weight.shape[1]
    H, G = attn.heads, attn.kv_heads
    K = D // H
    qkv = graph.linear(x, attn.c_attn, name + ".c_attn")
    sizes = graph.ints(D, G * K, G * K)
    q, k, v = graph.node("Split", qkv, sizes, outputs=3, axis=-1)
    q = _heads(graph, q, H, K, 1)
    k, v = _heads(graph, k, G, K, H // G), _heads(graph, v, G, K, H // G)
    turned = graph.node("Transpose", k, perm=[0, 1, 3, 2])
    scale = graph.weight(np.array(1 / math.sqrt(K), np.float32))
    scores = graph.node("Mul", graph.node("MatMul", q, turned), scale)
    p = graph.node("Softmax", graph.node("Add", scores, mask), axis=-1)
    o = graph.node("Transpose", graph.node("MatMul", p, v), perm=[0, 2, 1, 3])
    joined = graph.node("Reshape", o, graph.ints(0, 0, D))
    return graph.linear(joined, attn.c_proj, name + ".c_proj")


def build_onnx(model: GPT) -> Any:
    """The model as an ONNX ModelProto: input ids (B, T) int64, output logits (B, T, V).

    Raises ModuleNotFoundError that says what to install, RuntimeError when an adapter
    is attached (merge it first: the graph has one matrix a layer), TypeError unless the
    weights are float32.
    """
    try:
        import onnx
        import onnx.numpy_helper
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the export needs the package onnx: pip install onnx (and onnxruntime, to "
            "run what was exported)"
        ) from error
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise RuntimeError(
            "an adapter is attached; remove_lora(model, keep_merged=True) merges it "
            "into ordinary layers, which is what is exported"
        )
    if model.wte.weight.dtype != np.float32:
        raise TypeError(f"the export is in float32, got {model.wte.weight.dtype}")
    graph, c = _Graph(onnx), model.config
    length = graph.node("Shape", "ids", start=1, end=2)  # T
    zero = graph.ints(0)
    table = graph.weight(model.wte.weight.data, "wte")
    places = graph.node(
        "Slice", graph.weight(model.wpe.weight.data, "wpe"), zero, length, zero
    )
    x = graph.node("Add", graph.node("Gather", table, "ids", axis=0), places)
    P = c.n_positions
    future = np.triu(np.full((P, P), -np.inf, np.float32), 1)
    mask = graph.node(
        "Slice", graph.weight(future, "mask"), graph.ints(0, 0),
        graph.node("Concat", length, length, axis=0), graph.ints(0, 1),
    )  # fmt: skip
    for i, block in enumerate(model.h):
        name = f"h.{i}"
        a = graph.norm(x, block.ln_1, name + ".ln_1")
        x = graph.node("Add", x, _attention(graph, a, block.attn, mask, name + ".attn"))
        m = graph.norm(x, block.ln_2, name + ".ln_2")
        m = graph.linear(m, block.mlp.c_fc, name + ".c_fc")
        m = graph.node("Gelu", m, approximate="tanh")
        x = graph.node("Add", x, graph.linear(m, block.mlp.c_proj, name + ".c_out"))
    x = graph.norm(x, model.ln_f, "ln_f")
    head = graph.weight(model.head().data.T.copy(), "head")
    graph.nodes.append(onnx.helper.make_node("MatMul", [x, head], ["logits"]))
    value = onnx.helper.make_tensor_value_info
    whole = onnx.helper.make_graph(
        graph.nodes, "gpt",
        [value("ids", onnx.TensorProto.INT64, ["B", "T"])],
        [value("logits", onnx.TensorProto.FLOAT, ["B", "T", c.vocab_size])],
        graph.weights,
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", OPSET)]
    built = onnx.helper.make_model(whole, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(built)
    return built


def export_onnx(model: GPT, path: str | Path) -> int:
    """Write `build_onnx(model)` to a file; returns its size in bytes.

    A file of before is replaced only when the new one is whole.
    """
    content = build_onnx(model).SerializeToString()
    write_beside(path, content)
    return len(content)
