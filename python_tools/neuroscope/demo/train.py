"""Training of the demo model: a GPT-2 of four layers on the corpus of `corpus.py`, in phases counted by tokens.

What is unusual, and why:
- The position embeddings start as sinusoids instead of noise, so that "the position before" is linear in them from the
  first step and holds at all 256 positions; they are trained like everything else.
- The initial standard deviation is .06, not .02: at .02 copying stays at chance for millions of tokens.
- A stretch with many repeated spans stands in the middle: with a small share alone, induction does not form.

`train_demo` ends with the whole checkpoint folder: weights in float16, tokenizer, recipe with what was measured, card.
One thread, one seed: the same machine and versions give the same bytes. A run keeps a checkpoint after every chunk in
its work folder and goes on from there when it is started again.
Needs PyTorch and transformers (the `torch` extra).
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from neuroscope.demo.card import model_card
from neuroscope.demo.corpus import (
    CHUNK_STEPS,
    END_OF_TEXT,
    IGNORED,
    MIXTURE,
    ROW_LENGTHS,
    STEP_TOKENS,
    Corpus,
    Step,
    end_of_text,
    kind_of,
)
from neuroscope.demo.evaluate import evaluate
from neuroscope.demo.tokenizer import train_tokenizer

CHUNK_TOKENS = CHUNK_STEPS * STEP_TOKENS


@dataclass(frozen=True)
class Phase:
    """A stretch of training; the learning rate goes in a straight line from `start_rate` to `end_rate`."""

    name: str
    chunks: int
    repetition_share: float
    start_rate: float
    end_rate: float

    @property
    def tokens(self) -> int:
        return self.chunks * CHUNK_TOKENS


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the corpus itself and the versions of the libraries."""

    seed: int = 7
    tokenizer_seed: int = 123
    layers: int = 4
    width: int = 128
    heads: int = 8
    positions: int = 256
    initial_deviation: float = 0.06
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    warmup_steps: int = 200
    phases: tuple[Phase, ...] = field(
        default=(
            Phase("language", 32, 0.2, 2.5e-3, 2.5e-3),
            Phase("copying", 14, 0.5, 2.5e-3, 2.5e-3),
            Phase("settling", 20, 0.2, 2.5e-3, 1.9e-3),
            Phase("cooling", 26, 0.2, 1.9e-3, 1e-4),
        )
    )

    def as_json(self) -> dict[str, Any]:
        """The recipe as recipe.json shows it, with the corpus's shares."""
        values = asdict(self)
        values["phases"] = [{**asdict(phase), "tokens": phase.tokens} for phase in self.phases]
        values["step_tokens"] = STEP_TOKENS
        values["row_lengths"] = {str(length): share for length, share in ROW_LENGTHS.items()}
        values["mixture"] = {kind_of(kind): share for kind, share in MIXTURE.items()}
        return values


def new_model(recipe: Recipe, vocabulary: int, end_of_text: int) -> GPT2LMHeadModel:
    """The untrained model of `recipe`."""
    torch.manual_seed(recipe.seed)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary,
            n_positions=recipe.positions,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            activation_function="gelu_pytorch_tanh",  # gelu_new's formula, in one fused operation
            initializer_range=recipe.initial_deviation,
            bos_token_id=end_of_text,
            eos_token_id=end_of_text,
        )
    )
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(_sinusoids(recipe))
    return model


def _sinusoids(recipe: Recipe) -> torch.Tensor:
    """Wavelengths from 4 positions to 4 times all of them, at the deviation of the other weights.

    Shapes: positions D.
    """
    half = recipe.width // 2
    wavelengths = torch.logspace(math.log10(4), math.log10(4 * recipe.positions), half)
    angles = torch.arange(recipe.positions)[:, None] * (2 * math.pi / wavelengths)[None]
    return torch.cat([angles.sin(), angles.cos()], 1) * recipe.initial_deviation * math.sqrt(2)


def step_loss(model: GPT2LMHeadModel, step: Step) -> torch.Tensor:
    """The mean cross-entropy over the targets that are not left out."""
    tokens, targets = torch.tensor(step.tokens), torch.tensor(step.targets)  # B T
    hidden = model.transformer(input_ids=tokens).last_hidden_state[:, :-1]  # B T-1 D
    known = targets[:, 1:] != IGNORED
    return cross_entropy(model.lm_head(hidden[known]), targets[:, 1:][known])


def _optimizer(recipe: Recipe, model: GPT2LMHeadModel) -> torch.optim.AdamW:
    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    vectors = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=recipe.betas, fused=True)


@dataclass
class Run:
    """A training run that can be left after any chunk and taken up again from its work folder."""

    recipe: Recipe
    work: Path
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        self.model = new_model(self.recipe, self.tokenizer.get_vocab_size(), end_of_text(self.tokenizer))
        self.optimizer = _optimizer(self.recipe, self.model)
        self.corpus = Corpus(self.tokenizer, self.recipe.seed)
        self.chunks_done = 0
        self.work.mkdir(parents=True, exist_ok=True)
        if self._state.exists():
            state = torch.load(self._state, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.chunks_done = state["chunks_done"]

    @property
    def _state(self) -> Path:
        return self.work / "state.pt"

    def finish(self, report: Callable[[str], None]) -> None:
        """Trains what is left of the recipe."""
        first = 0
        for phase in self.recipe.phases:
            for chunk in range(max(first, self.chunks_done), first + phase.chunks):
                started = time.monotonic()
                loss = self._train_chunk(chunk, phase, chunk - first)
                self.chunks_done = chunk + 1
                self._save()
                speed = CHUNK_TOKENS / (time.monotonic() - started)
                report(
                    f"{phase.name}: {self.chunks_done * CHUNK_TOKENS / 1e6:.2f} M tokens, loss {loss:.3f}, "
                    f"{speed:.0f} tokens a second"
                )
            first += phase.chunks

    def _train_chunk(self, chunk: int, phase: Phase, chunks_into_phase: int) -> float:
        total = 0.0
        for index, step in enumerate(self.corpus.chunk(chunk, phase.repetition_share)):
            done = (chunks_into_phase * CHUNK_STEPS + index) / (phase.chunks * CHUNK_STEPS)
            warmth = min(1.0, (chunk * CHUNK_STEPS + index + 1) / self.recipe.warmup_steps)
            for group in self.optimizer.param_groups:
                group["lr"] = warmth * (phase.start_rate + done * (phase.end_rate - phase.start_rate))
            loss = step_loss(self.model, step)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += loss.item()
        return total / CHUNK_STEPS

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "chunks_done": self.chunks_done,
        }
        fresh = self._state.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._state)  # a run that is stopped while it saves keeps its last state


def train_demo(
    output: Path, *, recipe: Recipe | None = None, work: Path | None = None, report: Callable[[str], None] = print
) -> None:
    """Trains the demo model and writes its checkpoint folder to `output`.

    A run that was stopped goes on from the folder `work`, when it is given; `report` gets a line after every chunk.
    The default recipe takes about an hour on one core.
    """
    recipe = recipe or Recipe()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order would be another model
    try:
        with tempfile.TemporaryDirectory() as temporary:
            tokenizer = train_tokenizer(recipe.tokenizer_seed)
            run = Run(recipe, work or Path(temporary), tokenizer)
            run.finish(report)
            write_checkpoint(output, recipe, run.model, tokenizer)
    finally:
        torch.set_num_threads(threads)


def write_checkpoint(output: Path, recipe: Recipe, model: GPT2LMHeadModel, tokenizer: Tokenizer) -> None:
    """Writes the trained model as a Hugging Face folder, measured as it is stored: rounded to float16."""
    model.config.activation_function = "gelu_new"
    model.half().save_pretrained(output)  # type: ignore[no-untyped-call]
    (output / "generation_config.json").unlink()  # says nothing that config.json doesn't
    tokenizer.save(str(output / "tokenizer.json"))
    (output / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(recipe), indent=2) + "\n")
    stored = GPT2LMHeadModel.from_pretrained(output, dtype=torch.float32)
    measures = evaluate(stored, tokenizer)
    described = {
        "recipe": recipe.as_json(),
        "versions": {name: version(name).split("+")[0] for name in ("torch", "transformers", "tokenizers")},
        "parameters": sum(weight.numel() for weight in stored.parameters()),
        "vocabulary": tokenizer.get_vocab_size(),
        "measures": measures,
    }
    (output / "recipe.json").write_text(json.dumps(described, indent=1) + "\n")
    (output / "README.md").write_text(model_card(described))


def _tokenizer_config(recipe: Recipe) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "model_max_length": recipe.positions,
        "clean_up_tokenization_spaces": False,
    }
