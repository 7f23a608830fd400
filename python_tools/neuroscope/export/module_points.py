"""Hook points read off the modules of a transformers model, by forward hooks, for any family.

A module is found by the tensor that it holds: the architecture file says which tensor is which part. What lies between
two modules is worked out here from what they were given and gave, as the papers define it; queries and keys are turned
by the cosines and sines of the model's own module. Not here: the inside of a mixture of experts, and the turns of a
model that has several kinds of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from neuroscope.export.architecture import Architecture, TensorRule
from neuroscope.export.decoder import decoder_of

Found = dict[str, torch.Tensor]


def mask_future(scores: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Scores of keys that their query does not see as -infinity, whatever number stood there. Shapes: … T T"""
    length = scores.shape[-1]
    hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
    if window is not None:
        hidden |= torch.ones(length, length, dtype=torch.bool).tril(-window)
    return scores.masked_fill(hidden, -math.inf)


class ModulePoints:
    """The hook points of one model; each pass starts anew."""

    def __init__(self, model: Any, architecture: Architecture) -> None:
        self._model = model
        self._architecture = architecture
        self._decoder = decoder_of(architecture)
        self._rules = {part: rule for rule in architecture.tensors() for part in rule.parts}
        self._given: Found = {}  # by part
        self._gave: Found = {}
        self._after_layer: Found = {}
        for part, rule in self._rules.items():
            module = self._module(rule)
            if module is not None:
                module.register_forward_hook(self._note(part))
        model.get_output_embeddings().register_forward_hook(self._note("unembed"))
        turning = [module for name, module in model.named_modules() if name.endswith("rotary_emb")]
        self._turns: tuple[torch.Tensor, torch.Tensor] | None = None
        if len(turning) == 1 and len(set(map(id, self._decoder.rotary))) == 1:
            turning[0].register_forward_hook(self._note_turns)
        for layer in range(architecture.layers):
            self._layer_module(layer).register_forward_hook(self._note_layer(str(layer)))

    def _module(self, rule: TensorRule) -> Any:
        if not rule.name.endswith(".weight"):
            return None
        for prefix in (*rule.prefixes, *self._architecture.declaration["tensorPrefixes"]):
            try:
                return self._model.get_submodule((prefix + rule.name).removesuffix(".weight"))
            except AttributeError:
                continue
        return None

    def _layer_module(self, layer: int) -> Any:
        rule = self._rules[f"blocks.{layer}.attn.W_O"]
        name = rule.name[: rule.name.index(f".{layer}.") + len(f".{layer}")]
        for prefix in rule.prefixes:
            try:
                return self._model.get_submodule(prefix + name)
            except AttributeError:
                continue
        raise LookupError(name)

    def _note(self, part: str) -> Any:
        def note(_: torch.nn.Module, inputs: Any, output: Any) -> None:
            if inputs:
                self._given[part] = inputs[0]
            self._gave[part] = output[0] if isinstance(output, tuple) else output

        return note

    def _note_turns(self, _: torch.nn.Module, inputs: Any, output: Any) -> None:
        self._turns = output

    def _note_layer(self, layer: str) -> Any:
        def note(_: torch.nn.Module, inputs: Any, output: Any) -> None:
            self._after_layer[layer] = output[0] if isinstance(output, tuple) else output

        return note

    def of_pass(self, tokens: torch.Tensor) -> Found:
        """Every point that can be told. Shapes: tokens B T"""
        for noted in (self._given, self._gave, self._after_layer):
            noted.clear()
        attentions = self._model(input_ids=tokens, output_attentions=True).attentions
        batch, length = tokens.shape
        seen: Found = {"unembed.hook_out": self._gave["unembed"]}  # before a cap
        seen["hook_embed"] = self._gave["embed.W_in" if "embed.W_in" in self._gave else "embed.W_E"]
        if "pos_embed.W_pos" in self._gave:
            width = self._architecture.dimensions["D"]
            seen["hook_pos_embed"] = self._gave["pos_embed.W_pos"].expand(batch, length, width)
        for layer in range(self._architecture.layers):
            self._add_layer(seen, layer, attentions[layer], batch)
        if self._decoder.has_final_norm:
            self._add_norm(seen, "ln_final", self._given["ln_final.w"])
            seen["unembed.hook_in"] = self._gave["ln_final.w"]
        if "unembed.W_out" in self._gave:
            seen["unembed.hook_in"] = self._given["unembed.W_out"]
        return seen

    def _add_norm(self, seen: Found, name: str, value: torch.Tensor) -> None:
        if self._decoder.is_centred:
            value = value - value.mean(-1, keepdim=True)
        scale = (value.square().mean(-1, keepdim=True) + self._decoder.epsilon).sqrt()  # … 1
        seen[f"{name}.hook_scale"] = scale
        seen[f"{name}.hook_normalized"] = value / scale

    def _add_layer(self, seen: Found, layer: int, pattern: torch.Tensor, batch: int) -> None:
        name, placement = f"blocks.{layer}", self._decoder.norm_placement
        given, gave = self._given, self._gave

        def rows(value: torch.Tensor) -> torch.Tensor:
            """OPT flattens rows and positions before its MLP."""
            return value.reshape(batch, -1, value.shape[-1])

        for norm in ("ln1", "ln2", "ln1_post", "ln2_post"):
            if f"{name}.{norm}.w" in given:
                self._add_norm(seen, f"{name}.{norm}", rows(given[f"{name}.{norm}.w"]))
        if placement == "after":
            seen[f"{name}.hook_resid_pre"] = given[f"{name}.attn.W_Q"]
            seen[f"{name}.hook_resid_mid"] = rows(gave[f"{name}.ln1.w"])
        else:
            seen[f"{name}.hook_resid_pre"] = given[f"{name}.ln1.w"]
            if not self._decoder.is_parallel:
                seen[f"{name}.hook_resid_mid"] = rows(given[f"{name}.ln2.w"])
        seen[f"{name}.hook_resid_post"] = self._after_layer[str(layer)]
        self._add_attention(seen, f"{name}.attn", pattern, layer)
        written = gave[f"{name}.attn.W_O"]
        seen[f"{name}.attn.hook_out"] = written
        seen[f"{name}.hook_attn_out"] = gave[f"{name}.ln1_post.w"] if placement == "both" else written
        if self._decoder.experts:
            return
        before = f"{name}.mlp.W_gate" if self._decoder.is_gated else f"{name}.mlp.W_in"
        seen[f"{name}.mlp.hook_pre"] = rows(self._dealt(before))
        if self._decoder.is_gated:
            seen[f"{name}.mlp.hook_pre_linear"] = self._dealt(f"{name}.mlp.W_in")
        seen[f"{name}.mlp.hook_post"] = rows(given[f"{name}.mlp.W_out"])
        written = rows(gave[f"{name}.mlp.W_out"])
        seen[f"{name}.mlp.hook_out"] = written
        seen[f"{name}.hook_mlp_out"] = gave[f"{name}.ln2_post.w"] if placement == "both" else written

    def _add_attention(self, seen: Found, name: str, pattern: torch.Tensor, layer: int) -> None:
        width, decoder = self._architecture.dimensions["K"], self._decoder
        for letter in "qkv":
            flat = self._dealt(f"{name}.W_{letter.upper()}")
            seen[f"{name}.hook_{letter}"] = flat.reshape(*flat.shape[:2], -1, width)  # B T heads K
        for letter in "qk" if decoder.norms_queries else "":
            norm = f"{name}.{letter}_norm"
            self._add_norm(seen, norm, seen[f"{name}.hook_{letter}"].transpose(1, 2))
            normed = self._gave[f"{norm}.w"]
            by_heads = normed.shape[1] == seen[f"{norm}.hook_scale"].shape[1] and normed.shape[2] == flat.shape[1]
            seen[f"{name}.hook_{letter}_normed"] = normed if by_heads else normed.transpose(1, 2)  # B heads T K
        seen[f"{name}.hook_pattern"] = pattern
        z = self._given[f"{name}.W_O"]
        seen[f"{name}.hook_z"] = z.reshape(*z.shape[:2], -1, width)  # B T H K
        query, key = (
            seen[f"{name}.hook_{letter}_normed"].transpose(1, 2)
            if decoder.norms_queries
            else seen[f"{name}.hook_{letter}"]
            for letter in "qk"
        )
        if self._turns is not None:
            query, key = self._turned(query), self._turned(key)
            seen[f"{name}.hook_rot_q"], seen[f"{name}.hook_rot_k"] = query, key
        if (self._turns is not None or not decoder.rotary) and decoder.attention_cap is None:
            key = key.repeat_interleave(query.shape[2] // key.shape[2], dim=2)
            scores = torch.einsum("bqhk,bthk->bhqt", query, key)  # B H T T
            seen[f"{name}.hook_attn_scores"] = mask_future(scores / decoder.score_divisor, decoder.windows[layer])

    def _turned(self, value: torch.Tensor) -> torch.Tensor:
        """Pairs (i, i + R/2) of each head's first R numbers. Shapes: B T heads K ► the same"""
        assert self._turns is not None
        half = self._decoder.turned // 2
        cosines, sines = (each[..., None, :half] for each in self._turns)  # B T 1 R/2
        one, other, rest = value[..., :half], value[..., half : 2 * half], value[..., 2 * half :]
        return torch.cat([one * cosines - other * sines, other * cosines + one * sines, rest], dim=-1)

    def _dealt(self, part: str) -> torch.Tensor:
        """What the module that holds a part gave, as far as it is that part's."""
        value, rule = self._gave[part], self._rules[part]
        if len(rule.parts) == 1:
            return value
        grouped = value.reshape(*value.shape[:-1], -1, sum(rule.sizes))
        start = sum(rule.sizes[: rule.parts.index(part)])
        return grouped[..., start : start + rule.sizes[rule.parts.index(part)]].flatten(-2)
