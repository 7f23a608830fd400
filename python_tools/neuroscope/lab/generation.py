"""Generation with a cache of keys and values, one pass a token, every hook live at each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import TemplateError

from neuroscope.errors import LabError
from neuroscope.lab.model import Floats, LabModel, Tokenizer, Watch
from neuroscope.lab.sampling import Sampler, Sampling, log_softmax
from neuroscope.lab.settings import Limits, Spending

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Request:
    """What is to be generated."""

    prompt: Sequence[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] = ()
    watch: Watch = field(default_factory=Watch)
    likeliest: int = 0  # of the tokens at each place to be told


@dataclass(frozen=True)
class Generated:
    """One token, with what its pass captured: the pass that read what comes before it."""

    token: int
    text: str  # what is new; empty while a character is incomplete or may begin a stop text
    log_probability: float
    activations: Mapping[str, Floats]
    offset: int  # absolute position of the pass's first token
    finish: str | None  # "stop" or "length" at the last one
    likeliest: Sequence[tuple[int, float]] = ()  # tokens and the logarithms of their probabilities


def prompt_of(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a conversation: by the model's chat template, else the contents, one a line, behind the token that
    begins a text. Raises: LabError for messages that the template refuses."""
    if getattr(tokenizer, "chat_template", None):
        return list(tokenizer.encode(chat_text(tokenizer, messages), add_special_tokens=False))
    text = "\n".join(message["content"] for message in messages)
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    start = tokenizer.bos_token_id
    return ids if start is None else [start, *ids]


def chat_text(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True
) -> str:
    """What the model's chat template makes of a conversation. Raises: LabError where there is none, or it refuses."""
    if not getattr(tokenizer, "chat_template", None):
        raise LabError(
            "The model has no chat template; give it plain text.",
            status=409,
            code="no_chat_template",
            parameter="messages",
        )
    try:
        text = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=add_generation_prompt, tokenize=False
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages) or "none"
        raise LabError(
            f"The model's chat template refuses messages with the roles {roles}: {error}",
            code="chat_template_refused",
            parameter="messages",
        ) from error
    return str(text)


def generate(
    model: LabModel, request: Request, limits: Limits, spending: Spending | None = None
) -> Iterator[Generated]:
    """Yields each token as soon as it is known; `spending` goes on with what came before of the same request.

    Raises: LabError beyond a limit, and when the client has gone.
    """
    spending = spending or Spending(limits)
    description = model.description
    if not request.prompt:
        raise LabError("The prompt has no tokens; give at least one.", parameter="messages")
    limits.check("prompt_tokens", len(request.prompt), parameter="messages")
    limits.check("new_tokens", request.max_tokens, parameter="max_tokens")
    room = description.positions - len(request.prompt)
    if room < 1:
        raise LabError(
            f"The prompt has {len(request.prompt)} tokens, and {description.id} has {description.positions} positions, "
            "one of which the first new token needs; shorten the prompt.",
            code="context_length_exceeded",
            parameter="messages",
        )
    sampler = Sampler(request.sampling)
    text = StreamedText(model.tokenizer, request.stop)
    past: Any = None
    tokens = list(request.prompt)
    offset = 0
    count = min(request.max_tokens, room)
    for index in range(count):
        spending.go_on()
        step = model.forward([tokens], request.watch, past=past, last_only=True)
        spending.add_bytes(sum(value.nbytes for value in step.activations.values()))
        token, log_probability = sampler.next(step.logits[0, -1])
        finish = _finish(model, token, index + 1 == count)
        piece = text.add(token) if finish != "stop" else ""
        if text.is_stopped:
            finish = "stop"
        if finish is not None:
            piece += text.rest()
        likeliest = _likeliest(step.logits[0, -1], request.likeliest)
        yield Generated(token, piece, log_probability, step.activations, offset, finish, likeliest)
        if finish is not None:
            return
        offset += len(tokens)
        past, tokens = step.past, [token]


def _likeliest(logits: Floats, count: int) -> list[tuple[int, float]]:
    if count == 0:
        return []
    log_probabilities = log_softmax(logits)
    best = np.argsort(-log_probabilities, kind="stable")[:count]
    return [(int(id), float(log_probabilities[id])) for id in best]


def _finish(model: LabModel, token: int, is_last: bool) -> str | None:
    if model.tokenizer is not None and token == model.tokenizer.eos_token_id:
        return "stop"
    return "length" if is_last else None


class StreamedText:
    """Text from tokens as they come: a character whose bytes are spread over tokens is held back until it is whole,
    and what may be the beginning of a stop text until it is known not to be."""

    def __init__(self, tokenizer: Tokenizer | None, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = [each for each in stop if each]
        self._tokens: list[int] = []
        self._sent = 0
        self._text = ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        self._tokens.append(token)
        if self._tokenizer is None:
            return ""
        self._text = self._tokenizer.decode(self._tokens)
        ends = [place for each in self._stop if (place := self._text.find(each)) >= 0]
        if ends:
            self._text = self._text[: min(ends)]
            self.is_stopped = True
            return self.rest()
        return self._send(len(self._text.rstrip(REPLACEMENT)) - self._possible_stop())

    def rest(self) -> str:
        """What was held back."""
        return self._send(len(self._text))

    def _send(self, end: int) -> str:
        piece = self._text[self._sent : max(end, self._sent)]
        self._sent += len(piece)
        return piece

    def _possible_stop(self) -> int:
        """Characters at the end that may begin a stop text."""
        longest = 0
        for each in self._stop:
            for length in range(1, len(each)):
                if self._text.endswith(each[:length]):
                    longest = max(longest, length)
        return longest
