"""Causal attention: grouped heads, windows, soft caps, sinks, normed queries and keys.

Source: Vaswani et al. 2017; Ainslie et al. 2023 (grouped heads); Beltagy et al. 2020 (windows); Xiao et al. 2023 and
gpt-oss's model card (sinks).
"""

from __future__ import annotations

import math

from neuroscope.export.graph.nodes import Graph
from neuroscope.export.graph.norm import add_norm
from neuroscope.export.graph.turns import add_turns, turned


def add_positions(graph: Graph) -> None:
    """`keys` and `queries`: positions as columns and rows; `future`: whether a key comes after the query. T T"""
    graph.node("Range", [graph.constant("0", 0), "length", graph.constant("1", 1)], "keys")  # T
    graph.node("Unsqueeze", ["keys", "1"], "queries")  # T 1
    graph.node("Greater", ["keys", "queries"], "future")  # T T


def _hidden(graph: Graph, layer: int) -> str:
    """Whether a query of the layer does not see a key. T T"""
    window = graph.decoder.windows[layer]
    if window is None:
        return "future"
    reach = graph.once("Sub", ["queries", graph.constant(f"window.{window}", window)], f"before.{window}")
    past = graph.once("LessOrEqual", ["keys", reach], f"past.{window}")
    return graph.once("Or", ["future", past], f"hidden.{window}")


def add_attention(graph: Graph, layer: int, normed: str, output: str) -> str:
    """From the normed stream to what attention writes. Shapes: B T D ► B T D"""
    name = f"blocks.{layer}.attn"
    decoder, dimensions = graph.decoder, graph.dimensions
    heads, width = dimensions["H"], dimensions["K"]
    groups = dimensions.get("KV", heads)
    query = _heads(graph, normed, name, "q", heads)  # B T H K
    key = _heads(graph, normed, name, "k", groups)  # B T KV K
    value = _heads(graph, normed, name, "v", groups)
    if decoder.norms_queries:
        query, key = (_normed_heads(graph, name, letter, of) for letter, of in (("q", query), ("k", key)))
    if decoder.rotary:
        cosines, sines = add_turns(graph, layer)
        query = turned(graph, query, cosines, sines, f"{name}.hook_rot_q")
        key = turned(graph, key, cosines, sines, f"{name}.hook_rot_k")

    query = graph.reshape(query, [0, 0, groups, heads // groups, width], f"{name}.grouped_queries")
    query = graph.node("Transpose", [query], f"{name}.queries", perm=[0, 2, 3, 1, 4])  # B KV H/KV T K
    key = graph.node("Unsqueeze", [key, graph.constant("[3]", [3])], f"{name}.shared_keys")
    key = graph.node("Transpose", [key], f"{name}.keys", perm=[0, 2, 3, 4, 1])  # B KV 1 K T
    value = graph.node("Unsqueeze", [value, "[3]"], f"{name}.shared_values")
    value = graph.node("Transpose", [value], f"{name}.values", perm=[0, 2, 3, 1, 4])  # B KV 1 T K
    scores = graph.node("MatMul", [query, key], f"{name}.products")  # B KV H/KV T T
    scores = _by_heads(graph, scores, f"{name}.products_by_head")  # B H T T
    if decoder.score_divisor != 1:
        divisor = graph.constant("score divisor", decoder.score_divisor)
        scores = graph.node("Div", [scores, divisor], f"{name}.scaled_products")
    if decoder.attention_cap is not None:
        scores = add_cap(graph, scores, decoder.attention_cap, f"{name}.capped")
    masked = graph.constant("-∞", -math.inf)
    scores = graph.node("Where", [_hidden(graph, layer), masked, scores], f"{name}.hook_attn_scores")  # B H T T
    pattern = _pattern(graph, name, scores)  # B H T T
    shape = graph.once(
        "Concat",
        ["batches", graph.constant(f"[{groups},-1]", [groups, -1]), "lengths", "lengths"],
        "pattern.grouped_shape",
        axis=0,
    )
    grouped = graph.node("Reshape", [pattern, shape], f"{name}.grouped_pattern")  # B KV H/KV T T
    mixed = _by_heads(graph, graph.node("MatMul", [grouped, value], f"{name}.mixed"), f"{name}.mixed_by_head", width)
    z = graph.node("Transpose", [mixed], f"{name}.hook_z", perm=[0, 2, 1, 3])  # B T H K
    return graph.product(graph.reshape(z, [0, 0, heads * width], f"{name}.z"), f"{name}.W_O", output)  # B T D


def _heads(graph: Graph, normed: str, name: str, letter: str, heads: int) -> str:
    joined = graph.product(normed, f"{name}.W_{letter.upper()}", f"{name}.{letter}")
    return graph.reshape(joined, [0, 0, heads, graph.dimensions["K"]], f"{name}.hook_{letter}")


def _normed_heads(graph: Graph, name: str, letter: str, value: str) -> str:
    """Shapes: B T heads K ► the same; the hook points between have the heads first."""
    by_heads = graph.node("Transpose", [value], f"{name}.{letter}_by_head", perm=[0, 2, 1, 3])  # B heads T K
    normed = add_norm(graph, by_heads, f"{name}.{letter}_norm", f"{name}.hook_{letter}_normed")
    return graph.node("Transpose", [normed], f"{name}.{letter}_normed", perm=[0, 2, 1, 3])


def _by_heads(graph: Graph, value: str, output: str, width: int | None = None) -> str:
    """Shapes: B KV H/KV T x ► B H T x, where x is T or the given width"""
    heads = graph.constant(f"[{graph.dimensions['H']}]", [graph.dimensions["H"]])
    last = "lengths" if width is None else graph.constant(f"[{width}]", [width])
    shape = graph.once("Concat", ["batches", heads, "lengths", last], f"by_head.{width}", axis=0)
    return graph.node("Reshape", [value, shape], output)


def add_cap(graph: Graph, value: str, cap: float, output: str) -> str:
    """cap · tanh(value / cap)"""
    limit = graph.constant(f"cap.{cap:g}", float(cap))
    inner = graph.node("Tanh", [graph.node("Div", [value, limit], f"{output}.share")], f"{output}.bent")
    return graph.node("Mul", [inner, limit], output)


def _pattern(graph: Graph, name: str, scores: str) -> str:
    output = f"{name}.hook_pattern"
    if not graph.decoder.has_sinks:
        return graph.node("Softmax", [scores], output, axis=-1)
    sinks = graph.reshape(graph.vector(f"{name}.sinks"), [1, -1, 1, 1], f"{name}.sinks")  # 1 H 1 1
    heads = graph.constant(f"[{graph.dimensions['H']}]", [graph.dimensions["H"]])
    shape = graph.once("Concat", ["batches", heads, "lengths", graph.constant("[1]", [1])], "sinks.shape", axis=0)
    spread = graph.node("Expand", [sinks, shape], f"{name}.spread_sinks")  # B H T 1
    joined = graph.node("Concat", [scores, spread], f"{name}.scores_and_sinks", axis=-1)  # B H T T+1
    shares = graph.node("Softmax", [joined], f"{name}.shares", axis=-1)
    ends = [graph.constant("[0]", [0]), "lengths", graph.constant("[3]", [3])]
    return graph.node("Slice", [shares, *ends], output)
