"""Hook points inside a model of mlx-lm: modules wrapped where TransformerLens has a name, and attention taken apart.

mlx-lm's models have no hooks, so a module is put in the place of each one that reads or writes a point. A pass leaves
itself in `Points.active`; without one, or without interest in a name, a wrapper only calls what it wraps.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
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
JOINED = ("c_attn", "qkv_proj", "query_key_value")
GATE_AND_LINEAR = ("gate_up_proj",)
EMBEDDING = ("embed_tokens", "wte", "embed_in")
FINAL_NORM = ("norm", "ln_f", "final_layer_norm")

Visit = Callable[[str, Any], Any]


class Points:
    """The names that a model has, and the pass that looks at them now."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.active: Visit | None = None
        self.wanted: frozenset[str] = frozenset()
        self.added: Any = None  # to the stream in the middle of the block that is being computed

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


class JoinedSeam(Seam):
    """A projection that makes several points at once, side by side: queries, keys and values, or gate and linear part.

    Shapes: B T (sum of the parts), as points B T H K of each part where `width` is given, else B T F
    """

    def __init__(
        self, inner: Any, points: Points, names: Sequence[str], sizes: Sequence[int], *, width: int | None, mixed: bool
    ) -> None:
        super().__init__(inner, points)
        self._names = [points.add(name) for name in names]
        self._sizes = list(sizes)
        self._width = width
        self._mixed = mixed  # GPT-NeoX has them side by side within each head

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        points = self._points
        made = self.inner(x, *more, **options)
        if points.active is None or not points.wanted.intersection(self._names):
            return made
        rows = made.shape[:-1]
        if self._mixed:
            by_head = made.reshape(*rows, -1, 3, self._width)  # B T H 3 K
            parts = [points.visit(name, by_head[..., i, :]) for i, name in enumerate(self._names)]
            return mx.stack(parts, axis=-2).reshape(made.shape)
        ends = [sum(self._sizes[: i + 1]) for i in range(len(self._sizes) - 1)]
        split = mx.split(made, ends, axis=-1)
        shape = (*rows, -1) if self._width is None else (*rows, -1, self._width)
        return mx.concatenate(
            [points.visit(name, part, shape) for name, part in zip(self._names, split, strict=True)], axis=-1
        )


class EmbeddingSeam(Seam):
    """An embedding whose rows the model multiplies by `theirs`, where the point, and the right model, has `factor`."""

    def __init__(self, inner: Any, points: Points, factor: float, theirs: float) -> None:
        super().__init__(inner, points, writes=points.add("hook_embed"))
        self._factor = factor
        self._theirs = theirs

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        rows = self.inner(x, *more, **options)
        return self._points.visit(self._writes, rows * self._factor) / self._theirs


class PositionSeam(Seam):
    """The table of positions, whose rows are all texts' alike. Shapes: T D, as a point 1 T D"""

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        made = self.inner(x, *more, **options)
        return self._points.visit(self._writes, made, (1, *made.shape[-2:]))


class Feed(nn.Module):
    """The feed-forward part of GPT-2 and GPT-NeoX with the activation that the configuration names."""

    def __init__(self, inner: Any, activation: str) -> None:
        super().__init__()
        for name in (*INNER, *DOWN):
            if name in inner:
                setattr(self, name, inner[name])
        self._activation = _ACTIVATIONS[activation]

    def __call__(self, x: Any) -> Any:
        return _part(self, DOWN)(self._activation(_part(self, INNER)(x)))


_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
}


class NormSeam(Seam):
    """A norm with its scale and its normalized rows as points, before weight and bias.

    The stream itself goes past the norm: a change in its `middle` is left for the block's seam to add.
    """

    def __init__(self, inner: Any, points: Points, name: str, *, middle: str | None = None) -> None:
        super().__init__(inner, points)
        self._middle = middle
        self._scale = points.add(f"{name}.hook_scale")
        self._normalized = points.add(f"{name}.hook_normalized")

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        points = self._points
        stream = x
        x = points.visit(self._middle, stream)
        if x is not stream:
            points.added = x - stream
        if points.active is None or not points.wanted & {self._scale, self._normalized}:
            return self.inner(x)
        norm = self.inner
        centred = x - x.mean(-1, keepdims=True) if isinstance(norm, nn.LayerNorm) else x
        scale = points.visit(self._scale, mx.sqrt((centred * centred).mean(-1, keepdims=True) + norm.eps))
        rows = points.visit(self._normalized, centred / scale)
        weight = norm.weight if isinstance(norm, nn.LayerNorm | nn.RMSNorm) else 1.0 + norm.weight
        made = rows * weight
        return made + norm.bias if "bias" in norm else made


class BlockSeam(Seam):
    """A block: at its end the stream gets what was added to it in its middle."""

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        points = self._points
        points.added = None
        made = self.inner(points.visit(self._reads, x), *more, **options)
        if points.added is not None:
            made = made + points.added
        return points.visit(self._writes, made)


def open_seams(model: Any, config: dict[str, Any]) -> Points:
    """Wraps what is known of a model; answers its points."""
    points = Points()
    body = body_of(model)
    width = int(_first(config, "hidden_size", "n_embd"))
    heads = int(_first(config, "num_attention_heads", "n_head"))
    head = int(config.get("head_dim") or width // heads)
    root = width**0.5
    # Gemma 3's factor is rounded to bfloat16 by mlx-lm, whatever the weights' type is.
    rounded = float(mx.array(root, mx.bfloat16).astype(mx.float32))
    factors = {"gemma2": (root, root), "gemma3_text": (root, rounded)}.get(model.model_type)
    if factors is None:
        _replace(body, EMBEDDING, lambda inner: Seam(inner, points, writes=points.add("hook_embed")))
    else:
        _replace(body, EMBEDDING, lambda inner: EmbeddingSeam(inner, points, *factors))
    if "wpe" in body:
        body.wpe = PositionSeam(body.wpe, points, writes=points.add("hook_pos_embed"))
    layers = next(body[name] for name in ("layers", "h") if name in body)
    activation = str(config.get("activation_function") or config.get("hidden_act"))
    module = sys.modules[type(model).__module__]
    has_attention = _open_attention(module)
    for number, block in enumerate(layers):
        name = f"blocks.{number}"
        if model.model_type in ("gpt2", "gpt_neox"):
            block.mlp = Feed(block.mlp, activation)
        _open_attention_part(block, name, points, head, heads, inside=has_attention)
        _open_feed(block, name, points)
        _open_norms(block, name, points)
        reads, writes = points.add(f"{name}.hook_resid_pre"), points.add(f"{name}.hook_resid_post")
        layers[number] = BlockSeam(block, points, reads=reads, writes=writes)
    _replace(body, FINAL_NORM, lambda inner: NormSeam(inner, points, "ln_final"))
    return points


def body_of(model: Any) -> Any:
    """The part that has the embedding, the layers and the final norm."""
    return next((model[name] for name in ("model", "transformer") if name in model), model)


def _first(config: dict[str, Any], *names: str) -> Any:
    return next(config[name] for name in names if config.get(name) is not None)


def _open_attention_part(block: Any, name: str, points: Points, head: int, heads: int, *, inside: bool) -> None:
    attention = _part(block, ATTENTION)
    qkv = [f"{name}.attn.hook_{letter}" for letter in "qkv"]
    joined = next((part for part in JOINED if part in attention), None)
    if joined is None:
        for letter, writes in zip("qkv", qkv, strict=True):
            inner = attention[f"{letter}_proj"]
            attention[f"{letter}_proj"] = HeadSeam(inner, points, head, writes=points.add(writes))
    else:
        keys = getattr(attention, "n_kv_heads", heads)
        sizes = [heads * head, keys * head, keys * head]
        mixed = joined == "query_key_value"
        attention[joined] = JoinedSeam(attention[joined], points, qkv, sizes, width=head, mixed=mixed)
    _replace(attention, OUTPUT, lambda inner: HeadSeam(inner, points, head, reads=points.add(f"{name}.attn.hook_z")))
    names = ("hook_attn_scores", "hook_pattern") if inside else ()
    within = [points.add(f"{name}.attn.{each}") for each in names]
    sandwich = "post_feedforward_layernorm" in block
    out = points.add(f"{name}.hook_attn_out")
    _replace(block, ATTENTION, lambda inner: AttentionSeam(inner, points, within, writes=None if sandwich else out))
    if sandwich:
        block.post_attention_layernorm = Seam(block.post_attention_layernorm, points, writes=out)


def _open_feed(block: Any, name: str, points: Points) -> None:
    mlp = block["mlp"]
    pre, linear = f"{name}.mlp.hook_pre", f"{name}.mlp.hook_pre_linear"
    if any(each in mlp for each in GATE_AND_LINEAR):
        half = mlp.gate_up_proj.weight.shape[0] // 2
        mlp.gate_up_proj = JoinedSeam(mlp.gate_up_proj, points, (pre, linear), (half, half), width=None, mixed=False)
    elif any(each in mlp for each in GATE):
        _replace(mlp, GATE, lambda inner: Seam(inner, points, writes=points.add(pre)))
        _replace(mlp, LINEAR, lambda inner: Seam(inner, points, writes=points.add(linear)))
    else:
        _replace(mlp, INNER, lambda inner: Seam(inner, points, writes=points.add(pre)))
    _replace(mlp, DOWN, lambda inner: Seam(inner, points, reads=points.add(f"{name}.mlp.hook_post")))
    out = points.add(f"{name}.hook_mlp_out")
    if "post_feedforward_layernorm" in block:
        block.post_feedforward_layernorm = Seam(block.post_feedforward_layernorm, points, writes=out)
    else:
        block.mlp = Seam(mlp, points, writes=out)


def _open_norms(block: Any, name: str, points: Points) -> None:
    _replace(block, FIRST_NORM, lambda inner: NormSeam(inner, points, f"{name}.ln1"))
    parallel = getattr(block, "use_parallel_residual", False)
    middle = None if parallel else points.add(f"{name}.hook_resid_mid")
    _replace(block, SECOND_NORM, lambda inner: NormSeam(inner, points, f"{name}.ln2", middle=middle))


def _part(block: Any, names: tuple[str, ...]) -> Any:
    return next(block[name] for name in names if name in block)


def _replace(parent: Any, names: tuple[str, ...], wrap: Callable[[Any], Any]) -> None:
    """Puts a wrapper in the place of the first of the parts that is there."""
    for name in names:
        if name in parent:
            setattr(parent, name, wrap(parent[name]))
            return


# The attention part that is being computed, by thread: its points and the names of its scores and pattern.
_COMPUTED: ContextVar[tuple[Points, Sequence[str]] | None] = ContextVar("computed", default=None)


class AttentionSeam(Seam):
    """An attention part: whoever is called within it knows which layer of which model it works for."""

    def __init__(self, inner: Any, points: Points, within: Sequence[str], *, writes: str | None) -> None:
        super().__init__(inner, points, writes=writes)
        self._within = tuple(within)

    def __call__(self, x: Any, *more: Any, **options: Any) -> Any:
        points = self._points
        if points.active is None or not points.wanted.intersection(self._within):
            return super().__call__(x, *more, **options)
        with _computing(points, self._within):
            made = self.inner(x, *more, **options)
        return points.visit(self._writes, made)


@contextmanager
def _computing(points: Points, within: Sequence[str]) -> Iterator[None]:
    token = _COMPUTED.set((points, within))
    try:
        yield
    finally:
        _COMPUTED.reset(token)


def _open_attention(module: Any) -> bool:
    """The families that call mlx-lm's attention function by that name get one with points inside; whether this is one.

    The function is the module's, so of all its models: which of them calls, AttentionSeam has noted.
    """
    plain = getattr(module, "scaled_dot_product_attention", None)
    if plain is None:
        return False
    if not hasattr(plain, "plain"):

        def attention(queries: Any, keys: Any, values: Any, cache: Any = None, **options: Any) -> Any:
            computed = _COMPUTED.get()
            if computed is None:
                return plain(queries, keys, values, cache=cache, **options)
            return _attend(*computed, queries, *_in_order(cache, keys, values, queries.shape[2]), **options)

        attention.plain = plain  # type: ignore[attr-defined]
        module.scaled_dot_product_attention = attention
    return True


def _in_order(cache: Any, keys: Any, values: Any, positions: int) -> tuple[Any, Any]:
    """Keys and values by position: a rotating cache that is full writes over its oldest, wherever that stands."""
    start = getattr(cache, "_idx", 0) if positions == 1 and hasattr(cache, "max_size") else 0
    if start == 0 or start >= keys.shape[2]:
        return keys, values
    return mx.roll(keys, -start, axis=2), mx.roll(values, -start, axis=2)


def _attend(
    points: Points,
    names: Sequence[str],
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
