"""The MLP: one layer with an activation between two matrices, or one whose activated half gates the other.

Source: Shazeer 2020 (gated).
"""

from __future__ import annotations

from neuroscope.export.graph.nodes import Graph

_ACTIVATIONS = {
    "geluTanh": ("Gelu", {"approximate": "tanh"}),
    "geluErf": ("Gelu", {"approximate": "none"}),
    "relu": ("Relu", {}),
}


def add_mlp(graph: Graph, layer: int, normed: str, output: str) -> str:
    """Shapes: B T D ► B T D"""
    name = f"blocks.{layer}.mlp"
    if not graph.decoder.is_gated:
        before = graph.product(normed, f"{name}.W_in", f"{name}.hook_pre")  # B T F
        after = add_activation(graph, before, f"{name}.hook_post")
    else:
        before = graph.product(normed, f"{name}.W_gate", f"{name}.hook_pre")  # B T F
        linear = graph.product(normed, f"{name}.W_in", f"{name}.hook_pre_linear")  # B T F
        gate = add_activation(graph, before, f"{name}.gate")
        after = graph.node("Mul", [gate, linear], f"{name}.hook_post")
    return graph.product(after, f"{name}.W_out", output)  # B T D


def add_activation(graph: Graph, value: str, output: str) -> str:
    kind = graph.decoder.activation
    if kind == "silu":
        share = graph.node("Sigmoid", [value], f"{output}.share")
        return graph.node("Mul", [value, share], output)
    operator, attributes = _ACTIVATIONS[kind]
    return graph.node(operator, [value], output, **attributes)
