"""Rotary positions: pairs (i, i + R/2) of a head's first R numbers, turned by what rotary.py works out.

Source: Su et al. 2021; the pairing is that of GPT-NeoX.
"""

from __future__ import annotations

from neuroscope.export.graph.nodes import Graph
from neuroscope.export.rotary import Rotary


def add_turns(graph: Graph, layer: int) -> tuple[str, str]:
    """Cosines and sines of the layer, made once for all layers that turn alike. Shapes: T 1 R/2"""
    turns = graph.decoder.rotary[layer]
    first = next(index for index, each in enumerate(graph.decoder.rotary) if each is turns)
    cosines, sines = f"rotary.{first}.cosines", f"rotary.{first}.sines"
    if first < layer:
        return cosines, sines
    angles = graph.node("Mul", [_positions(graph), _frequencies(graph, turns, first)], f"rotary.{first}.angles")
    for operator, output in (("Cos", cosines), ("Sin", sines)):
        if turns.magnitude == 1:
            graph.node(operator, [angles], output)
        else:
            magnitude = graph.constant(f"rotary.{first}.magnitude", turns.magnitude)
            graph.node("Mul", [graph.node(operator, [angles], f"{output}.plain"), magnitude], output)
    return cosines, sines


def _positions(graph: Graph) -> str:
    """Shapes: T 1 1"""
    numbers = graph.once("Cast", ["keys"], "rotary.numbers", to=1)  # T
    return graph.once("Unsqueeze", [numbers, graph.constant("[1,2]", [1, 2])], "rotary.positions")


def _frequencies(graph: Graph, turns: Rotary, first: int) -> str:
    usual = graph.constant(f"rotary.{first}.frequencies", turns.frequencies)
    if turns.long is None:
        return usual
    is_long = graph.node(
        "Greater", ["length", graph.constant(f"{turns.beyond}", turns.beyond)], f"rotary.{first}.is_long"
    )
    long = graph.constant(f"rotary.{first}.long_frequencies", turns.long)
    return graph.node("Where", [is_long, long, usual], f"rotary.{first}.chosen")


def turned(graph: Graph, value: str, cosines: str, sines: str, output: str) -> str:
    """Shapes: B T heads K ► the same"""
    half, width = graph.decoder.turned // 2, graph.dimensions["K"]
    rest = width - 2 * half
    names = [f"{output}.{part}" for part in ("first", "second", "rest")[: 3 if rest else 2]]
    parts = list(graph.split(value, names, [half, half, *([rest] if rest else [])]))
    one, other = parts[:2]
    along = graph.node("Mul", [one, cosines], f"{one}.along")
    across = graph.node("Mul", [other, sines], f"{one}.across")
    parts[0] = graph.node("Sub", [along, across], f"{one}.turned")
    along = graph.node("Mul", [other, cosines], f"{other}.along")
    across = graph.node("Mul", [one, sines], f"{other}.across")
    parts[1] = graph.node("Add", [along, across], f"{other}.turned")
    return graph.node("Concat", parts, output, axis=-1)
