"""Gradients by PyTorch: of numbers made of a bridge's logits, to the value at each hook point; and the same numbers as
messages of the engine.

Each hook of TransformerLens's bridge answers a copy of its value, so that what comes of the copy is the gradient: it
is what the engine calls the gradient of a captured value.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from engine_checkpoints import pack, unpack

Edit = Callable[[torch.Tensor], torch.Tensor]
Step = dict[str, Any]

TOLERANCE = 1e-4  # of the largest gradient at the hook point: float32 sums in another order stay below 1e-5 of it


@dataclass
class Script:
    """Messages for the engine, whose tensors it names."""

    steps: list[Step] = field(default_factory=list)
    tensors: int = 1000  # jobs.ts names a few of its own

    def name(self) -> int:
        self.tensors += 1
        return self.tensors

    def post(self, kind: str, **fields: Any) -> None:
        self.steps.append({"message": {"kind": kind, **fields}})

    def create(self, numbers: Any) -> int:
        packed = pack(numbers)
        tensor = self.name()
        message = {"kind": "create", "tensor": tensor, "shape": packed["shape"]}
        self.steps.append({"message": message, "attachments": [packed]})
        return tensor

    def operate(self, operation: str, *inputs: int, **parameters: Any) -> int:
        result = self.name()
        self.post("operate", op=operation, inputs=list(inputs), parameters=parameters, result=result)
        return result

    def forward(self, tokens: list[list[int]], names: Iterable[str], **more: Any) -> tuple[dict[str, int], int]:
        """A taped pass: the captured tensors by name, and the logits."""
        captured = {name: self.name() for name in names}
        logits = self.name()
        hooks = more.pop("at_hooks", None)
        capture = [{"name": name, "tensor": tensor} for name, tensor in captured.items()]
        fields = {"tokens": tokens, "capture": capture, "logits": logits, "model": None, "pass": self.name(), **more}
        step: Step = {"message": {"kind": "forward", "tape": True, **fields}}
        if hooks is not None:
            step["message"]["hooks"] = list(hooks)
            step["atHooks"] = hooks
        self.steps.append(step)
        return captured, logits

    def gradient(self, of: int, to: Mapping[str, int]) -> dict[str, int]:
        results = {name: self.name() for name in to}
        self.post("gradient", of=of, to=[{"tensor": to[name], "result": results[name]} for name in to])
        return results

    def read(self, tensors: Mapping[str, int]) -> None:
        for tensor in tensors.values():
            self.post("read", tensor=tensor)


def numbers_of(answers: list[Any]) -> Iterator[np.ndarray]:
    """What the reads of a script gave, in order; an error is a failure of the test."""
    for answer in answers:
        if answer is None or answer.get("message", {}).get("kind") == "done":
            continue
        assert "error" not in answer, answer
        yield unpack(answer["attachments"][0]).reshape(answer["message"]["shape"])


def logit_difference(script: Script, logits: int, tokens: list[list[int]], _: np.ndarray) -> int:
    """Of tokens 5 and 3 after the last position, over the rows."""
    last = script.operate("take", logits, axis=1, indices=[-1])
    pair = [script.operate("take", last, axis=-1, indices=[token]) for token in (5, 3)]
    return script.operate("mean", script.operate("subtract", *pair))


def cross_entropy(script: Script, logits: int, tokens: list[list[int]], reference: np.ndarray) -> int:
    """The mean loss of predicting each next token."""
    batch, positions, vocabulary = reference.shape
    flat = script.operate("reshape", script.operate("logSoftmax", logits), shape=[reference.size])
    places = [
        (row * positions + position) * vocabulary + tokens[row][position + 1]
        for row in range(batch)
        for position in range(positions - 1)
    ]
    return script.operate("negate", script.operate("mean", script.operate("take", flat, axis=0, indices=places)))


def divergence(script: Script, logits: int, tokens: list[list[int]], reference: np.ndarray) -> int:
    """Kullback and Leibler's, of other logits from these, over rows and positions."""
    batch, positions, _ = reference.shape
    other = script.create(reference)
    differences = script.operate("subtract", script.operate("logSoftmax", other), script.operate("logSoftmax", logits))
    weighted = script.operate("multiply", script.operate("softmax", other), differences)
    return script.operate("divide", script.operate("sum", weighted), scalar=batch * positions)


#: Each number as messages and in PyTorch.
NUMBERS: dict[str, tuple[Callable[[Script, int, list[list[int]], np.ndarray], int], Callable[..., torch.Tensor]]] = {
    "logit difference": (
        logit_difference,
        lambda logits, tokens, reference: (logits[:, -1, 5] - logits[:, -1, 3]).mean(),
    ),
    "cross-entropy": (
        cross_entropy,
        lambda logits, tokens, reference: torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), torch.tensor(tokens)[:, 1:].flatten()
        ),
    ),
    "divergence": (
        divergence,
        lambda logits, tokens, reference: (
            torch.nn.functional.kl_div(logits.log_softmax(-1), torch.tensor(reference).softmax(-1), reduction="sum")
            / reference[..., 0].size
        ),
    ),
}


def reference_logits(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(11).normal(size=shape).astype(np.float32)


def torch_gradients(
    bridge: Any,
    tokens: list[list[int]],
    names: Iterable[str],
    edits: Mapping[str, Edit] | None = None,
    numbers: Iterable[str] = tuple(NUMBERS),
) -> dict[str, dict[str, np.ndarray]]:
    """By number and hook name; `edits` change values on the way, and the gradient is to what they made.

    A name is left out where its value, or nothing of its value, is what the bridge goes on with.
    """
    values: dict[str, torch.Tensor] = {}
    unedited: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Callable[..., torch.Tensor | None]:
        def keep(value: torch.Tensor, hook: Any) -> torch.Tensor | None:
            if not value.is_floating_point():
                return None
            if value.requires_grad:
                unedited[name] = value
            edited = edits[name](value) if edits and name in edits else value
            values[name] = edited.clone()
            if not values[name].requires_grad:
                values[name].requires_grad_()
            return values[name]

        return keep

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that hooks at norms change the last bits
        logits = bridge.run_with_hooks(torch.tensor(tokens), fwd_hooks=[(name, hook(name)) for name in names])
    reference = reference_logits(tuple(logits.shape))
    found: dict[str, dict[str, np.ndarray]] = {}
    for number in numbers:
        of = NUMBERS[number][1](logits, tokens, reference)
        gradients = torch.autograd.grad(of, list(values.values()), retain_graph=True, allow_unused=True)
        found[number] = {
            name: gradient.numpy() for name, gradient in zip(values, gradients, strict=True) if gradient is not None
        }
        # The bridge's resid_mid is what the MLP's norm reads; ours is the stream, which goes on to resid_post too.
        for name in [name for name in found[number] if name.endswith("hook_resid_mid")]:
            post = unedited[name.replace("resid_mid", "resid_post")]
            found[number][name] = found[number][name] + torch.autograd.grad(of, post, retain_graph=True)[0].numpy()
    return found


def far(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> list[str]:
    """The names whose gradients are off, with how far."""
    found = []
    for name, gradient in ours.items():
        if gradient.shape != theirs[name].shape:
            found.append(f"{name}: shape {gradient.shape} against {theirs[name].shape}")
            continue
        scale = float(np.abs(theirs[name]).max())
        difference = float(np.abs(gradient - theirs[name]).max())
        if not difference <= TOLERANCE * scale:
            found.append(f"{name}: {difference} of {scale}")
    return found
