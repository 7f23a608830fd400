"""ModelKit: a model in this process, with hooks that capture what happens inside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from neuroscope.errors import LabError
from neuroscope.lab.hook_names import HookSpec
from neuroscope.lab.model import LabModel, Watch
from neuroscope.lab.registry import load_model as load_lab_model
from neuroscope.lab.settings import ModelSource
from numpy.typing import NDArray

from mlx_engine.activation_hooks import ActivationHookManager


class ModelKit:
    """Text in, activations out, by the hooks that are registered."""

    def __init__(self, model: LabModel) -> None:
        self.model = model
        self.activation_hook_manager = ActivationHookManager(model.description.hooks, model.description.layers)

    def register_activation_hook(
        self,
        layer_name: str,
        component: str = "residual",
        hook_id: str | None = None,
        *,
        capture_input: bool = False,
        capture_output: bool = True,
    ) -> str:
        """The hook's id. Raises: LabError for a layer or component that the model has not."""
        name = hook_id or f"{layer_name}_{component}"
        return self.activation_hook_manager.register(
            HookSpec(name, layer_name, component, capture_input, capture_output)
        )

    def unregister_activation_hook(self, hook_id: str) -> None:
        """Raises: LabError for an id that was never registered."""
        self.activation_hook_manager.unregister(hook_id)

    def activations(self, text: str) -> dict[str, list[NDArray[np.float32]]]:
        """What one pass over the text shows at each hook, behind the token that begins a text where there is one."""
        tokenizer = self.model.tokenizer
        if tokenizer is None:
            raise LabError(f"{self.model.description.id} has no tokenizer, so it reads no text.")
        ids = tokenizer.encode(text, add_special_tokens=False)
        start = tokenizer.bos_token_id
        wanted = self.activation_hook_manager.wanted()
        watch = Watch(captures=sorted({name for _, name in wanted}))
        step = self.model.forward([ids if start is None else [start, *ids]], watch)
        found: dict[str, list[NDArray[np.float32]]] = {}
        for spec, name in wanted:
            found.setdefault(spec.hook_id, []).append(step.activations[name])
        return found


def load_model(model_path: str | Path, *, engine: str = "torch", dtype: str = "float32") -> ModelKit:
    """A Hugging Face folder. Raises: LabError when it can't be loaded."""
    folder = Path(model_path).expanduser()
    if not folder.is_dir():
        raise LabError(f"{folder} is no folder; name one that save_pretrained made.")
    return ModelKit(load_lab_model(ModelSource(folder.resolve().name, folder, engine, dtype)))
