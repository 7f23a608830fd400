"""A mixture of experts as gpt-oss has it: the best few by a router, weighted by a softmax over these alone.

Every expert is computed for every token, and what was not chosen is weighted by 0: ONNX's operators know no sparse
product. It is slow and right.
Source: gpt-oss's model card, section 2.
"""

from __future__ import annotations

from onnx import TensorProto, helper

from neuroscope.export.graph.nodes import Graph


def add_experts(graph: Graph, layer: int, normed: str, output: str) -> str:
    """Shapes: B T D ► B T D; N is B·T"""
    name, experts = f"blocks.{layer}.mlp", graph.decoder.experts
    assert experts is not None
    graph.node("Identity", [normed], f"{name}.hook_pre")
    one_by_one = graph.reshape(normed, [-1, graph.dimensions["D"]], f"{name}.tokens")  # N D
    weights = _weights(graph, name, normed, experts.chosen)  # N E

    tokens = graph.node("Unsqueeze", [one_by_one, graph.constant("[0]", [0])], f"{name}.tokens_for_all")  # 1 N D
    gate, linear = (_outputs(graph, tokens, name, letter) for letter in ("gate", "in"))  # E N F
    limit, lowest = graph.constant("expert limit", experts.limit), graph.constant("-expert limit", -experts.limit)
    gate = graph.node("Min", [gate, limit], f"{name}.gates.cut")
    linear = graph.node("Clip", [linear, lowest, limit], f"{name}.linear.cut")
    sharp = graph.node("Mul", [gate, graph.constant("expert alpha", experts.alpha)], f"{name}.gates.sharp")
    share = graph.node("Sigmoid", [sharp], f"{name}.gates.share")
    gated = graph.node("Mul", [gate, share], f"{name}.gates.open")
    more = graph.node("Add", [linear, graph.constant("1.0", 1.0)], f"{name}.linear.more")
    inner = graph.node("Mul", [gated, more], f"{name}.inner")  # E N F
    written = _outputs(graph, inner, name, "out")  # E N D

    by_expert = graph.node("Transpose", [weights], f"{name}.weights_by_expert", perm=[1, 0])  # E N
    spread = graph.node("Unsqueeze", [by_expert, graph.constant("[-1]", [-1])], f"{name}.weights_spread")  # E N 1
    weighted = graph.node("Mul", [written, spread], f"{name}.weighted")
    summed = graph.node("ReduceSum", [weighted, "[0]"], f"{name}.summed", keepdims=0)  # N D
    graph.node("Reshape", [summed, graph.once("Shape", ["hook_embed"], "stream.shape")], output)  # B T D
    graph.node("Identity", [output], f"{name}.hook_post")
    return output


def _weights(graph: Graph, name: str, normed: str, chosen: int) -> str:
    """What each expert counts for each token: 0 where it was not chosen. Shapes: N E"""
    logits = graph.product(normed, f"{name}.router.W", f"{name}.router.logits")  # B T E
    logits = graph.reshape(logits, [-1, graph.dimensions["E"]], f"{name}.router.hook_out")  # N E
    best, places = f"{name}.router.best", f"{name}.router.places"
    count = graph.constant(f"[{chosen}]", [chosen])
    graph.nodes.append(
        helper.make_node("TopK", [logits, count], [best, places], name=best, axis=-1, largest=1, sorted=1)
    )
    shares = graph.node("Softmax", [best], f"{name}.hook_router_scores", axis=-1)  # N X
    graph.node("Cast", [places], f"{name}.hook_expert_indices", to=TensorProto.FLOAT)
    zeros = graph.node("Sub", [logits, logits], f"{name}.router.zeros")
    return graph.node("ScatterElements", [zeros, places, shares], f"{name}.hook_expert_weights", axis=1)


def _outputs(graph: Graph, value: str, name: str, letter: str) -> str:
    """value · each expert's matrix + its bias. Shapes: 1 N inputs, or E N inputs ► E N outputs"""
    part = f"{name}.experts.{{expert}}.W_{letter}"
    bias = f"{name}.experts.{{expert}}.b_{letter}"
    joined = f"{value}·{name}.{'out' if letter == 'out' else 'gate and in'}"
    graph.once("MatMul", [value, graph.stack(part)], f"{joined}.products")  # E N outputs of all parts
    shifts = graph.once("Unsqueeze", [graph.stack(bias), graph.constant("[1]", [1])], f"{joined}.biases")  # E 1 outputs
    graph.once("Add", [f"{joined}.products", shifts], joined)
    return graph.dealt(joined, part)
