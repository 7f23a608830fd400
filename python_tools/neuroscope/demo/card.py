"""The demo model's card, written from recipe.json: no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEAD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
---
# NeuroScope's demo model

A GPT-2 of {layers} layers, {heads} heads and width {width}, with {positions} positions, {vocabulary:,} tokens and
{parameters:,} parameters, stored in float16. It is made for lessons in interpretability: small enough to load at once,
and trained on generated English that brings out behaviours one can take apart. It knows nothing else, and its facts
are those of a few tables: use it to look inside, not to ask.

`neuroscope train-demo` makes it again from text; the recipe is in `recipe.json`, the corpus in
`python_tools/neuroscope/demo/`.

## What it was trained on

{tokens:,} tokens, generated on the fly with seed {seed}, in rows of {rows} tokens.
{phases}

Documents, by share: {mixture}.

Names, places, objects, the words of the facts and 0 to 99 are one token each with a space before them; a year is two
tokens, " 17" and "32". A prompt begins with `<|endoftext|>`, as the rows of training do.

## What was measured

On what training never showed: pairs of names, frames, beginnings of years, noun pairs and sums are held out by a hash
(`split.py`), in float32 with the weights as they are stored here. One training run with one seed: what a head does may
differ in another one.

| measure | value |
|---|---|
{measures}

A logit difference alone misleads when a model only pushes the wrong name down; top-1 stands beside it. In the steering
measures a direction (mean formal minus mean informal residual stream after block 1) is added at every position while
64 texts are sampled after "Message:"; a text counts as formal when it has more words that only formal documents use.
"""


def model_card(described: Mapping[str, Any]) -> str:
    """README.md for what recipe.json says."""
    recipe = described["recipe"]
    phases = "\n".join(
        f"- {phase['name']}: {phase['tokens']:,} tokens, {phase['repetition_share']:.0%} of the rows repeated spans, "
        f"learning rate from {phase['start_rate']:g} to {phase['end_rate']:g}"
        for phase in recipe["phases"]
    )
    mixture = ", ".join(f"{kind.replace('_', ' ')} {share:.0%}" for kind, share in recipe["mixture"].items())
    lengths = list(recipe["row_lengths"])
    return _HEAD.format(
        layers=recipe["layers"],
        heads=recipe["heads"],
        width=recipe["width"],
        positions=recipe["positions"],
        vocabulary=described["vocabulary"],
        parameters=described["parameters"],
        tokens=sum(phase["tokens"] for phase in recipe["phases"]),
        seed=recipe["seed"],
        rows=", ".join(lengths[:-1]) + " or " + lengths[-1],
        phases="\n" + phases,
        mixture=mixture,
        measures="\n".join(f"| {name} | {value:g} |" for name, value in described["measures"].items()),
    )
