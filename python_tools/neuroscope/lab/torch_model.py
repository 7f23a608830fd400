"""A model in PyTorch under TransformerLens's bridge: every architecture that the bridge knows, by its hook names.

The bridge's hook points sit inside the transformers model, so the model itself is called, with its own cache of keys
and values, and the hooks stay live at every token. Only safetensors are read, and no code that comes with a checkpoint.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroscope.errors import LabError, MissingProgramError
from neuroscope.lab.hook_shapes import HookShapes, Pass, learn_shapes
from neuroscope.lab.interventions import Floats
from neuroscope.lab.model import Description, Step, Watch, check_tokens
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
        # OpenMP reads it when PyTorch is imported. Threads that wait for one another spin otherwise, and where other
        # work wants the cores too they spin four times as long as they compute.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
        self.tokenizer = load_tokenizer(source)
        device = str(next(model.parameters()).device)
        parameters = sum(parameter.numel() for parameter in model.parameters())  # the bridge adds its own views of some
        with _nothing_installed():
            self._bridge: Any = TransformerBridge.boot_transformers(
                place, hf_model=model, device=device, tokenizer=copy.deepcopy(self.tokenizer) or _no_tokenizer()
            )
        self._model = model
        self._torch = torch
        self._arrays = TorchArrays()
        self._device = device
        # once: the bridge makes its table of names anew whenever it is asked for it, which takes milliseconds
        self._points: dict[str, Any] = self._bridge.hook_dict
        config = self._bridge.cfg
        self._limits = (int(config.d_vocab), int(config.n_ctx))
        self._hidden_by: dict[str, frozenset[str]] = {}
        self._shapes = self._learn_shapes()
        self.description = Description(
            id=source.id,
            engine="torch",
            architecture=str(model.config.model_type),
            layers=int(config.n_layers),
            heads=int(config.n_heads),
            width=int(config.d_model),
            vocabulary=int(config.d_vocab),
            positions=int(config.n_ctx),
            parameters=parameters,
            dtype=source.dtype,
            device=device,
            weights=weights_digest(source),
            hooks=tuple(sorted(self._shapes.axes)),
        )

    def _learn_shapes(self) -> HookShapes:
        """Of every hook that some pass has, and what each switch takes away."""
        every = sorted(self._points)
        plain = [name for name in every if _switch_of(name) is None]
        shapes = learn_shapes(self.forward, plain, _windows)
        axes = dict(shapes.axes)
        for switch in sorted(set(_OPTIONAL.values())):
            switched = [name for name in every if _switch_of(name) == switch]
            try:
                found = self.forward([[0, 0]], Watch(captures=[*shapes.axes, *switched])).activations
            except NotImplementedError:  # the bridge can't take this family's attention apart
                continue
            # Whatever fires without the switch and not with it can't be seen together with what it shows.
            self._hidden_by[switch] = frozenset(shapes.axes) - found.keys()
            # One pass is enough for them: rows and positions come first in all, and the rest is the model's own.
            axes |= {name: ["B", "T", *found[name].shape[2:]] for name in switched if name in found}
        split = {name for name in axes if _switch_of(name) == "set_use_split_qkv_input"}
        self._hidden_by["set_use_attn_in"] = self._hidden_by.get("set_use_attn_in", frozenset()) | split
        return HookShapes(axes, shapes.windows)

    def forward(
        self, tokens: Sequence[Sequence[int]], watch: Watch, *, past: Any = None, last_only: bool = False
    ) -> Step:
        torch = self._torch
        offset = 0 if past is None else int(past.get_seq_length())
        check_tokens(tokens, offset, *self._limits)
        activations: dict[str, Floats] = {}
        ids = torch.tensor(tokens, device=self._device)
        with torch.inference_mode(), self._hooked(watch, offset, activations):
            options = {"logits_to_keep": 1} if last_only else {}
            answer = self._model(input_ids=ids, past_key_values=past, use_cache=True, **options)
        logits = answer.logits[:, -1:] if last_only else answer.logits
        return Step(_numbers(logits), answer.past_key_values, activations)

    @contextmanager
    def _hooked(self, watch: Watch, offset: int, activations: dict[str, Floats]) -> Iterator[None]:
        """Sets the hook points of one pass, and takes them away again however it ends."""
        points: dict[int, tuple[Any, list[str]]] = {}  # a point can have several names
        changed = [*watch.awaited, *(each.hook for each in watch.interventions)]
        for name in dict.fromkeys([*watch.captures, *changed]):
            point = self._points[name]
            points.setdefault(id(point), (point, []))[1].append(name)
        switches = self._switches([name for _, names in points.values() for name in names])
        added: dict[str, torch.Tensor] = {}  # to the stream in the middle of a block, by the block's end
        ends = {end for name in changed if (end := self._end_of_stream(name)) is not None}
        try:
            for switch in switches:
                getattr(self._bridge, switch)(True)
            for end in ends:
                self._points[end].add_hook(lambda value, hook, end=end: _sum(value, added.pop(end, None)))
            for point, names in points.values():
                point.add_hook(self._at(names, watch, offset, activations, added))
            yield
        finally:
            for point in (*(point for point, _ in points.values()), *(self._points[end] for end in ends)):
                point.remove_hooks("fwd")
            for switch in switches:
                getattr(self._bridge, switch)(False)

    def _at(
        self,
        names: list[str],
        watch: Watch,
        offset: int,
        activations: dict[str, Floats],
        added: dict[str, torch.Tensor],
    ) -> Callable[..., Any]:
        changes = [each for each in watch.interventions if each.hook in names]
        awaited = [name for name in names if name in watch.awaited]
        captured = [name for name in names if name in watch.captures]

        def act(value: Any, hook: Any) -> torch.Tensor | None:
            if not isinstance(value, self._torch.Tensor):
                return None
            current = value
            for each in changes:
                before, current = current, each.apply(self._arrays, current, offset)
                self._note(each.hook, before, current, added)
            if watch.on_hook is not None:
                for name in awaited:
                    answer = watch.on_hook(name, _numbers(current))
                    if answer is not None:
                        before, current = current, self._arrays.of(answer.reshape(current.shape), current)
                        self._note(name, before, current, added)
            if captured:
                activations.update(dict.fromkeys(captured, _numbers(current)))
            return None if current is value else current

        return act

    def _note(self, name: str, before: Any, after: Any, added: dict[str, torch.Tensor]) -> None:
        end = self._end_of_stream(name)
        if end is not None:
            added[end] = _sum(after - before, added.get(end))

    def _end_of_stream(self, name: str) -> str | None:
        """Where a change in the middle of a block's stream is to be added.

        The bridge's point there is on the way into the feed-forward part alone, past which the stream would go on
        unchanged.
        """
        block, middle, rest = name.partition("hook_resid_mid")
        return f"{block}hook_resid_post" if middle and not rest else None

    def _switches(self, names: list[str]) -> list[str]:
        """What has to be on for optional points, in this pass alone: a switch costs time, changes the last bits of
        what comes after, and hides other points.

        Raises: LabError when it would hide one of the names.
        """
        switches = sorted({switch for name in names if (switch := _switch_of(name)) is not None})
        for switch in switches:
            hidden = [name for name in names if name in self._hidden_by.get(switch, ())]
            if hidden:
                shown = next(name for name in names if _switch_of(name) == switch)
                raise LabError(
                    f"{shown} and {hidden[0]} can't be looked at in one pass, since the model is computed in another "
                    "way to show the first; ask for them in two requests.",
                    code="hooks_exclude_each_other",
                    parameter="activation_hooks",
                )
        return switches

    def lens(self, residual: Floats) -> Floats:
        torch = self._torch
        with torch.inference_mode():
            dtype = next(self._model.parameters()).dtype
            stream = torch.as_tensor(residual, dtype=dtype, device=self._device)
            logits = self._bridge.unembed(self._bridge.ln_final(stream))
            cap = getattr(self._model.config.get_text_config(), "final_logit_softcapping", None)
            if cap:
                logits = cap * torch.tanh(logits / cap)
            return _numbers(logits)

    def axes(self) -> Mapping[str, Sequence[str | int]]:
        return self._shapes.axes

    def expected_bytes(self, name: str, batch: int, positions: int, cached: int) -> int:
        return self._shapes.bytes(name, Pass(batch, positions, cached))


def _sum(value: torch.Tensor, more: torch.Tensor | None) -> torch.Tensor:
    return value if more is None else value + more


def _switch_of(name: str) -> str | None:
    return _OPTIONAL.get(name.rsplit(".", 1)[-1])


def _windows(past: Any) -> list[int | None]:
    """Of a cache of transformers, by layer."""
    return [layer.sliding_window if layer.is_sliding else None for layer in past.layers]


@contextmanager
def _nothing_installed() -> Iterator[None]:
    """Booting a model that also reads images calls pip, or uv, for what a text never needs; here nobody answers."""
    from transformer_lens.model_bridge.sources.transformers import helpers

    installs = helpers._ensure_torchvision
    helpers._ensure_torchvision = lambda: False
    try:
        yield
    finally:
        helpers._ensure_torchvision = installs


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
        _need_accelerate(source)
        options["device_map"] = source.devices
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False, local_files_only=source.folder is not None)
        multimodal = config.get_text_config() is not config
        kind = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
        model = kind.from_pretrained(place, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise not_loadable(
            source,
            error,
            "It has to be a Hugging Face folder or id with safetensors, of an architecture that transformers knows "
            "without remote code.",
        ) from error
    model.requires_grad_(False)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _need_accelerate(source: ModelSource) -> None:
    if importlib.util.find_spec("accelerate") is None:
        raise MissingProgramError(
            f"accelerate is missing, and it spreads a model over devices ({source.devices!r} was asked for); install "
            "it with `pip install accelerate`, or start the lab without --devices."
        )


def not_loadable(source: ModelSource, error: Exception, remedy: str) -> LabError:
    """What a loader says, in one sentence, and what to do."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return LabError(
        f"{source.id} can't be loaded: {first.rstrip('.')}. {remedy}", code="model_not_loadable", parameter="model"
    )


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")


def load_tokenizer(source: ModelSource) -> Any:
    """The model's tokenizer, or None: a model without one takes token ids."""
    from transformers import AutoTokenizer

    folder = source.folder
    # Some classes make themselves one of no words where there are no files.
    if folder is not None and not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        print(f"{source.id} has no tokenizer; it takes token ids only.", file=sys.stderr)
        return None
    place = str(folder or source.id)
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False, local_files_only=folder is not None)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        print(f"{source.id} has no tokenizer that can be read ({reason}); it takes token ids only.", file=sys.stderr)
        return None


def _no_tokenizer() -> Any:
    """One of no use, which keeps the bridge from looking for one."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"0": 0}, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=words)  # type: ignore[no-untyped-call]


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
    import torch

    numbers: Floats = value.detach().to("cpu", torch.float32, copy=True).numpy()
    return numbers
