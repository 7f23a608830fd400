"""ActivationHookManager: the hooks that are registered on a model, by their ids."""

from __future__ import annotations

from collections.abc import Collection

from neuroscope.errors import LabError
from neuroscope.lab.hook_names import HookSpec


class ActivationHookManager:
    """Checks a hook against what the model has when it is registered, not when it is to fire."""

    def __init__(self, names: Collection[str], layers: int) -> None:
        self._names = names
        self._layers = layers
        self._hooks: dict[str, HookSpec] = {}

    def register(self, spec: HookSpec) -> str:
        """Raises: LabError for a layer or component that the model has not, or an id that is taken."""
        spec.names(self._names, self._layers)
        if spec.hook_id in self._hooks:
            raise LabError(f"A hook {spec.hook_id!r} is registered already; unregister it, or give another hook_id.")
        self._hooks[spec.hook_id] = spec
        return spec.hook_id

    def unregister(self, hook_id: str) -> None:
        """Raises: LabError for an id that was never registered."""
        if hook_id not in self._hooks:
            known = ", ".join(self._hooks) or "none"
            raise LabError(f"No hook {hook_id!r} is registered; registered are {known}.")
        del self._hooks[hook_id]

    def clear(self) -> None:
        self._hooks.clear()

    def wanted(self) -> list[tuple[HookSpec, str]]:
        """Each hook with the name of the activation that it captures; one of input and output comes twice."""
        return [(spec, name) for spec in self._hooks.values() for name, _ in spec.names(self._names, self._layers)]

    def __len__(self) -> int:
        return len(self._hooks)
