"""A checkpoint becomes a bundle here, and a bundle is held against its reference.

architecture.py   what an architecture file says: dimensions, tensors, hook points
checkpoint.py     a Hugging Face folder, read and checked
tensor_file.py    safetensors files, tensor by tensor
graph.py          model.onnx
bundle.py         export_bundle: all of it, into a folder that is whole or not there
manifest.py       bundle.json
reference.py      reference.safetensors
oracles.py        activations from PyTorch: TransformerLens, or transformers with hooks
hosts.py          activations from the bundle: ONNX Runtime, the engine in Node, the engine in Chromium
verify.py         verify_bundle: hook by hook, into parity.json
"""
