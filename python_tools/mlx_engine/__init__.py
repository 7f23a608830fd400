"""The lab under the names that programs written for MLX Engine use: a server, and a model with hooks in this process.

    python -m mlx_engine.api_server --model /path/to/your/model

    model = mlx_engine.load_model("/path/to/your/model")
    hook_id = model.register_activation_hook(layer_name="transformer.h.0", component="residual")
    model.activations("The cat sat")[hook_id]

Nothing is computed here: neuroscope.lab does.
"""

from __future__ import annotations

from mlx_engine.activation_hooks import ActivationHookManager
from mlx_engine.model_kit import ModelKit, load_model

__all__ = ["ActivationHookManager", "ModelKit", "load_model"]
