"""A model in PyTorch under TransformerLens's bridge: every architecture that the bridge knows, by its hook names.

The bridge's hook points sit inside the transformers model, so the model itself is called, with its own cache of keys
and values, and the hooks stay live at every token. Only safetensors are read, and no code that comes with a checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.errors import LabError, MissingProgramError
from neuroscope.lab.interventions import Floats
from neuroscope.lab.model import Description, Step, Watch
from neuroscope.lab.settings import ModelSource

if TYPE_CHECKING:
    import torch

_OPTIONAL = {
    "hook_result": "set_use_attn_result",
    "hook_attn_in": "set_use_attn_in",
    "hook_q_input": "set_use_split_qkv_input",
    "hook_k_input": "set_use_split_qkv_input",
    "hook_v_input": "set_use_split_qkv_input",
    "hook_mlp_in": "set_use_hook_mlp_in",
}


class TorchArrays:
    """`interventions.Arrays` over tensors."""

    def of(self, numbers: Floats, like: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.as_tensor(np.ascontiguousarray(numbers), dtype=like.dtype, device=like.device)

    def index(self, places: Any, like: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.as_tensor(places, device=like.device)

    def copy(self, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    def zeros_like(self, value: torch.Tensor) -> torch.Tensor:
        return value.new_zeros(value.shape)

    def broadcast(self, value: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return value.expand(shape)

    def sum_last(self, value: torch.Tensor) -> torch.Tensor:
        return value.sum(-1, keepdim=True)


class TorchModel:
    """`model.LabModel` in PyTorch."""

    def __init__(self, source: ModelSource) -> None:
        """Loads the model. Raises: LabError when it can't be loaded, MissingProgramError without PyTorch."""
        os.environ.setdefault("PIP_NO_INDEX", "1")  # booting may call pip for what a text model never needs
        try:
            import torch
            from transformer_lens.model_bridge import TransformerBridge
        except ImportError as error:
            raise MissingProgramError(
                f"{error.name} is missing, and the lab's PyTorch engine needs it; install it with "
                "`pip install neuroscope[lab]`."
            ) from error
        place = str(source.folder or source.id)
        model = _load(place, source)
        self.tokenizer = _load_tokenizer(place, source)
        device = str(next(model.parameters()).device)
        options = {"tokenizer": self.tokenizer} if self.tokenizer is not None else {}
        self._bridge: Any = TransformerBridge.boot_transformers(place, hf_model=model, device=device, **options)
        self._model = model
        self._torch = torch
        self._arrays = TorchArrays()
        self._optional_on: set[str] = set()
        config = self._bridge.cfg
        self.description = Description(
            id=source.id,
            engine="torch",
            architecture=str(model.config.model_type),
            layers=int(config.n_layers),
            heads=int(config.n_heads),
            width=int(config.d_model),
            vocabulary=int(config.d_vocab),
            positions=int(config.n_ctx),
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            dtype=source.dtype,
            device=device,
            weights=weights_digest(source),
            hooks=tuple(sorted(self._bridge.hook_dict)),
        )

    def forward(
        self, tokens: Sequence[Sequence[int]], watch: Watch, *, past: Any = None, last_only: bool = False
    ) -> Step:
        torch = self._torch
        offset = 0 if past is None else int(past.get_seq_length())
        activations: dict[str, Floats] = {}
        ids = torch.tensor(tokens, device=self.description.device)
        with torch.inference_mode(), self._hooked(watch, offset, activations):
            options = {"logits_to_keep": 1} if last_only else {}
            answer = self._model(input_ids=ids, past_key_values=past, use_cache=True, **options)
        logits = answer.logits[:, -1:] if last_only else answer.logits
        return Step(_numbers(logits), answer.past_key_values, activations)

    @contextmanager
    def _hooked(self, watch: Watch, offset: int, activations: dict[str, Floats]) -> Iterator[None]:
        """Sets the hook points of one pass, and takes them away again however it ends."""
        names = {*watch.captures, *watch.awaited, *(each.hook for each in watch.interventions)}
        self._switch_on(names)
        points = {name: self._bridge.hook_dict[name] for name in names}
        try:
            for name, point in points.items():
                point.add_hook(self._at(name, watch, offset, activations))
            yield
        finally:
            for point in points.values():
                point.remove_hooks("fwd")

    def _at(self, name: str, watch: Watch, offset: int, activations: dict[str, Floats]) -> Callable[..., Any]:
        changes = [each for each in watch.interventions if each.hook == name]

        def act(value: torch.Tensor, hook: Any) -> torch.Tensor | None:
            current = value
            for each in changes:
                current = each.apply(self._arrays, current, offset)
            if name in watch.awaited and watch.on_hook is not None:
                answer = watch.on_hook(name, _numbers(current))
                if answer is not None:
                    current = self._arrays.of(answer.reshape(current.shape), current)
            if name in watch.captures:
                activations[name] = _numbers(current)
            return None if current is value else current

        return act

    def _switch_on(self, names: set[str]) -> None:
        """Optional points cost time in every pass, so they are switched on when they are first named."""
        for name in names:
            switch = _OPTIONAL.get(name.rsplit(".", 1)[-1])
            if switch is not None and switch not in self._optional_on:
                getattr(self._bridge, switch)(True)
                self._optional_on.add(switch)

    def lens(self, residual: Floats) -> Floats:
        torch = self._torch
        with torch.inference_mode():
            dtype = next(self._model.parameters()).dtype
            stream = torch.as_tensor(residual, dtype=dtype, device=self.description.device)
            logits = self._bridge.unembed(self._bridge.ln_final(stream))
            cap = getattr(self._model.config.get_text_config(), "final_logit_softcapping", None)
            if cap:
                logits = cap * torch.tanh(logits / cap)
            return _numbers(logits)

    def expected_bytes(self, name: str, batch: int, positions: int, cached: int) -> int:
        shape = self._shapes.get(name, (1, 2, self.description.width))
        total = cached + positions
        extents = [positions if extent == 2 and axis > 0 else extent for axis, extent in enumerate(shape)]
        if name.endswith(("hook_attn_scores", "hook_pattern")):
            extents = [1, shape[1], positions, total]
        return 4 * batch * int(np.prod(extents))

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Every hook point's shape in a pass of two tokens."""
        shapes: dict[str, tuple[int, ...]] = {}

        def note(name: str) -> Callable[..., None]:
            def look(value: Any, hook: Any) -> None:
                if hasattr(value, "shape"):
                    shapes[name] = tuple(value.shape)

            return look

        points = self._bridge.hook_dict
        try:
            for name, point in points.items():
                point.add_hook(note(name))
            with self._torch.inference_mode():
                self._model(input_ids=self._torch.tensor([[0, 0]], device=self.description.device))
        finally:
            for point in points.values():
                point.remove_hooks("fwd")
        return shapes


def _load(place: str, source: ModelSource) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    options = {
        "dtype": getattr(torch, source.dtype),
        "attn_implementation": "eager",
        "use_safetensors": True,
        "trust_remote_code": False,
        "local_files_only": source.folder is not None,
    }
    if source.devices is not None:
        options["device_map"] = source.devices
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False, local_files_only=source.folder is not None)
        multimodal = config.get_text_config() is not config
        kind = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
        model = kind.from_pretrained(place, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise LabError(
            f"{source.id} can't be loaded: {str(error).splitlines()[0]} It has to be a Hugging Face folder or id with "
            "safetensors, of an architecture that transformers knows without remote code.",
            code="model_not_loadable",
            parameter="model",
        ) from error
    model.requires_grad_(False)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _load_tokenizer(place: str, source: ModelSource) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=source.folder is not None)
    except (OSError, ValueError, KeyError) as error:
        print(f"{source.id} has no tokenizer that can be read ({error}); it takes token ids only.", file=sys.stderr)
        return None


def weights_digest(source: ModelSource) -> str:
    """SHA-256 over the names and bytes of a folder's weights and configuration; of a Hub id, its snapshot's files."""
    folder = source.folder
    if folder is None:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source.id, local_files_only=True))
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("*.safetensors")]):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _numbers(value: Any) -> Floats:
    """A copy as float32; the pass may go on to write over the tensor."""
    numbers: Floats = value.detach().float().cpu().numpy()
    return numbers.copy()
