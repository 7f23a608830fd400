"""GPT-2 small's shape with random weights, twice from the same numbers: as a Hugging Face checkpoint, which is exported
for the engine, and as ONNX graphs with the names that transformers.js expects, without and with a key-value cache.

Not GPT-2: nothing is downloaded, and speed does not depend on what the weights are.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LAYERS, WIDTH, HEADS, POSITIONS, VOCABULARY = 12, 768, 12, 1024, 50257
CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_embd": WIDTH,
    "n_positions": POSITIONS,
    "n_ctx": POSITIONS,
    "vocab_size": VOCABULARY,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
}


def tokens_of(length: int) -> list[int]:
    """The token ids that every rival is given."""
    return [(position * 7919) % VOCABULARY for position in range(length)]


def make_checkpoint(folder: Path) -> Path:
    """Writes the checkpoint, 548 MB, unless it is there."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    if (folder / "model.safetensors").is_file():
        return folder
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**CONFIG))
    model.save_pretrained(folder)
    return folder


def open_model(folder: Path) -> torch.nn.Module:
    """The checkpoint in PyTorch: a rival itself, and what the ONNX graphs are traced from."""
    import torch
    from transformers import AutoModelForCausalLM

    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def make_graphs(checkpoint: Path, folder: Path) -> Path:
    """Writes folder/plain and folder/cached, each as transformers.js opens it, unless they are there."""
    for name, with_cache in (("plain", False), ("cached", True)):
        output = folder / name / "onnx" / "model.onnx"
        if not output.is_file():
            output.parent.mkdir(parents=True, exist_ok=True)
            _export(checkpoint, output, with_cache=with_cache)
        for file, content in (("config.json", CONFIG), ("generation_config.json", {})):
            (folder / name / file).write_text(json.dumps(content))
    return folder


def _export(checkpoint: Path, output: Path, *, with_cache: bool) -> None:
    import torch

    decoder = _decoder(open_model(checkpoint), with_cache)
    head = WIDTH // HEADS
    ids = torch.tensor([tokens_of(5)])
    past_length = 3 if with_cache else 0
    mask = torch.ones(1, 5 + past_length, dtype=torch.long)
    past = [torch.zeros(1, HEADS, past_length, head) for _ in range(2 * LAYERS if with_cache else 0)]
    parts = [f"{layer}.{part}" for layer in range(LAYERS if with_cache else 0) for part in ("key", "value")]
    inputs = ["input_ids", "attention_mask", *(f"past_key_values.{part}" for part in parts)]
    outputs = ["logits", *(f"present.{part}" for part in parts)]
    axes = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "total"}}
    axes |= {f"past_key_values.{part}": {0: "batch", 2: "past"} for part in parts}
    axes |= {f"present.{part}": {0: "batch", 2: "total"} for part in parts}
    axes["logits"] = {0: "batch", 1: "length"}
    temporary = output.with_suffix(".unfinished")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about constants
        torch.onnx.export(
            decoder,
            (ids, mask, *past),
            str(temporary),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,
        )
    temporary.rename(output)


def _decoder(model: torch.nn.Module, with_cache: bool) -> torch.nn.Module:
    """The same pass written out, since the library's own is traced with its mask logic and is slower as a graph."""
    import torch
    from torch.nn import functional

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            body: Any = model.transformer
            self.tokens, self.positions, self.blocks, self.norm = body.wte, body.wpe, body.h, body.ln_f
            self.register_buffer("future", torch.full((POSITIONS, POSITIONS), -1e9).triu(1))

        def forward(self, ids: Any, mask: Any, *past: Any) -> Any:
            length, total = ids.shape[1], mask.shape[1]
            places = (mask.cumsum(1) - 1)[:, total - length :]
            stream = self.tokens(ids) + self.positions(places)  # B T D
            future: Any = self.future
            hidden = future[total - length : total, :total]  # T S
            present = []
            for layer, block in enumerate(self.blocks):
                joined = self._product(block.ln_1(stream), block.attn.c_attn)  # B T 3D
                query, key, value = (self._heads(part) for part in joined.split(WIDTH, 2))  # B H T K
                if with_cache:
                    key = torch.cat([past[2 * layer], key], 2)
                    value = torch.cat([past[2 * layer + 1], value], 2)
                    present += [key, value]
                pattern = torch.softmax(query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + hidden, -1)  # B H T S
                mixed = (pattern @ value).transpose(1, 2).reshape(ids.shape[0], -1, WIDTH)
                stream = stream + self._product(mixed, block.attn.c_proj)
                inner = functional.gelu(self._product(block.ln_2(stream), block.mlp.c_fc), approximate="tanh")
                stream = stream + self._product(inner, block.mlp.c_proj)
            logits = self.norm(stream) @ self.tokens.weight.T  # B T V
            return (logits, *present)

        @staticmethod
        def _heads(part: Any) -> Any:
            return part.reshape(part.shape[0], -1, HEADS, WIDTH // HEADS).transpose(1, 2)

        @staticmethod
        def _product(value: Any, linear: Any) -> Any:
            return value @ linear.weight + linear.bias

    return Decoder().eval()
