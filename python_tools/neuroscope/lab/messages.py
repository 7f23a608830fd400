"""The bodies of the lab's requests, as pydantic models: what FastAPI checks, and what its OpenAPI page describes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from neuroscope.lab.hook_names import HookSpec
from neuroscope.lab.interventions import Intervention, read_intervention
from neuroscope.lab.sampling import Sampling


def _whole(text: str) -> str:
    """JSON can name half of a surrogate pair, which no tokenizer reads."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("it has half of a surrogate pair, which is no character; send both halves")
    return text


Text = Annotated[str, AfterValidator(_whole)]


class Part(BaseModel):
    """Of a content; those that are no text are passed over."""

    type: str
    text: Text = ""


class Message(BaseModel):
    """One turn of a conversation. Content may come in parts, of which the texts are read."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part]

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if part.type == "text")

    def as_turn(self) -> dict[str, str]:
        return {"role": self.role, "content": self.text()}


class ActivationHook(BaseModel):
    """`layer_name` is a module path (transformer.h.5) or a TransformerLens name (blocks.5.hook_resid_post)."""

    model_config = ConfigDict(extra="forbid")
    layer_name: Annotated[str, Field(min_length=1, max_length=200)]
    component: str = "residual"
    hook_id: Annotated[str, Field(max_length=200)] | None = None
    capture_input: bool = False
    capture_output: bool = True

    def spec(self) -> HookSpec:
        name = self.hook_id or f"{self.layer_name}_{self.component}"
        return HookSpec(name, self.layer_name, self.component, self.capture_input, self.capture_output)


class LoadRequest(BaseModel):
    """`model` or `model_path`: an allowed id, or its folder."""

    model: str | None = None
    model_path: str | None = None


class HooksRequest(BaseModel):
    """Hooks that stay for the requests to come."""

    activation_hooks: list[ActivationHook] | None = None
    hooks: list[ActivationHook] | None = None

    def all(self) -> list[ActivationHook]:
        return [*(self.activation_hooks or []), *(self.hooks or [])]


Stop = Annotated[str, Field(max_length=1000)]


class StreamOptions(BaseModel):
    """`include_usage`: one more event at the end, without choices, tells the tokens that were used."""

    include_usage: bool | None = False


class ChatRequest(BaseModel):
    """OpenAI's chat completion, with what the lab adds: hooks, interventions, top_k."""

    model: str | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = 1
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    activation_hooks: list[ActivationHook] = []
    interventions: list[dict[str, Any]] = []

    def sampling(self) -> Sampling:
        temperature = 1.0 if self.temperature is None else self.temperature
        seed = None if self.seed is None else self.seed % 2**64  # NumPy's seeds are not negative
        return Sampling(temperature, self.top_k, 1.0 if self.top_p is None else self.top_p, seed)

    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    def read_interventions(self) -> list[Intervention]:
        return [read_intervention(each) for each in self.interventions]
