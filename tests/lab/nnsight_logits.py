"""Logits of a GPT-2 whose second MLP's output nnsight changes, as a program of its own: FOLDER IDS OUT.

nnsight changes Python's own object type when it is imported; MLX, imported after it in the same process, aborts that
process.
"""

from __future__ import annotations

import json
import sys

import torch
from nnsight import TransformersModel
from safetensors.torch import save_file


def main(folder: str, ids: list[int], out: str) -> None:
    """Writes [1, T, V] logits to the safetensors file `out`, under the name of each action."""
    options = {"dtype": torch.float32, "attn_implementation": "eager", "dispatch": True}
    model = TransformersModel(folder, task="text-generation", **options)
    some = torch.zeros(model.config.n_embd)
    some[:40] = 2.5
    results = {}
    for action in ("zero", "scale", "set", "add"):
        with torch.no_grad(), model.trace(torch.tensor([ids])):
            written = model.transformer.h[1].mlp.output
            if action == "zero":
                model.transformer.h[1].mlp.output = written * 0
            elif action == "scale":
                model.transformer.h[1].mlp.output = written * -1.5
            elif action == "set":
                model.transformer.h[1].mlp.output = written * 0 + 0.25
            else:
                model.transformer.h[1].mlp.output = written + some
            logits = model.lm_head.output.save()
        results[action] = logits.detach().clone()
    save_file(results, out)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])
