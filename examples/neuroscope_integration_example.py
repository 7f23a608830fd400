"""The lab from Python: capture, circuit analysis, attention patterns, streaming, and the class for Smalltalk.

    neuroscope serve --model /path/to/your/model
    python examples/neuroscope_integration_example.py /path/to/your/model

The lab is at http://127.0.0.1:8080, or where NEUROSCOPE_LAB says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from neuroscope_integration import (
    LMStudioNeuroScopeClient,
    NeuroScopeActivationBridge,
    generate_neuroscope_smalltalk_interface,
)

PROMPT = [{"role": "user", "content": "Mary and John went to the store, and John gave a drink to"}]


def basic_capture(client: LMStudioNeuroScopeClient) -> None:
    """One hook, one short answer."""
    hooks = [{"layer_name": "transformer.h.0", "component": "residual", "hook_id": "first"}]
    result = client.generate_with_activations(messages=PROMPT, activation_hooks=hooks, max_tokens=8, temperature=0)
    print("answer:", result["choices"][0]["message"]["content"])
    for entry in result["activations"]["first"][:2]:
        print(f"  a pass from position {entry['position']}: {entry['shape']}")


def circuit_analysis(client: LMStudioNeuroScopeClient, layers: int) -> None:
    """How long the vectors are that each component writes."""
    bridge = NeuroScopeActivationBridge()
    hooks = bridge.create_hook_specs_for_circuit_analysis(model_layers=layers)
    result = client.generate_with_activations(messages=PROMPT, activation_hooks=hooks, max_tokens=1)
    arrays = bridge.convert_activations(result["activations"])
    lengths = {name: float(np.linalg.norm(passes[0], axis=-1).mean()) for name, passes in arrays.items()}
    for name, length in sorted(lengths.items(), key=lambda each: -each[1])[:5]:
        print(f"  {name:24} {length:8.2f}")


def attention_patterns(client: LMStudioNeuroScopeClient, layers: int) -> None:
    """Where the last position of the last layer looks."""
    bridge = NeuroScopeActivationBridge()
    hooks = bridge.create_attention_analysis_hooks(model_layers=layers, target_layers=[layers - 1])
    result = client.generate_with_activations(messages=PROMPT, activation_hooks=hooks, max_tokens=1)
    pattern = bridge.convert_activations(result["activations"])[f"layer_{layers - 1}_attention_pattern"][0]
    print("  each head's strongest key:", pattern[0, :, -1].argmax(axis=-1).tolist())


def streaming(client: LMStudioNeuroScopeClient) -> None:
    """Tokens as they come, each with its activations."""
    hooks = [{"layer_name": "transformer.h.0", "component": "mlp", "hook_id": "mlp"}]
    chunks: Any = client.generate_with_activations(messages=PROMPT, activation_hooks=hooks, max_tokens=8, stream=True)
    for chunk in chunks:
        shape = chunk["activations"]["mlp"][0]["shape"]
        print(f"  {chunk['choices'][0]['delta']['content']!r:16} {shape}")


def main() -> int:
    if len(sys.argv) != 2:
        print(f"usage: {Path(sys.argv[0]).name} MODEL", file=sys.stderr)
        return 2
    with LMStudioNeuroScopeClient() as client:
        layers = client.load_model(sys.argv[1])["layers"]
        print("basic capture")
        basic_capture(client)
        print("circuit analysis")
        circuit_analysis(client, layers)
        print("attention patterns")
        attention_patterns(client, layers)
        print("streaming")
        streaming(client)
        Path("LMStudioRESTClient.st").write_text(generate_neuroscope_smalltalk_interface(client), encoding="utf-8")
        print("LMStudioRESTClient.st is for `neuroscope eval --load`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
