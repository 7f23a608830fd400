"""Layer norm, and the norm of the root mean square, with the value before weight and bias as a hook point.

Source: Ba et al. 2016; Zhang and Sennrich 2019.
"""

from __future__ import annotations

from neuroscope.export.graph.nodes import Graph


def add_norm(graph: Graph, value: str, name: str, output: str) -> str:
    """`name`.hook_scale, `name`.hook_normalized, then the weight and bias of `name`, as `output`. Shapes: … D ► … D"""
    last = graph.constant("[-1]", [-1])
    if graph.decoder.is_centred:
        mean = graph.node("ReduceMean", [value, last], f"{name}.mean")  # … 1
        value = graph.node("Sub", [value, mean], f"{name}.centred")
    square = graph.node("Mul", [value, value], f"{name}.squares")
    variance = graph.node("ReduceMean", [square, last], f"{name}.variance")  # … 1
    epsilon = graph.constant("epsilon", graph.decoder.epsilon)
    scale = graph.node(
        "Sqrt", [graph.node("Add", [variance, epsilon], f"{name}.steadied")], f"{name}.hook_scale"
    )  # … 1
    result = graph.node("Div", [value, scale], f"{name}.hook_normalized")
    if graph.has(f"{name}.w"):
        weight = graph.vector(f"{name}.w")
        if graph.decoder.weight_offset:
            offset = graph.constant("norm.offset", graph.decoder.weight_offset)
            weight = graph.node("Add", [weight, offset], f"{name}.weight")
        result = graph.node("Mul", [result, weight], f"{name}.scaled")
    if graph.has(f"{name}.b"):
        result = graph.node("Add", [result, graph.vector(f"{name}.b")], f"{name}.shifted")
    return graph.node("Identity", [result], output)
