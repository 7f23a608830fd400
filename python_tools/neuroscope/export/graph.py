"""model.onnx: the decoder as an ONNX graph built node by node, so that every hook point is a value with its own name.

The weights stay in the safetensors files: an initializer is a file name, an offset and a length. float16 weights are
widened by a Cast at their use, so all arithmetic is float32. Masked scores are -infinity.

Hook points that are off unless asked for (`hook_result`, `hook_q_input`, …) are left out: ONNX Runtime computes every
value of a graph, asked for or not, and these grow with the heads.
Source: the operators of ONNX's opset 20; Radford et al. 2019 for the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from neuroscope.errors import CheckpointError
from neuroscope.export.architecture import Architecture
from neuroscope.export.tensor_file import TensorPlace

OPSET = 20  # the first with Gelu
IR_VERSION = 10
INPUT = "input_ids"
AXES = {"B": "batch", "T": "sequence"}
_ELEMENT_TYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16}
_ACTIVATIONS = {
    "geluTanh": ("Gelu", {"approximate": "tanh"}),
    "geluErf": ("Gelu", {"approximate": "none"}),
    "relu": ("Relu", {}),
}


class _Graph:
    """The nodes and initializers of a graph that is being built; a value is known by its name."""

    def __init__(self, places: Mapping[str, tuple[str, TensorPlace]]) -> None:
        self.places = places
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._names: set[str] = set()

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def nodes_of_split(self, value: str, outputs: Sequence[str], axis: int) -> Sequence[str]:
        self.nodes.append(
            helper.make_node(
                "Split", [value], list(outputs), name=f"{value}.split", axis=axis, num_outputs=len(outputs)
            )
        )
        return outputs

    def constant(self, name: str, numbers: Sequence[int] | int | float) -> str:
        """A small constant; whole numbers as int64, others as float32. The same name is made once."""
        if name not in self._names:
            self._names.add(name)
            kind = np.float32 if isinstance(numbers, float) else np.int64
            self.initializers.append(numpy_helper.from_array(np.array(numbers, kind), name))
        return name

    def weight(self, tensor: str) -> str:
        """A tensor of the checkpoint as float32."""
        file, place = self.places[tensor]
        if tensor not in self._names:
            self._names.add(tensor)
            self.initializers.append(_external(tensor, file, place))
            if place.dtype != "F32":
                self.node("Cast", [tensor], f"{tensor}.float32", to=TensorProto.FLOAT)
        return tensor if place.dtype == "F32" else f"{tensor}.float32"


def _external(name: str, file: str, place: TensorPlace) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=_ELEMENT_TYPES[place.dtype], dims=place.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", place.offset), ("length", place.bytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def build_graph(architecture: Architecture, places: Mapping[str, tuple[str, TensorPlace]]) -> onnx.ModelProto:
    """The graph of a model whose tensors lie at `places` (tensor: file name and place).

    Shapes: input_ids B T; the outputs are the hook points that are on, with the axes of the architecture file.
    """
    if architecture.name != "gpt2":
        raise CheckpointError(f"There is no ONNX graph for {architecture.name} yet, only for gpt2.")
    graph = _Graph(places)
    _Decoder(architecture, graph).build()
    outputs = [
        helper.make_tensor_value_info(
            point.name, TensorProto.FLOAT, [AXES.get(axis) or _extent(architecture, axis) for axis in point.axes]
        )
        for point in architecture.hook_points()
        if point.on
    ]
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
    return 1 if axis == "1" else architecture.dimensions[axis]


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


class _Decoder:
    """GPT-2's forward pass; every comment gives the shape of the value that its line makes."""

    def __init__(self, architecture: Architecture, graph: _Graph) -> None:
        self.architecture = architecture
        self.graph = graph
        self.tensors = {}
        for name in graph.places:
            for prefix in architecture.declaration["tensorPrefixes"]:
                if prefix and name.startswith(prefix):
                    self.tensors[name.removeprefix(prefix)] = name
            self.tensors.setdefault(name, name)

    def weight(self, name: str) -> str:
        return self.graph.weight(self.tensors[name])

    def build(self) -> None:
        graph, dimensions = self.graph, self.architecture.dimensions
        graph.node("Shape", [INPUT], "shape")
        graph.node("Gather", ["shape", graph.constant("1", 1)], "length")
        graph.node("Unsqueeze", ["length", graph.constant("[0]", [0])], "lengths")
        self._mask()

        graph.node("Gather", [self.weight("wte.weight"), INPUT], "hook_embed")  # B T D
        first = graph.node("Slice", [self.weight("wpe.weight"), "[0]", "lengths", "[0]"], "positions")  # T D
        graph.node("Shape", ["hook_embed"], "hook_embed.shape")
        graph.node("Expand", [first, "hook_embed.shape"], "hook_pos_embed")  # B T D
        stream = graph.node("Add", ["hook_embed", "hook_pos_embed"], "blocks.0.hook_resid_pre")  # B T D
        for layer in range(dimensions["L"]):
            if layer > 0:
                stream = graph.node("Identity", [stream], f"blocks.{layer}.hook_resid_pre")
            stream = self._block(layer, stream)

        final = self._norm(stream, "ln_final", "ln_f", "unembed.hook_in")  # B T D
        matrix = "wte.weight" if self.architecture.ties_unembedding else "lm_head.weight"
        rows = graph.node("Reshape", [final, graph.constant("[-1,D]", [-1, dimensions["D"]])], "unembed.rows")  # B*T D
        # Gemm takes the embedding as it lies; MatMul would need a transposed copy of it
        logits = graph.node("Gemm", [rows, self.weight(matrix)], "unembed.products", transB=1)  # B*T V
        graph.node("Concat", ["shape", graph.constant("[V]", [dimensions["V"]])], "unembed.shape", axis=0)
        graph.node("Reshape", [logits, "unembed.shape"], "unembed.hook_out")  # B T V

    def _mask(self) -> None:
        """`future`: whether a key's position comes after the query's. T T"""
        graph = self.graph
        graph.node("Range", [graph.constant("0", 0), "length", "1"], "keys")  # T
        graph.node("Unsqueeze", ["keys", "1"], "queries")  # T 1
        graph.node("Greater", ["keys", "queries"], "future")  # T T

    def _norm(self, value: str, hooks: str, tensor: str, output: str) -> str:
        graph = self.graph
        last = graph.constant("[-1]", [-1])
        mean = graph.node("ReduceMean", [value, last], f"{hooks}.mean")  # B T 1
        centred = graph.node("Sub", [value, mean], f"{hooks}.centred")  # B T D
        square = graph.node("Mul", [centred, centred], f"{hooks}.squares")
        variance = graph.node("ReduceMean", [square, last], f"{hooks}.variance")  # B T 1
        epsilon = graph.constant("epsilon", float(self.architecture.option("epsilon")))
        steadied = graph.node("Add", [variance, epsilon], f"{hooks}.steadied")
        scale = graph.node("Sqrt", [steadied], f"{hooks}.hook_scale")  # B T 1
        normalized = graph.node("Div", [centred, scale], f"{hooks}.hook_normalized")  # B T D
        scaled = graph.node("Mul", [normalized, self.weight(f"{tensor}.weight")], f"{hooks}.scaled")
        return graph.node("Add", [scaled, self.weight(f"{tensor}.bias")], output)  # B T D

    def _linear(self, value: str, tensor: str, output: str) -> str:
        product = self.graph.node("MatMul", [value, self.weight(f"{tensor}.weight")], f"{output}.product")
        return self.graph.node("Add", [product, self.weight(f"{tensor}.bias")], output)

    def _block(self, layer: int, stream: str) -> str:
        graph, block, source = self.graph, f"blocks.{layer}", f"h.{layer}"
        normed = self._norm(stream, f"{block}.ln1", f"{source}.ln_1", f"{block}.ln1.hook_out")
        attention = self._attention(normed, f"{block}.attn", f"{source}.attn", f"{block}.hook_attn_out")
        middle = graph.node("Add", [stream, attention], f"{block}.hook_resid_mid")  # B T D
        normed = self._norm(middle, f"{block}.ln2", f"{source}.ln_2", f"{block}.ln2.hook_out")
        before = self._linear(normed, f"{source}.mlp.c_fc", f"{block}.mlp.hook_pre")  # B T F
        operator, attributes = _ACTIVATIONS[self.architecture.option("activation")]
        after = graph.node(operator, [before], f"{block}.mlp.hook_post", **attributes)  # B T F
        mlp = self._linear(after, f"{source}.mlp.c_proj", f"{block}.hook_mlp_out")  # B T D
        return graph.node("Add", [middle, mlp], f"{block}.hook_resid_post")  # B T D

    def _attention(self, normed: str, hooks: str, source: str, output: str) -> str:
        graph, dimensions = self.graph, self.architecture.dimensions
        joined = self._linear(normed, f"{source}.c_attn", f"{hooks}.qkv")  # B T 3D
        heads = graph.constant("[0,0,H,K]", [0, 0, dimensions["H"], dimensions["K"]])
        parts = graph.nodes_of_split(joined, [f"{hooks}.{letter}" for letter in "qkv"], axis=-1)
        query, key, value = (
            graph.node("Reshape", [part, heads], f"{hooks}.hook_{letter}")  # B T H K
            for part, letter in zip(parts, "qkv", strict=True)
        )
        query = graph.node("Transpose", [query], f"{hooks}.queries", perm=[0, 2, 1, 3])  # B H T K
        key = graph.node("Transpose", [key], f"{hooks}.keys", perm=[0, 2, 3, 1])  # B H K T
        value = graph.node("Transpose", [value], f"{hooks}.values", perm=[0, 2, 1, 3])  # B H T K
        scores = graph.node("MatMul", [query, key], f"{hooks}.products")  # B H T T
        if self.architecture.option("scaleScores"):
            root = graph.constant("√K", math.sqrt(dimensions["K"]))
            scores = graph.node("Div", [scores, root], f"{hooks}.scaled_products")
        masked = graph.constant("-∞", -math.inf)
        scores = graph.node("Where", ["future", masked, scores], f"{hooks}.hook_attn_scores")  # B H T T
        pattern = graph.node("Softmax", [scores], f"{hooks}.hook_pattern", axis=-1)  # B H T T
        mixed = graph.node("MatMul", [pattern, value], f"{hooks}.mixed")  # B H T K
        z = graph.node("Transpose", [mixed], f"{hooks}.hook_z", perm=[0, 2, 1, 3])  # B T H K
        width = graph.constant("[0,0,D]", [0, 0, dimensions["D"]])
        return self._linear(graph.node("Reshape", [z, width], f"{hooks}.z"), f"{source}.c_proj", output)  # B T D
