"""Embedding, blocks, unembedding: the order of things in a decoder, and the model that they make."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import TensorProto, helper

from neuroscope.export.architecture import Architecture, TensorRule
from neuroscope.export.decoder import decoder_of
from neuroscope.export.graph.attention import add_attention, add_cap, add_positions
from neuroscope.export.graph.experts import add_experts
from neuroscope.export.graph.mlp import add_mlp
from neuroscope.export.graph.nodes import Graph
from neuroscope.export.graph.norm import add_norm
from neuroscope.export.tensor_file import TensorPlace

OPSET = 20  # the first with Gelu
IR_VERSION = 10
INPUT = "input_ids"
LOGITS = "logits"
AXES = {"B": "batch", "T": "sequence", "B*T": "tokens"}


def build_graph(
    architecture: Architecture, rules: Mapping[str, TensorRule], places: Mapping[str, tuple[str, TensorPlace]]
) -> onnx.ModelProto:
    """The graph of a model whose tensors lie at `places` (tensor: file name and place).

    Shapes: input_ids B T; the outputs are the hook points that are on, with the axes of the architecture file, and
    `logits` where these are more than `unembed.hook_out`: capped.
    """
    decoder = decoder_of(architecture)
    graph = Graph(architecture, decoder, rules, places)
    _add_decoder(graph)
    outputs = [
        helper.make_tensor_value_info(
            point.name, TensorProto.FLOAT, [AXES.get(axis) or _extent(architecture, axis) for axis in point.axes]
        )
        for point in architecture.hook_points()
        if point.on
    ]
    if decoder.logit_cap is not None:
        extents: list[str | int | None] = [AXES["B"], AXES["T"], architecture.dimensions["V"]]
        outputs.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, extents))
    tokens = helper.make_tensor_value_info(INPUT, TensorProto.INT64, [AXES["B"], AXES["T"]])
    model = helper.make_model(
        helper.make_graph(graph.nodes, architecture.name, [tokens], outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="neuroscope",
    )
    onnx.checker.check_model(_without_files(model))
    return model


def _extent(architecture: Architecture, axis: str) -> int:
    return 1 if axis == "1" else architecture.extent(axis)


def _without_files(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for the checker, which would look for the weights in the current folder: they become graph inputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    inner = [tensor for tensor in copy.graph.initializer if tensor.data_location != TensorProto.EXTERNAL]
    outer = [tensor for tensor in copy.graph.initializer if tensor.data_location == TensorProto.EXTERNAL]
    copy.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in outer
    )
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(inner)
    return copy


def _add_decoder(graph: Graph) -> None:
    decoder = graph.decoder
    graph.node("Shape", [INPUT], "shape")  # [B, T]
    graph.node("Shape", [INPUT], "batches", end=1)  # [B]
    graph.node("Shape", [INPUT], "lengths", start=1)  # [T]
    graph.node("Squeeze", ["lengths"], "length")  # T
    add_positions(graph)
    stream = _embedding(graph)  # B T D
    for layer in range(graph.dimensions["L"]):
        stream = _add_block(graph, layer, stream)

    final = add_norm(graph, stream, "ln_final", "final") if decoder.has_final_norm else stream
    read = graph.node("Identity", [final], "unembed.hook_in")  # B T D
    if graph.has("unembed.W_out"):
        read = graph.product(read, "unembed.W_out", "unembed.narrowed")  # B T W
    matrix = "unembed.W_U" if graph.has("unembed.W_U") else "embed.W_E"
    logits = graph.product(read, matrix, "unembed.products", bias="unembed.b_U")
    graph.node("Identity", [logits], "unembed.hook_out")  # B T V
    if decoder.logit_cap is not None:
        add_cap(graph, "unembed.hook_out", decoder.logit_cap, LOGITS)  # B T V


def _embedding(graph: Graph) -> str:
    """The stream before the first block. Shapes: B T D"""
    decoder = graph.decoder
    value = graph.rows(INPUT, "embed.rows")  # B T D
    if decoder.embedding_scale != 1:
        value = graph.node("Mul", [value, graph.constant("embedding scale", decoder.embedding_scale)], "embed.scaled")
    if graph.has("embed.W_in"):
        value = graph.product(value, "embed.W_in", "embed.widened")
    value = graph.node("Identity", [value], "hook_embed")
    if decoder.learned_positions:
        first = graph.constant(f"[{decoder.position_offset}]", [decoder.position_offset])
        end = graph.node("Add", ["lengths", first], "positions.end")
        rows = graph.node(
            "Slice", [graph.vector("pos_embed.W_pos"), first, end, graph.constant("[0]", [0])], "positions"
        )
        shape = graph.node("Shape", [value], "stream.shape")
        graph.node("Expand", [rows, shape], "hook_pos_embed")  # B T D
        value = graph.node("Add", [value, "hook_pos_embed"], "embed.placed")
    return value


def _add_block(graph: Graph, layer: int, stream: str) -> str:
    """Shapes: B T D ► B T D"""
    decoder, block = graph.decoder, f"blocks.{layer}"
    before, after = decoder.norm_placement in ("before", "both"), decoder.norm_placement == "both"
    add_second = add_experts if decoder.experts else add_mlp
    pre = graph.node("Identity", [stream], f"{block}.hook_resid_pre")
    read = add_norm(graph, pre, f"{block}.ln1", f"{block}.ln1.hook_out") if before else pre
    attention = add_attention(graph, layer, read, f"{block}.attn.hook_out")
    if after:
        attention = add_norm(graph, attention, f"{block}.ln1_post", f"{block}.ln1_post.hook_out")
    attention = graph.node("Identity", [attention], f"{block}.hook_attn_out")
    middle = graph.node("Add", [pre, attention], f"{block}.attn.added")
    if decoder.norm_placement == "after":
        middle = add_norm(graph, middle, f"{block}.ln1", f"{block}.ln1.hook_out")
    middle = graph.node("Identity", [middle], f"{block}.hook_resid_mid")
    source = pre if decoder.is_parallel else middle
    read = add_norm(graph, source, f"{block}.ln2", f"{block}.ln2.hook_out") if before else source
    second = add_second(graph, layer, read, f"{block}.mlp.hook_out")
    if after:
        second = add_norm(graph, second, f"{block}.ln2_post", f"{block}.ln2_post.hook_out")
    second = graph.node("Identity", [second], f"{block}.hook_mlp_out")
    post = graph.node("Add", [middle, second], f"{block}.mlp.added")
    if decoder.norm_placement == "after":
        post = add_norm(graph, post, f"{block}.ln2", f"{block}.ln2.hook_out")
    return graph.node("Identity", [post], f"{block}.hook_resid_post")
