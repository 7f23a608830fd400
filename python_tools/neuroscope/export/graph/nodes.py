"""Nodes, constants and weights of a graph that is being built; a value is known by its name.

Weights are asked for by the decoder's names for them (`blocks.0.attn.W_Q`); which tensor of the checkpoint holds them,
and which of its outputs they are, the architecture file knows. No tensor is copied to be turned: Gemm reads it as it
lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from neuroscope.export.architecture import Architecture, TensorRule
from neuroscope.export.decoder import Decoder
from neuroscope.export.int8 import SCALE
from neuroscope.export.tensor_file import TensorPlace

_ELEMENT_TYPES = {"F32": TensorProto.FLOAT, "F16": TensorProto.FLOAT16, "I8": TensorProto.INT8}


class Graph:
    """A graph that grows node by node, for one model."""

    def __init__(
        self,
        architecture: Architecture,
        decoder: Decoder,
        rules: Mapping[str, TensorRule],
        places: Mapping[str, tuple[str, TensorPlace]],
    ) -> None:
        self.dimensions = architecture.dimensions
        self.decoder = decoder
        self.points = architecture.points
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._places = places
        self._rules = rules
        self._holders = {part: tensor for tensor, rule in rules.items() for part in rule.parts}
        self._made: set[str] = set()
        self._split: dict[str, dict[str, str]] = {}

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def once(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """A node that several others share."""
        if output not in self._made:
            self._made.add(output)
            self.node(operator, inputs, output, **attributes)
        return output

    def split(self, value: str, outputs: Sequence[str], sizes: Sequence[int]) -> Sequence[str]:
        """Along the last axis."""
        lengths = self.constant(str(list(sizes)), list(sizes))
        self.nodes.append(helper.make_node("Split", [value, lengths], outputs, name=f"{value}.split", axis=-1))
        return outputs

    def constant(self, name: str, numbers: Any) -> str:
        """A small constant; whole numbers as int64, others as float32. The same name is made once."""
        if name not in self._made:
            self._made.add(name)
            array = np.asarray(numbers)
            kind = np.float32 if array.dtype.kind == "f" else np.int64
            self.initializers.append(numpy_helper.from_array(array.astype(kind), name))
        return name

    def reshape(self, value: str, shape: Sequence[int], output: str) -> str:
        """0 leaves an axis as it is, -1 is what is left."""
        return self.node("Reshape", [value, self.constant(str(list(shape)), list(shape))], output)

    # Weights

    def has(self, part: str) -> bool:
        return part in self._holders

    def vector(self, part: str) -> str:
        """A bias, a norm's weight, or a table that is looked up only, as float32."""
        tensor = self._holders[part]
        rule = self._rules[tensor]
        value = self._floats(tensor)
        return value if len(rule.parts) == 1 else self._parts(value, rule)[part]

    def product(self, value: str, part: str, output: str, *, bias: str | None = None) -> str:
        """value · the matrix `part`, and its bias where it has one. Shapes: B T inputs ► B T outputs"""
        bias = bias or bias_of(part)
        if not self.has(bias):
            return self._product(value, part, output)
        return self.node("Add", [self._product(value, part, f"{output}.product"), self.vector(bias)], output)

    def _product(self, value: str, part: str, output: str) -> str:
        """Matrices that lie in one tensor are multiplied at once, and the outputs then dealt out."""
        tensor = self._holders[part]
        rule = self._rules[tensor]
        if len(rule.parts) == 1:
            return self._whole_product(value, tensor, output)
        whole = f"{value}·{tensor}"
        if whole not in self._split:
            self._whole_product(value, tensor, whole)
        return self.node("Identity", [self._parts(whole, rule)[part]], output)

    def _whole_product(self, value: str, tensor: str, output: str) -> str:
        _, place = self._places[tensor]
        if place.dtype != "I8":
            return self._product_as_it_lies(value, tensor, self._floats(tensor), output)
        # Not DequantizeLinear: ONNX Runtime turns it and the product behind it, unasked, into one that rounds the
        # activations to int8 as well. The factors are those of whole outputs, so they can as well come afterwards
        codes = self.once("Cast", [self._initializer(tensor)], f"{tensor}.codes", to=TensorProto.FLOAT)
        products = self._product_as_it_lies(value, tensor, codes, f"{output}.of_codes")
        return self.node("Mul", [products, self._initializer(tensor + SCALE)], output)

    def _product_as_it_lies(self, value: str, tensor: str, matrix: str, output: str) -> str:
        rule = self._rules[tensor]
        _, place = self._places[tensor]
        if rule.use == "matrix" and not (rule.transpose and place.dtype != "I8"):
            return self.node("MatMul", [value, matrix], output)
        outputs, inputs = rule.shape  # Gemm takes the tensor as it lies; MatMul would need a transposed copy of it
        rows = self.reshape(value, [-1, inputs], f"{output}.rows")  # B·T inputs
        products = self.node("Gemm", [rows, matrix], f"{output}.products", transB=1)  # B·T outputs
        last = self.constant(f"[{outputs}]", [outputs])
        shape = self.once("Concat", ["shape", last], f"shape.{outputs}", axis=0)
        return self.node("Reshape", [products, shape], output)  # B T outputs

    def rows(self, ids: str, output: str) -> str:
        """The rows of the embedding. Shapes: … ► … D"""
        tensor = self._holders["embed.W_E"]
        _, place = self._places[tensor]
        if place.dtype != "I8":
            return self.node("Gather", [self._floats(tensor), ids], output)
        codes = self.node("Gather", [self._initializer(tensor), ids], f"{output}.codes")
        numbers = self.node("Cast", [codes], f"{output}.whole", to=TensorProto.FLOAT)
        scales = self.node("Gather", [self._initializer(tensor + SCALE), ids], f"{output}.scales")
        last = self.node("Unsqueeze", [scales, self.constant("[-1]", [-1])], f"{output}.scale")
        return self.node("Mul", [numbers, last], output)

    def stack(self, part: str) -> str:
        """A tensor whose first axis is the experts, as float32, whole. Shapes: E inputs outputs, or E outputs"""
        return self._floats(self._holders[part])

    def _parts(self, value: str, rule: TensorRule) -> dict[str, str]:
        """The outputs on the last axis of `value`, dealt out."""
        if value not in self._split:
            outputs = [f"{value}.{part}" for part in rule.parts]
            period = sum(rule.sizes)
            times = rule.outputs // period
            if times == 1:
                self.split(value, outputs, rule.sizes)
            else:
                lead = [0] * (1 if rule.use == "vector" and len(rule.shape) == 2 else 2 if rule.use == "matrix" else 0)
                grouped = self.reshape(value, [*lead, times, period], f"{value}.grouped")
                pieces = self.split(grouped, [f"{output}.grouped" for output in outputs], rule.sizes)
                for piece, output, size in zip(pieces, outputs, rule.sizes, strict=True):
                    self.reshape(piece, [*lead, times * size], output)
            self._split[value] = dict(zip(rule.parts, outputs, strict=True))
        return self._split[value]

    def dealt(self, value: str, part: str) -> str:
        """Of outputs that were computed for all the parts of a tensor together, those of `part`."""
        rule = self._rules[self._holders[part]]
        return value if len(rule.parts) == 1 else self._parts(value, rule)[part]

    def _floats(self, tensor: str) -> str:
        """A tensor of the checkpoint as float32, in the layout of the file; of int8, a stack for the experts."""
        _, place = self._places[tensor]
        value = self._initializer(tensor)
        if place.dtype == "F32":
            return value
        if place.dtype == "F16":
            return self.once("Cast", [value], f"{tensor}.float32", to=TensorProto.FLOAT)
        scale = self._initializer(tensor + SCALE)
        whole = self.once("Cast", [value], f"{tensor}.whole", to=TensorProto.FLOAT)
        spread = self.once("Unsqueeze", [scale, self.constant("[-2]", [-2])], f"{tensor}.spread")
        return self.once("Mul", [whole, spread], f"{tensor}.float32")

    def _initializer(self, tensor: str) -> str:
        if tensor not in self._made:
            self._made.add(tensor)
            file, place = self._places[tensor]
            external = TensorProto(name=tensor, data_type=_ELEMENT_TYPES[place.dtype], dims=place.shape)
            external.data_location = TensorProto.EXTERNAL
            for key, value in (("location", file), ("offset", place.offset), ("length", place.bytes)):
                external.external_data.add(key=key, value=str(value))
            self.initializers.append(external)
        return tensor


def bias_of(matrix: str) -> str:
    """`blocks.0.attn.W_Q` ► `blocks.0.attn.b_Q`; a part that is named W alone has b."""
    head, _, last = matrix.rpartition(".")
    return f"{head}.b{last.removeprefix('W')}"
