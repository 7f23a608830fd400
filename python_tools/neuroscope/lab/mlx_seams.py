"""Hook points inside a model of mlx-lm: modules wrapped where TransformerLens has a name, and attention taken apart.

mlx-lm's models have no hooks, so a module is put in the place of each one that reads or writes a point. A pass leaves
itself in `Points.active`; without one, or without interest in a name, a wrapper only calls what it wraps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

# What the families call the parts of a block; the first that is there counts.
ATTENTION = ("self_attn", "attn", "attention")
FIRST_NORM = ("input_layernorm", "ln_1")
SECOND_NORM = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2")
OUTPUT = ("o_proj", "c_proj", "dense", "out_proj")
GATE = ("gate_proj",)
LINEAR = ("up_proj",)
INNER = ("c_fc", "dense_h_to_4h", "fc1")
DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc2")
EMBEDDING = ("embed_tokens", "wte", "embed_in")
FINAL_NORM = ("norm", "ln_f", "final_layer_norm")

Visit = Callable[[str, Any], Any]


class Points:
    """The names that a model has, and the pass that looks at them now."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.active: Visit | None = None
        self.wanted: frozenset[str] = frozenset()

    def add(self, name: str) -> str:
        self.names.append(name)
        return name

    def visit(self, name: str | None, value: Any, shape: tuple[int, ...] | None = None) -> Any:
        """The value that the model goes on with. `shape` is the point's, where it is another than the module's."""
        if name is None or self.active is None or name not in self.wanted:
            return value
        if shape is None:
            return self.active(name, value)
        return self.active(name, value.reshape(shape)).reshape(value.shape)


class Seam(nn.Module):
    """A module whose input and output are points."""

    def __init__(self, inner: Any, points: Points, *, reads: str | None = None, writes: str | None = None) -> None:
        super().__init__()
        self.inner = inner
        self._points = points
        self._reads = reads
        self._writes = writes

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        made = self.inner(self._points.visit(self._reads, x), *more, **options)
        return self._points.visit(self._writes, made)

    def __getattr__(self, name: str) -> Any:
        """Models look into their parts: at a layer's kind, at an embedding's weight."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "inner" not in self:
                raise  # it is being made
            return getattr(self["inner"], name)


class HeadSeam(Seam):
    """A projection whose output, or input, is a row of heads. Shapes: B T H*K, as a point B T H K"""

    def __init__(self, inner: Any, points: Points, width: int, **names: str | None) -> None:
        super().__init__(inner, points, **names)
        self._width = width

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        points, width = self._points, self._width
        made = self.inner(points.visit(self._reads, x, (*x.shape[:-1], -1, width)), *more, **options)
        return points.visit(self._writes, made, (*made.shape[:-1], -1, width))


class NormSeam(Seam):
    """A norm with its scale and its normalized rows as points, before weight and bias."""

    def __init__(self, inner: Any, points: Points, name: str, *, reads: str | None = None) -> None:
        super().__init__(inner, points, reads=reads)
        self._scale = points.add(f"{name}.hook_scale")
        self._normalized = points.add(f"{name}.hook_normalized")

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        points = self._points
        x = points.visit(self._reads, x)
        if points.active is None or not points.wanted & {self._scale, self._normalized}:
            return self.inner(x)
        norm = self.inner
        centred = x - x.mean(-1, keepdims=True) if isinstance(norm, nn.LayerNorm) else x
        scale = points.visit(self._scale, mx.sqrt((centred * centred).mean(-1, keepdims=True) + norm.eps))
        rows = points.visit(self._normalized, centred / scale)
        weight = norm.weight if isinstance(norm, nn.LayerNorm | nn.RMSNorm) else 1.0 + norm.weight
        made = rows * weight
        return made + norm.bias if "bias" in norm else made


def open_seams(model: Any, width: int) -> Points:
    """Wraps what is known of a model; answers its points."""
    points = Points()
    body = body_of(model)
    _replace(body, EMBEDDING, lambda inner: Seam(inner, points, writes=points.add("hook_embed")))
    layers = next(body[name] for name in ("layers", "h") if name in body)
    for number, block in enumerate(layers):
        _open_block(block, f"blocks.{number}", points, width)
        layers[number] = Seam(
            block,
            points,
            reads=points.add(f"blocks.{number}.hook_resid_pre"),
            writes=points.add(f"blocks.{number}.hook_resid_post"),
        )
    _replace(body, FINAL_NORM, lambda inner: NormSeam(inner, points, "ln_final"))
    _open_attention(model, points, len(layers))
    return points


def body_of(model: Any) -> Any:
    """The part that has the embedding, the layers and the final norm."""
    return next((model[name] for name in ("model", "transformer") if name in model), model)


def _open_block(block: Any, name: str, points: Points, width: int) -> None:
    attention = _part(block, ATTENTION)
    mlp = block["mlp"]
    sandwich = "post_feedforward_layernorm" in block
    for letter in "qkv":
        writes = f"{name}.attn.hook_{letter}"
        _replace(
            attention,
            (f"{letter}_proj",),
            lambda inner, writes=writes: HeadSeam(inner, points, width, writes=points.add(writes)),
        )
    _replace(attention, OUTPUT, lambda inner: HeadSeam(inner, points, width, reads=points.add(f"{name}.attn.hook_z")))
    gated = any(each in mlp for each in GATE)
    _replace(
        mlp, GATE if gated else INNER, lambda inner: Seam(inner, points, writes=points.add(f"{name}.mlp.hook_pre"))
    )
    if gated:
        _replace(mlp, LINEAR, lambda inner: Seam(inner, points, writes=points.add(f"{name}.mlp.hook_pre_linear")))
    _replace(mlp, DOWN, lambda inner: Seam(inner, points, reads=points.add(f"{name}.mlp.hook_post")))
    attention_out, mlp_out = points.add(f"{name}.hook_attn_out"), points.add(f"{name}.hook_mlp_out")
    if sandwich:
        block.post_attention_layernorm = Seam(block.post_attention_layernorm, points, writes=attention_out)
        block.post_feedforward_layernorm = Seam(block.post_feedforward_layernorm, points, writes=mlp_out)
    else:
        _replace(block, ATTENTION, lambda inner: Seam(inner, points, writes=attention_out))
        block.mlp = Seam(mlp, points, writes=mlp_out)
    _replace(block, FIRST_NORM, lambda inner: NormSeam(inner, points, f"{name}.ln1"))
    if not getattr(block, "use_parallel_residual", False):
        middle = points.add(f"{name}.hook_resid_mid")
        _replace(block, SECOND_NORM, lambda inner: NormSeam(inner, points, f"{name}.ln2", reads=middle))


def _part(block: Any, names: tuple[str, ...]) -> Any:
    return next(block[name] for name in names if name in block)


def _replace(parent: Any, names: tuple[str, ...], wrap: Callable[[Any], Any]) -> None:
    """Puts a wrapper in the place of the first of the parts that is there."""
    for name in names:
        if name in parent:
            setattr(parent, name, wrap(parent[name]))
            return


def _open_attention(model: Any, points: Points, layers: int) -> None:
    """The families that call mlx-lm's attention function by that name get one with points inside.

    It is told no layer, so it counts: a pass calls it once a layer, in order.
    """
    module = sys.modules[type(model).__module__]
    plain = getattr(module, "scaled_dot_product_attention", None)
    if plain is None:
        return
    plain = getattr(plain, "plain", plain)
    names = [
        (points.add(f"blocks.{layer}.attn.hook_attn_scores"), points.add(f"blocks.{layer}.attn.hook_pattern"))
        for layer in range(layers)
    ]
    calls = {"made": 0}

    def attention(queries: Any, keys: Any, values: Any, cache: Any = None, **options: Any) -> Any:
        owner = attention.points  # type: ignore[attr-defined]  # of the model that runs
        layer = calls["made"] % layers
        calls["made"] += 1
        if owner.active is None or not owner.wanted & set(names[layer]):
            return plain(queries, keys, values, cache=cache, **options)
        return _attend(owner, names[layer], queries, keys, values, **options)

    attention.plain = plain  # type: ignore[attr-defined]
    attention.points = points  # type: ignore[attr-defined]
    module.scaled_dot_product_attention = attention  # type: ignore[attr-defined]


def _attend(
    points: Points,
    names: tuple[str, str],
    queries: Any,
    keys: Any,
    values: Any,
    scale: float,
    mask: Any = None,
    sinks: Any = None,
) -> Any:
    """Softmax attention in its steps. Shapes: B H T K, B KV S K ► B H T K"""
    repeats = queries.shape[1] // keys.shape[1]
    keys, values = mx.repeat(keys, repeats, axis=1), mx.repeat(values, repeats, axis=1)
    scores = (queries * scale) @ keys.transpose(0, 1, 3, 2)  # B H T S
    length, total = scores.shape[-2:]
    if isinstance(mask, str):
        mask = mx.arange(total)[None, :] <= mx.arange(total - length, total)[:, None]
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf) if mask.dtype == mx.bool_ else scores + mask
    scores = points.visit(names[0], scores)
    if sinks is None:
        pattern = mx.softmax(scores, axis=-1, precise=True)
    else:
        extra = mx.broadcast_to(sinks.reshape(1, -1, 1, 1), (*scores.shape[:-1], 1))
        pattern = mx.softmax(mx.concatenate([scores, extra], -1), axis=-1, precise=True)[..., :-1]
    return points.visit(names[1], pattern) @ values
