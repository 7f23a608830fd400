"""model.onnx: the decoder as an ONNX graph built node by node, so that every hook point is a value with its own name.

The weights stay in the safetensors files: an initializer is a file name, an offset and a length. float16 weights are
widened by a Cast at their use; int8 codes too, and the product is multiplied by their factors. So all arithmetic is
float32. Masked scores are -infinity.

Hook points that are off unless asked for (`hook_result`, `hook_q_input`, …) are left out: ONNX Runtime computes every
value of a graph, asked for or not, and these grow with the heads.

nodes.py       nodes, constants and weights of a graph that is being built
blocks.py      embedding, blocks, unembedding: the order of things
norm.py        layer norm, and that of the root mean square
attention.py   masks, scores, pattern
turns.py       rotary positions
mlp.py         plain and gated
experts.py     a mixture of experts
Source: the operators of ONNX's opset 20.
"""

from neuroscope.export.graph.blocks import INPUT, build_graph

__all__ = ["INPUT", "build_graph"]
