"""A checkpoint becomes a bundle here, and a bundle is held against its reference.

architecture.py   what an architecture file says: dimensions, tensors, hook points
decoder.py        what it says of the forward pass, worked out against a configuration
rotary.py         by how much positions turn queries and keys
checkpoint.py     a Hugging Face folder, read and checked
tensor_file.py    safetensors files, tensor by tensor, in pieces
mxfp4.py          blocks of four-bit numbers, decoded
int8.py           matrices as codes and factors
processing.py     norms folded, means taken away: weights that are easier to read
weight_files.py   the weights of a bundle, rounded on their way
graph/            model.onnx
bundle.py         export_bundle: all of it, into a folder that is whole or not there
manifest.py       bundle.json
reference.py      reference.safetensors
oracles.py        activations from PyTorch: TransformerLens, completed by transformers
module_points.py  hook points read off transformers' modules
hosts.py          activations from the bundle: ONNX Runtime, the engine in Node, the engine in Chromium
verify.py         verify_bundle: hook by hook, into parity.json
rounding.py       what rounding the weights did, apart from any engine
"""
