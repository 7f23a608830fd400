"""A checkpoint that is larger than what an export may hold in memory is exported all the same."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from neuroscope.export.tensor_file import TensorFile

MEBI = 2**20
ALLOWED = 200 * MEBI  # what an export may take above the interpreter with its packages; the checkpoints are 600 MiB

EXPORT = """
import sys
from pathlib import Path
from neuroscope.export.bundle import export_bundle
def peak():  # of this process alone; getrusage would count what the parent had when it forked
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
before = peak()
made = export_bundle(Path(sys.argv[1]), Path(sys.argv[2]), dtype=sys.argv[3], with_reference=False)
print(peak() - before, made.bytes)
"""


def sparse_checkpoint(folder: Path, config: dict[str, object], shapes: dict[str, list[int]], dtype: str) -> Path:
    """A checkpoint of zeros whose file takes no room on the disk."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    size = {"F32": 4, "BF16": 2}[dtype]
    header: dict[str, object] = {}
    ends = 0
    for name, shape in shapes.items():
        begin, ends = ends, ends + size * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, ends]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + ends)
    return folder


def llama(folder: Path) -> Path:
    """Rows of outputs, so int8 turns every matrix; bfloat16. The unembedding is a third of it."""
    width, inner, vocabulary, layers = 1024, 6000, 100_000, 6
    config = {
        "model_type": "llama", "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": vocabulary, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "hidden_act": "silu", "rope_theta": 10000.0,
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": [vocabulary, width], "model.norm.weight": [width]}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.{norm}_layernorm.weight": [width] for norm in ("input", "post_attention")}
        shapes |= {f"{at}.self_attn.{one}_proj.weight": [width, width] for one in "qo"}
        shapes |= {f"{at}.self_attn.{one}_proj.weight": [256, width] for one in "kv"}
        shapes |= {f"{at}.mlp.{one}_proj.weight": [inner, width] for one in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = [width, inner]
    shapes["lm_head.weight"] = [vocabulary, width]
    return sparse_checkpoint(folder, config, shapes, "BF16")


def gpt2(folder: Path) -> Path:
    width, vocabulary, layers = 1024, 50_000, 8
    config = {
        "model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": 8, "vocab_size": vocabulary,
        "n_positions": 64, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    }  # fmt: skip
    shapes = {"wte.weight": [vocabulary, width], "wpe.weight": [64, width]}
    for layer in range(layers):
        for name, shape in {
            "ln_1": [width], "ln_2": [width], "attn.c_attn": [width, 3 * width], "attn.c_proj": [width, width],
            "mlp.c_fc": [width, 4 * width], "mlp.c_proj": [4 * width, width],
        }.items():  # fmt: skip
            shapes |= {f"h.{layer}.{name}.weight": shape, f"h.{layer}.{name}.bias": shape[-1:]}
    shapes |= {"ln_f.weight": [width], "ln_f.bias": [width]}
    return sparse_checkpoint(folder, config, shapes, "F32")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("make", "dtype"), [(gpt2, "float16"), (llama, "int8")], ids=["float16", "int8"])
def test_export_holds_a_small_part_of_the_checkpoint_in_memory(tmp_path, make, dtype):
    checkpoint = make(tmp_path / "checkpoint")
    size = TensorFile(checkpoint / "model.safetensors").size
    assert size > 560 * MEBI
    command = [sys.executable, "-c", EXPORT, checkpoint, tmp_path / "bundle", dtype]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    grown, written = map(int, done.stdout.split())
    assert written > 0.49 * size
    assert grown < ALLOWED, f"{grown / MEBI:.0f} MiB"
