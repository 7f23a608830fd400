"""What mlx-lm wants in a checkpoint's config.json, from what transformers writes there; and what it can't do.

mlx-lm reads the fields that older versions of transformers wrote, and ignores what its models have not: a setting that
would be ignored is refused here by name. A sliding window that a family's model has not is no refusal: within the
window it changes nothing, so the model gets as many positions as the window is wide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from neuroscope.errors import LabError

Config = Mapping[str, Any]
Changes = dict[str, Any]


@dataclass(frozen=True)
class Translated:
    """The fields to change, and how many positions come out right."""

    changes: Changes
    positions: int


class _Refused(Exception):
    """A setting, its value, and what mlx-lm has instead."""


def translate(config: Config, name: str) -> Translated:
    """Raises: LabError for a family or a setting that mlx-lm computes otherwise, or not at all."""
    text = {**config, **config["text_config"]} if isinstance(config.get("text_config"), Mapping) else dict(config)
    family = str(text.get("model_type"))
    try:
        if family not in _FAMILIES:
            raise _Refused("model_type", family, f"one of {', '.join(sorted(_FAMILIES))}")
        changes, window = _FAMILIES[family](text)
    except _Refused as refused:
        setting, value, allowed = refused.args
        raise LabError(
            f"{name} can't be computed by the MLX engine as it is meant: its {setting} is {value!r}, and mlx-lm takes "
            f"{allowed}. Start the lab with --engine torch for it.",
            code="model_not_loadable",
            parameter="model",
        ) from None
    positions = int(text.get("max_position_embeddings") or text.get("n_positions") or text["n_ctx"])
    return Translated(changes, positions if window is None else min(positions, window))


def _need(text: Config, setting: str, *allowed: Any, default: Any = None) -> None:
    value = text.get(setting, default)
    if value not in allowed:
        raise _Refused(setting, value, " or ".join(repr(each) for each in allowed))


def _rotary(text: Config, *kinds: str, section: Config | None = None) -> Changes:
    """`rope_theta` and `rope_scaling` from `rope_parameters`, or as they are where they are still written."""
    parameters = dict(section or text.get("rope_parameters") or text.get("rope_scaling") or {})
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    if kind not in ("default", *kinds):
        raise _Refused("rope_parameters.rope_type", kind, " or ".join(repr(each) for each in ("default", *kinds)))
    if kind == "yarn":
        for setting, allowed in (("attention_factor", (None,)), ("truncate", (None, True))):
            if parameters.get(setting) not in allowed:
                raise _Refused(f"rope_parameters.{setting}", parameters[setting], "no such setting")
    theta = parameters.pop("rope_theta", None) or text.get("rope_theta") or 10000.0
    return {"rope_theta": float(theta), "rope_scaling": None if kind == "default" else {**parameters, "type": kind}}


def _whole_rotary(text: Config) -> None:
    partial = (text.get("rope_parameters") or {}).get("partial_rotary_factor") or text.get("partial_rotary_factor")
    if partial not in (None, 1.0):
        raise _Refused("partial_rotary_factor", partial, "1.0")


def _window(text: Config) -> int | None:
    """Of a family whose model in mlx-lm has none."""
    kinds = text.get("layer_types")
    slides = text.get("use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds)
    width = text.get("sliding_window")
    return int(width) if slides and width else None


def _llama(text: Config) -> tuple[Changes, int | None]:
    _need(text, "hidden_act", "silu", default="silu")
    _whole_rotary(text)
    # With `layer_types` mlx-lm slides; it wants a layer of full attention among them then.
    full = ["full_attention"] * int(text["num_hidden_layers"])
    return {**_rotary(text, "linear", "llama3", "yarn"), "layer_types": full}, _window(text)


def _qwen2(text: Config) -> tuple[Changes, int | None]:
    _need(text, "hidden_act", "silu", default="silu")
    _whole_rotary(text)
    own = text["hidden_size"] // text["num_attention_heads"]
    _need(text, "head_dim", own, None)
    return _rotary(text, "linear", "llama3", "yarn"), _window(text)


def _qwen3(text: Config) -> tuple[Changes, int | None]:
    _need(text, "hidden_act", "silu", default="silu")
    _need(text, "attention_bias", False, default=False)
    _whole_rotary(text)
    return _rotary(text, "linear", "llama3", "yarn"), _window(text)


def _phi3(text: Config) -> tuple[Changes, int | None]:
    _need(text, "hidden_act", "silu", default="silu")
    own = text["hidden_size"] // text["num_attention_heads"]
    _need(text, "head_dim", own, None)
    partial = (text.get("rope_parameters") or {}).get("partial_rotary_factor") or text.get("partial_rotary_factor")
    # Its longrope takes the long factors at every length, where the short ones belong to short texts.
    return {**_rotary(text), "partial_rotary_factor": float(partial or 1.0)}, _window(text)


def _gemma2(text: Config) -> tuple[Changes, int | None]:
    _need_gemma(text)
    for setting in ("attn_logit_softcapping", "final_logit_softcapping"):
        if setting in text and not text[setting]:
            raise _Refused(setting, text[setting], "a number")
    return _rotary(text), _window(text)


def _gemma3(text: Config) -> tuple[Changes, int | None]:
    _need_gemma(text)
    _need(text, "attn_logit_softcapping", None)
    _need(text, "final_logit_softcapping", None)
    _need(text, "use_bidirectional_attention", False, None)
    kinds = text.get("layer_types")
    pattern = text.get("sliding_window_pattern") or 6
    if kinds is not None:
        pattern = kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1
        every = ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(len(kinds))]
        if pattern > len(kinds) or kinds != every:
            raise _Refused("layer_types", kinds, "full attention in every n-th layer")
    sections = text.get("rope_parameters") or {}
    if "full_attention" in sections:
        whole = _rotary(text, "linear", section=sections["full_attention"])
        local = _rotary(text, section=sections["sliding_attention"])["rope_theta"]
    else:
        whole = _rotary(text, "linear")
        local = text.get("rope_local_base_freq") or 10000.0
    needed = {name: text[name] for name in _GEMMA3_FIELDS if name in text}
    # A checkpoint that also reads images is opened as its text part.
    changes = {**needed, **whole, "rope_local_base_freq": float(local), "sliding_window_pattern": int(pattern)}
    return {**changes, "model_type": "gemma3_text"}, None


_GEMMA3_FIELDS = (
    "hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "head_dim", "rms_norm_eps",
    "vocab_size", "num_key_value_heads", "query_pre_attn_scalar", "sliding_window", "max_position_embeddings",
)  # fmt: skip


def _need_gemma(text: Config) -> None:
    act = "hidden_activation" if text.get("hidden_activation") else "hidden_act"
    _need(text, act, "gelu_pytorch_tanh", default="gelu_pytorch_tanh")
    _need(text, "attention_bias", False, default=False)


def _gpt2(text: Config) -> tuple[Changes, int | None]:
    _need(text, "activation_function", *ACTIVATIONS, default="gelu_new")
    _need(text, "n_inner", None, 4 * int(text["n_embd"]))
    _need(text, "scale_attn_weights", True, default=True)
    _need(text, "scale_attn_by_inverse_layer_idx", False, default=False)
    _need(text, "add_cross_attention", False, default=False)
    _need(text, "tie_word_embeddings", True, default=True)
    return {"n_ctx": text["n_positions"]}, None


def _gpt_neox(text: Config) -> tuple[Changes, int | None]:
    _need(text, "hidden_act", *ACTIVATIONS, default="gelu")
    _need(text, "intermediate_size", 4 * int(text["hidden_size"]))
    _need(text, "attention_bias", True, default=True)
    _need(text, "tie_word_embeddings", False, default=False)
    parameters = text.get("rope_parameters") or {}
    part = parameters.get("partial_rotary_factor") or text.get("rotary_pct") or 0.25
    base = _rotary({"rope_theta": text.get("rotary_emb_base"), **text})["rope_theta"]
    return {"rotary_emb_base": base, "rotary_pct": float(part)}, None


# Of the two families whose feed-forward part is put in anew where mlx-lm's activation is another (mlx_seams.Feed).
ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh", "gelu", "relu", "silu")

_FAMILIES: dict[str, Callable[[Config], tuple[Changes, int | None]]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "phi3": _phi3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
