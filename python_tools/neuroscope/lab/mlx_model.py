"""A model in MLX, of the families that mlx-lm loads: Apple's GPU on a Mac, the processor on Linux.

The hook points are those of mlx_seams.py: fewer than the bridge's, under the same names and with the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroscope.errors import MissingProgramError
from neuroscope.lab.hook_shapes import PROBED, Pass, learn_shapes
from neuroscope.lab.interventions import Floats
from neuroscope.lab.mlx_config import translate
from neuroscope.lab.model import Description, Step, Watch, check_tokens
from neuroscope.lab.settings import ModelSource
from neuroscope.lab.torch_model import load_tokenizer, not_loadable, weights_digest


class MlxArrays:
    """`interventions.Arrays` over MLX's."""

    def of(self, numbers: Floats, like: Any) -> Any:
        import mlx.core as mx

        return mx.array(numbers).astype(like.dtype)

    def index(self, places: Any, like: Any) -> Any:
        import mlx.core as mx

        return mx.array(places)

    def copy(self, value: Any) -> Any:
        return value + 0

    def zeros_like(self, value: Any) -> Any:
        import mlx.core as mx

        return mx.zeros_like(value)

    def broadcast(self, value: Any, shape: tuple[int, ...]) -> Any:
        import mlx.core as mx

        return mx.broadcast_to(value, shape)

    def sum_last(self, value: Any) -> Any:
        return value.sum(-1, keepdims=True)


class MlxModel:
    """`model.LabModel` in MLX."""

    def __init__(self, source: ModelSource) -> None:
        """Loads the model. Raises: LabError when mlx-lm can't, MissingProgramError without it."""
        try:
            import mlx.core as mx
            from mlx.utils import tree_flatten
            from mlx_lm.models.cache import make_prompt_cache
        except ImportError as error:
            raise MissingProgramError(
                f"{error.name} is missing, and the lab's MLX engine needs it; install it with "
                "`pip install neuroscope[mlx]`."
            ) from error
        from neuroscope.lab.mlx_seams import open_seams

        self._mx: Any = mx
        self._make_cache = make_prompt_cache
        self._arrays = MlxArrays()
        model, config, positions = _load(source)
        model.set_dtype(getattr(mx, source.dtype))
        mx.eval(model.parameters())
        parameters = sum(int(value.size) for _, value in tree_flatten(model.parameters()))
        self._model: Any = model
        self.tokenizer: Any = load_tokenizer(source)
        self._points = open_seams(model, config)
        self._limits = (int(config["vocab_size"]), max(positions, PROBED))  # what is probed needs only run
        self._shapes = learn_shapes(self.forward, self._points.names, _windows)
        self._limits = (int(config["vocab_size"]), positions)
        self.description = Description(
            id=source.id,
            engine="mlx",
            architecture=str(config["model_type"]),
            layers=len(model.layers),
            heads=int(config.get("num_attention_heads") or config["n_head"]),
            width=int(config.get("hidden_size") or config["n_embd"]),
            vocabulary=self._limits[0],
            positions=positions,
            parameters=parameters,
            dtype=source.dtype,
            device=str(mx.default_device()),
            weights=weights_digest(source),
            hooks=tuple(sorted(self._shapes.axes)),
        )

    def forward(
        self, tokens: Sequence[Sequence[int]], watch: Watch, *, past: Any = None, last_only: bool = False
    ) -> Step:
        cache = self._make_cache(self._model) if past is None else past
        offset = int(cache[0].offset) if past is not None else 0
        check_tokens(tokens, offset, *self._limits)
        activations: dict[str, Floats] = {}

        def visit(name: str, value: Any) -> Any:
            current = value
            for each in watch.interventions:
                if each.hook == name:
                    current = each.apply(self._arrays, current, offset)
            if name in watch.awaited and watch.on_hook is not None:
                answer = watch.on_hook(name, self._numbers(current))
                if answer is not None:
                    current = self._arrays.of(answer.reshape(current.shape), current)
            if name in watch.captures:
                activations[name] = self._numbers(current)
            return current

        points = self._points
        points.wanted = frozenset({*watch.captures, *watch.awaited, *(each.hook for each in watch.interventions)})
        points.active = visit
        try:
            logits = self._model(self._mx.array(tokens), cache=cache)
        finally:
            points.active = None
        return Step(self._numbers(logits[:, -1:] if last_only else logits), cache, activations)

    def lens(self, residual: Floats) -> Floats:
        from neuroscope.lab.mlx_seams import FINAL_NORM, body_of

        body = body_of(self._model)
        normed = next(body[name] for name in FINAL_NORM if name in body)(self._mx.array(residual))
        return self._numbers(self._unembed(body, normed))

    def _unembed(self, body: Any, normed: Any) -> Any:
        """What the model does behind its final norm: its own head, or the embedding's; then the soft cap."""
        from neuroscope.lab.mlx_seams import EMBEDDING

        heads = [part[name] for part in (self._model, body) for name in ("lm_head", "embed_out") if name in part]
        tables = [body[name].as_linear for name in EMBEDDING if name in body]
        logits = [*heads, *tables][0](normed)
        cap = getattr(self._model, "final_logit_softcapping", None)
        return self._mx.tanh(logits / cap) * cap if cap else logits

    def axes(self) -> Mapping[str, Sequence[str | int]]:
        return self._shapes.axes

    def expected_bytes(self, name: str, batch: int, positions: int, cached: int) -> int:
        return self._shapes.bytes(name, Pass(batch, positions, cached))

    def _numbers(self, value: Any) -> Floats:
        return np.array(value.astype(self._mx.float32))


def _windows(cache: Any) -> list[int | None]:
    """Of a cache of mlx-lm, by layer."""
    return [getattr(layer, "max_size", None) for layer in cache]


def _load(source: ModelSource) -> tuple[Any, dict[str, Any], int]:
    """Model, configuration as mlx-lm takes it, positions. Raises: LabError."""
    from mlx_lm.utils import _get_classes, load_config, load_model

    def classes(config: dict[str, Any]) -> tuple[Any, Any]:
        kind, arguments = _get_classes(config)
        return type("Model", (kind,), {"sanitize": _sanitize, "__module__": kind.__module__}), arguments

    try:
        folder = source.folder or _snapshot(source)
        translated = translate(load_config(folder), source.id)
        model, config = load_model(folder, model_config=translated.changes, get_model_classes=classes)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise not_loadable(source, error, "Start the lab with --engine torch for it.") from error
    return model, config, translated.positions


def _snapshot(source: ModelSource) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source.id, allow_patterns=["*.json", "model*.safetensors", "tokenizer*", "*.model"]))


_PREFIXES = ("transformer.", "language_model.model.", "model.language_model.")
_OTHER_PARTS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


def _sanitize(model: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """mlx-lm's own, behind the names that transformers gives the tensors of a model with a head, or with images."""
    named = {}
    for name, value in weights.items():
        if name.startswith(_OTHER_PARTS):
            continue
        prefix = next((each for each in _PREFIXES if name.startswith(each)), None)
        if prefix is not None:
            name = ("" if prefix == "transformer." else "model.") + name.removeprefix(prefix)
        named[name.removeprefix("language_model.") if name.startswith("language_model.lm_head") else name] = value
    own = getattr(super(type(model), model), "sanitize", None)
    kept: dict[str, Any] = own(named) if own is not None else named
    return kept
