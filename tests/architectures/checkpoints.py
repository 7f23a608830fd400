"""Random-weight checkpoints of every family: odd shapes, every kind of layer, as Hugging Face writes them.

The weights have a standard deviation of 0.2: with the usual 0.02 a wrong activation or epsilon would hide.
A family has one function; what it yields are the settings that change what is computed.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull)

import numpy as np
import torch
import transformers

transformers.utils.logging.disable_progress_bar()

Settings = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A folder as Hugging Face writes it, and a batch of token ids that fits it."""

    name: str
    folder: Path
    tokens: list[list[int]]

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        return config

    def model(self) -> Any:
        """The model of transformers that the checkpoint was made with, in float32 and with attention in the open."""
        kind = getattr(transformers, self.config["architectures"][0])
        return kind.from_pretrained(self.folder, attn_implementation="eager", dtype=torch.float32).eval()

    def logits(self) -> np.ndarray:
        return self._logits

    @cached_property
    def _logits(self) -> np.ndarray:
        with torch.no_grad():
            result: np.ndarray = self.model()(torch.tensor(self.tokens)).logits.numpy()
        return result


def boot_bridge(checkpoint: Checkpoint) -> Any:
    """TransformerLens's bridge of a checkpoint, which has no tokenizer of its own."""
    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge

    folder = checkpoint.folder / "tokenizer"
    vocabulary = models.WordLevel({"a": 0, "b": 1}, unk_token="a")
    special = {f"{name}_token": "a" for name in ("bos", "eos", "pad")}
    transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), **special).save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TransformerBridge.boot_transformers(
            str(checkpoint.folder),
            device="cpu",
            dtype=torch.float32,
            tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        )


@dataclass(frozen=True)
class Recipe:
    """What a checkpoint is made from: classes of transformers by name, the settings, rows and positions of tokens."""

    config: str
    model: str
    settings: Settings
    tokens: tuple[int, int] = (2, 11)


def _gpt2() -> Iterator[tuple[str, Recipe]]:
    shape = {"vocab_size": 61, "n_positions": 13, "n_embd": 18, "n_layer": 2, "n_head": 3, "n_inner": 22}
    yield "gpt2", Recipe("GPT2Config", "GPT2LMHeadModel", {**shape, "bos_token_id": 0, "eos_token_id": 0})


def _gpt_neo() -> Iterator[tuple[str, Recipe]]:
    shape = {"vocab_size": 53, "max_position_embeddings": 14, "hidden_size": 20, "num_layers": 3, "num_heads": 4}
    attention = {"attention_types": [[["global", "local"], 1], [["local"], 1]], "window_size": 4}
    yield "gpt_neo", Recipe("GPTNeoConfig", "GPTNeoForCausalLM", {**shape, **attention, "intermediate_size": 27})


def _gpt_neox() -> Iterator[tuple[str, Recipe]]:
    shape = {
        "vocab_size": 57, "max_position_embeddings": 20, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 3, "intermediate_size": 37,
    }  # fmt: skip
    kind = ("GPTNeoXConfig", "GPTNeoXForCausalLM")
    yield "gpt_neox", Recipe(*kind, shape)
    sequential = {
        "use_parallel_residual": False, "tie_word_embeddings": True, "hidden_act": "gelu_new",
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0},
    }  # fmt: skip
    yield "gpt_neox_sequential", Recipe(*kind, {**shape, **sequential})
    yield "gpt_neox_plain", Recipe(*kind, {**shape, "attention_bias": False})


def _opt() -> Iterator[tuple[str, Recipe]]:
    shape = {
        "vocab_size": 59, "max_position_embeddings": 17, "hidden_size": 18, "num_hidden_layers": 2,
        "num_attention_heads": 3, "ffn_dim": 29, "word_embed_proj_dim": 18,
    }  # fmt: skip
    kind = ("OPTConfig", "OPTForCausalLM")
    yield "opt", Recipe(*kind, shape)
    # What opt-350m alone has.
    yield "opt_after", Recipe(*kind, {**shape, "do_layer_norm_before": False, "word_embed_proj_dim": 12})


def _rotary(**more: Any) -> Settings:
    """Grouped heads whose width is not the model's width over their count."""
    return {
        "vocab_size": 67, "max_position_embeddings": 40, "hidden_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 26,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **more,
    }  # fmt: skip


def _llama() -> Iterator[tuple[str, Recipe]]:
    kind = ("LlamaConfig", "LlamaForCausalLM")
    yield "llama", Recipe(*kind, _rotary())
    scaled = {
        "rope_type": "llama3", "rope_theta": 300.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    biased = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "rms_norm_eps": 1e-2}
    yield "llama_scaled", Recipe(*kind, _rotary(rope_parameters=scaled, **biased))
    linear = {"rope_type": "linear", "rope_theta": 100.0, "factor": 3.0}
    yield "llama_linear", Recipe(*kind, _rotary(rope_parameters=linear, num_key_value_heads=6))
    yarn = {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 8}
    yield "llama_yarn", Recipe(*kind, _rotary(rope_parameters=yarn))


def _mistral() -> Iterator[tuple[str, Recipe]]:
    yield "mistral", Recipe("MistralConfig", "MistralForCausalLM", _rotary(sliding_window=4))


def _qwen2() -> Iterator[tuple[str, Recipe]]:
    kind = ("Qwen2Config", "Qwen2ForCausalLM")
    shape = _rotary()
    shape.pop("head_dim")
    yield "qwen2", Recipe(*kind, {**shape, "tie_word_embeddings": True})
    windows = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "num_hidden_layers": 3}
    yield "qwen2_sliding", Recipe(*kind, {**shape, **windows})


def _qwen3() -> Iterator[tuple[str, Recipe]]:
    yield "qwen3", Recipe("Qwen3Config", "Qwen3ForCausalLM", _rotary(tie_word_embeddings=True))


def _phi3() -> Iterator[tuple[str, Recipe]]:
    kind = ("Phi3Config", "Phi3ForCausalLM")
    shape = _rotary(hidden_size=48, num_attention_heads=6, original_max_position_embeddings=40)
    shape.pop("head_dim")
    partial = {"rope_type": "default", "rope_theta": 400.0, "partial_rotary_factor": 0.5}
    yield "phi3", Recipe(*kind, {**shape, "rope_parameters": partial, "sliding_window": 5})
    long = {
        "rope_type": "longrope", "rope_theta": 400.0, "partial_rotary_factor": 1.0,
        "short_factor": [1.0, 1.25, 1.5, 2.0], "long_factor": [1.5, 2.0, 3.0, 5.0],
        "original_max_position_embeddings": 16,
    }  # fmt: skip
    yield "phi3_long", Recipe(*kind, {**shape, "rope_parameters": long, "original_max_position_embeddings": 16})


def _gemma2() -> Iterator[tuple[str, Recipe]]:
    caps = {"query_pre_attn_scalar": 7, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
    settings = _rotary(num_hidden_layers=3, sliding_window=4, **caps)
    kind = ("Gemma2Config", "Gemma2ForCausalLM")
    yield "gemma2", Recipe(*kind, settings)
    # A field that is null means none, where a missing one means a cap.
    yield "gemma2_uncapped", Recipe(*kind, _rotary(attn_logit_softcapping=None, final_logit_softcapping=None))


def _gemma3_text_settings() -> Settings:
    rotary = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
    }
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    return _rotary(
        num_hidden_layers=3, sliding_window=4, query_pre_attn_scalar=9, rope_parameters=rotary, layer_types=layers
    )


def _gemma3() -> Iterator[tuple[str, Recipe]]:
    yield "gemma3_text", Recipe("Gemma3TextConfig", "Gemma3ForCausalLM", _gemma3_text_settings())
    vision = {
        "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14, "vision_use_head": False,
    }  # fmt: skip
    settings = {
        "text_config": {**_gemma3_text_settings(), "vocab_size": 71}, "vision_config": vision,
        "mm_tokens_per_image": 4, "boi_token_index": 68, "eoi_token_index": 69, "image_token_index": 70,
    }  # fmt: skip
    yield "gemma3", Recipe("Gemma3Config", "Gemma3ForConditionalGeneration", settings)


def _gpt_oss() -> Iterator[tuple[str, Recipe]]:
    yarn = {
        "rope_type": "yarn", "rope_theta": 150.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "truncate": False, "original_max_position_embeddings": 8,
    }  # fmt: skip
    settings = _rotary(
        num_hidden_layers=2, sliding_window=4, num_local_experts=5, num_experts_per_tok=2, rope_parameters=yarn,
        intermediate_size=28,  # PyTorch's grouped product wants rows of whole 16 bytes
        swiglu_limit=0.6,  # so low that it clamps
    )  # fmt: skip
    yield "gpt_oss", Recipe("GptOssConfig", "GptOssForCausalLM", settings)


_FAMILIES: tuple[Callable[[], Iterator[tuple[str, Recipe]]], ...] = (
    _gpt2, _gpt_neo, _gpt_neox, _opt, _llama, _mistral, _qwen2, _qwen3, _phi3, _gemma2, _gemma3, _gpt_oss,
)  # fmt: skip

RECIPES: dict[str, Recipe] = {name: recipe for family in _FAMILIES for name, recipe in family()}


def make_checkpoint(folder: Path, name: str, *, seed: int = 0, **changes: Any) -> Checkpoint:
    """Writes the checkpoint `name` of RECIPES into a folder, with other settings where they are given."""
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    config = getattr(transformers, recipe.config)(**{**recipe.settings, **changes})
    model = getattr(transformers, recipe.model)(config)
    is_gemma = name.startswith("gemma")
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            is_scale = "norm" in parameter_name.replace("ln_", "norm") and parameter_name.endswith("weight")
            parameter.normal_(1 if is_scale and not is_gemma else 0, 0.2)
    model.save_pretrained(folder)
    rows, positions = recipe.tokens
    # The last ids may stand for images.
    count = model.get_input_embeddings().weight.shape[0] - (3 if name == "gemma3" else 0)
    return Checkpoint(name, folder, torch.randint(0, count, (rows, positions)).tolist())
