"""A model in MLX, of the families that mlx-lm loads: Apple's GPU on a Mac, the processor on Linux.

The hook points are those of mlx_seams.py: fewer than the bridge's, under the same names and with the same values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuroscope.errors import LabError, MissingProgramError
from neuroscope.lab.interventions import Floats
from neuroscope.lab.model import Description, Step, Watch
from neuroscope.lab.settings import ModelSource
from neuroscope.lab.torch_model import weights_digest


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
            from mlx_lm import load
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
        try:
            model, tokenizer, config = load(  # type: ignore[misc]  # three, since the configuration is asked for
                str(source.folder or source.id), model_config=_completed(source), return_config=True
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabError(
                f"{source.id} can't be loaded by mlx-lm: {str(error).splitlines()[0]} Start the lab with --engine "
                "torch for it.",
                code="model_not_loadable",
                parameter="model",
            ) from error
        model.set_dtype(getattr(mx, source.dtype))
        self._model: Any = model
        self.tokenizer: Any = tokenizer
        text: dict[str, Any] = config.get("text_config") or config
        heads = int(_first(text, "num_attention_heads", "n_head"))
        width = int(_first(text, "hidden_size", "n_embd"))
        layers = int(_first(text, "num_hidden_layers", "n_layer"))
        self._points = open_seams(model, int(text.get("head_dim") or width // heads))
        from mlx.utils import tree_flatten

        self.description = Description(
            id=source.id,
            engine="mlx",
            architecture=str(text.get("model_type", config.get("model_type"))),
            layers=layers,
            heads=heads,
            width=width,
            vocabulary=int(_first(text, "vocab_size")),
            positions=int(_first(text, "max_position_embeddings", "n_positions", "n_ctx")),
            parameters=sum(int(value.size) for _, value in tree_flatten(model.parameters())),
            dtype=source.dtype,
            device=str(mx.default_device()),
            weights=weights_digest(source),
            hooks=tuple(sorted(self._points.names)),
        )

    def forward(
        self, tokens: Sequence[Sequence[int]], watch: Watch, *, past: Any = None, last_only: bool = False
    ) -> Step:
        cache = self._make_cache(self._model) if past is None else past
        offset = int(cache[0].offset) if past is not None else 0
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
        """What the model does behind its body: its own head, or the embedding's; then the soft cap."""
        head = next((self._model[name] for name in ("lm_head", "embed_out") if name in self._model), None)
        if head is not None:
            logits = head(normed)
        else:
            from neuroscope.lab.mlx_seams import EMBEDDING

            logits = next(body[name] for name in EMBEDDING if name in body).as_linear(normed)
        cap = getattr(self._model, "final_logit_softcapping", None)
        return self._mx.tanh(logits / cap) * cap if cap else logits

    def expected_bytes(self, name: str, batch: int, positions: int, cached: int) -> int:
        description = self.description
        if name.endswith(("hook_attn_scores", "hook_pattern")):
            return 4 * batch * description.heads * positions * (cached + positions)
        return 4 * batch * positions * (1 if name.endswith("hook_scale") else 4 * description.width)

    def _numbers(self, value: Any) -> Floats:
        return np.array(value.astype(self._mx.float32))


def _first(config: dict[str, Any], *names: str) -> Any:
    return next(config[name] for name in names if config.get(name) is not None)


def _completed(source: ModelSource) -> dict[str, Any]:
    """What mlx-lm wants in a GPT-2's configuration and transformers no longer writes there."""
    if source.folder is None:
        return {}
    config = json.loads((source.folder / "config.json").read_text())
    return {"n_ctx": config["n_positions"]} if "n_positions" in config and "n_ctx" not in config else {}
