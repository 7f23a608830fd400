"""Weights changed so that they are easier to read and the model stays the same function, as TransformerLens does it.

- norms folded: a norm's weight and bias go into the matrices that read it, and these, behind a norm that takes away the
  mean, lose the mean over their inputs. The norm itself is left with weight 1 and bias 0.
- writing centred: what is written to the residual stream loses its mean, where every reader takes it away anyhow.
- unembedding centred: the logits lose their mean. The one change that moves them, all alike.
- value biases folded: a pattern's rows sum to 1, so the bias of v can be added behind the output matrix.

Tied unembeddings become tensors of their own. Layers that have no bias may get one; config.json then says
`folded_biases`, and the architecture file has rows for these tensors. transformers knows nothing of them and leaves
them out, so a bundle that has them is opened whole only here.

A changed tensor is raw · weight - means, with vectors for weight and means; so it is still read row by row.
Source: TransformerLens's documentation of its compatibility mode; Elhage et al. 2021 for why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroscope.errors import CheckpointError
from neuroscope.export.architecture import Architecture, TensorRule, architecture_of
from neuroscope.export.checkpoint import Checkpoint
from neuroscope.export.decoder import Decoder, decoder_of
from neuroscope.export.int8 import Rows
from neuroscope.export.tensor_file import Floats, row_ranges

Sums = NDArray[np.float64]  # one for each input or output of a matrix


@dataclass(frozen=True)
class Processing:
    """Which changes are made."""

    fold_norms: bool = False
    centre_writing: bool = False
    centre_unembedding: bool = False
    fold_value_biases: bool = False

    def as_json(self) -> dict[str, bool]:
        """As bundle.json and the engine's `load` have it."""
        return {_JSON[name]: True for name, is_done in asdict(self).items() if is_done}

    @staticmethod
    def of_json(value: Mapping[str, bool]) -> Processing:
        return Processing(**{name: bool(value.get(key, False)) for name, key in _JSON.items()})

    def describe(self) -> str:
        return ", ".join(_WORDS[name] for name, is_done in asdict(self).items() if is_done) or "raw"


_JSON = {
    "fold_norms": "foldNorms",
    "centre_writing": "centreWriting",
    "centre_unembedding": "centreUnembedding",
    "fold_value_biases": "foldValueBiases",
}
_WORDS = {
    "fold_norms": "norms folded",
    "centre_writing": "writing centred",
    "centre_unembedding": "unembedding centred",
    "fold_value_biases": "value biases folded",
}
RAW = Processing()


def compatible(architecture: Architecture) -> Processing:
    """All that leaves the function of this family what it is.

    TransformerLens's compatibility mode does as much, and more where that changes the function: value biases behind
    sinks, unembeddings before a cap.
    """
    decoder = decoder_of(architecture)
    return Processing(
        fold_norms=decoder.norm_placement != "after",
        centre_writing=_may_centre_writing(decoder),
        centre_unembedding=decoder.logit_cap is None,
        fold_value_biases=not decoder.has_sinks,
    )


def _may_centre_writing(decoder: Decoder) -> bool:
    return decoder.is_centred and decoder.norm_placement == "before"


def _check(architecture: Architecture, processing: Processing) -> None:
    possible = asdict(compatible(architecture))
    reasons = {
        "fold_norms": "its norms come after what they would be folded into",
        "centre_writing": "its norms keep the mean, so it is part of what is computed",
        "fold_value_biases": "its patterns leave a share to the sinks, so their rows do not sum to 1",
        "centre_unembedding": "its logits are capped, and a cap does not commute with a shift",
    }
    for name, is_asked in asdict(processing).items():
        if is_asked and not possible[name]:
            raise CheckpointError(
                f"{architecture.name} can't be exported with its {_WORDS[name].replace(' ', ' to be ', 1)}: "
                f"{reasons[name]}; leave this out."
            )


def processed(source: Checkpoint, processing: Processing) -> Checkpoint:
    """`source` with its weights changed; they are worked out when they are read.

    Raises: CheckpointError when a change would make the model another function.
    """
    if processing == RAW:
        return source
    _check(source.architecture, processing)
    return _Change(source, processing).checkpoint()


class _Change:
    """The one checkpoint on its way to the other."""

    def __init__(self, source: Checkpoint, processing: Processing) -> None:
        self._source = source
        self._processing = processing
        self._decoder = decoder_of(source.architecture)
        self._holders = {part: name for name, rule in source.rules.items() for part in rule.parts}
        self._config = self._changed_config()
        self._architecture = architecture_of(self._config, source.folder)
        self._rules = self._architecture.tensors()
        table = self._holders["embed.W_E"]
        self._prefix = table.removesuffix(source.rules[table].name)

    def checkpoint(self) -> Checkpoint:
        rules: dict[str, TensorRule] = {}
        tensors: dict[str, Rows] = {}
        for rule in self._rules:
            name = self._name(rule)
            rules[name], tensors[name] = rule, self._changed(rule)
        return replace(self._source, config=self._config, architecture=self._architecture, rules=rules, tensors=tensors)

    def _name(self, rule: TensorRule) -> str:
        held = self._holders.get(rule.parts[0])
        if held is not None:
            return held
        return (self._prefix if self._prefix in rule.prefixes else rule.prefixes[0]) + rule.name

    def _changed_config(self) -> dict[str, Any]:
        """The configuration, with all the tensors that the change needs."""
        processing, architecture = self._processing, self._source.architecture
        config = dict(self._source.config)
        inner = architecture.declaration.get("nested")
        fields: dict[str, Any] = {}
        if processing.fold_norms or processing.centre_writing or processing.centre_unembedding:
            fields["tie_word_embeddings"] = False
        moves_value_biases = processing.fold_value_biases and "blocks.0.attn.b_V" in self._holders
        if (processing.fold_norms and self._decoder.is_centred) or moves_value_biases:
            fields |= self._fields_for_biases(moves_value_biases)
        if inner and isinstance(config.get(inner), dict):
            config[inner] = {**config[inner], **fields}
        return {**config, **fields}

    def _fields_for_biases(self, of_values_only: bool) -> dict[str, Any]:
        """What makes the architecture file's rows of missing biases hold."""
        folds = self._processing.fold_norms and self._decoder.is_centred
        fields: dict[str, Any] = {}
        for entry in self._source.architecture.declaration["tensors"]:
            condition = entry.get("when")
            last = entry["parts"][-1].rpartition(".")[2]
            is_needed = last.startswith("b_") and (folds or (of_values_only and last == "b_O"))
            if is_needed and condition and "config" in condition and not self._source.architecture.is_there(condition):
                fields[condition["config"]] = True
        return fields

    def _changed(self, rule: TensorRule) -> Rows:
        """The tensor of a rule of the changed checkpoint."""
        if rule.use == "vector":
            return Vector(self._changed_vector(rule))
        part = rule.parts[0]
        is_own_unembedding = part == "unembed.W_U" and part not in self._holders
        holder = self._holders["embed.W_E" if is_own_unembedding else part]
        raw, stored = self._source.tensors[holder], self._source.rules[holder]
        norm = self._norm_before(part)
        writes = self._processing.centre_writing and _is_written(part)
        is_centred_unembedding = self._processing.centre_unembedding and part == "unembed.W_U"
        weight = self._weight_of(norm) if norm else None
        has_output_rows = rule.transpose or is_own_unembedding
        takes_input_means = norm is not None and self._decoder.is_centred
        if weight is None and not (writes or is_centred_unembedding or takes_input_means):
            return raw
        changed = Changed(raw, rule, has_output_rows, weight, None, None)
        of_inputs, of_outputs = (
            changed.means() if takes_input_means or writes or is_centred_unembedding else (None, None)
        )
        means_of_outputs = of_inputs if takes_input_means else None  # of each output, over the inputs
        means_of_inputs = of_outputs if writes or is_centred_unembedding else None
        if means_of_outputs is not None and means_of_inputs is not None:
            means_of_inputs = means_of_inputs - means_of_outputs.mean(dtype=np.float64).astype(np.float32)
        del stored
        return Changed(raw, rule, has_output_rows, weight, means_of_outputs, means_of_inputs)

    def _norm_before(self, part: str) -> str | None:
        """The norm whose output a matrix reads, where it is folded."""
        if not self._processing.fold_norms:
            return None
        block, _, name = part.rpartition(".")
        if part == "unembed.W_U":
            return "ln_final" if self._decoder.has_final_norm else None
        if name in ("W_Q", "W_K", "W_V"):
            return block.replace(".attn", ".ln1")
        if ".mlp" in block and (name in ("W_in", "W_gate") or block.endswith(".router")):
            return block[: block.index(".mlp")] + ".ln2"
        return None

    def _weight_of(self, norm: str) -> Floats | None:
        held = self._holders.get(f"{norm}.w")
        if held is None:
            return None
        return self._vector(held) + np.float32(self._decoder.weight_offset)

    def _vector(self, name: str) -> Floats:
        tensor = self._source.tensors[name]
        numbers = tensor.rows(0, int(np.prod(tensor.shape[:-1], dtype=np.int64)))
        return numbers.reshape(tensor.shape)

    def _changed_vector(self, rule: TensorRule) -> Floats:
        part = rule.parts[0]
        held = self._holders.get(part)
        raw = self._vector(held) if held is not None else np.zeros(rule.shape, np.float32)
        owner, _, name = part.rpartition(".")
        is_folded_norm = self._processing.fold_norms and owner.rpartition(".")[2] in ("ln1", "ln2", "ln_final")
        if is_folded_norm:
            return np.full_like(raw, 1 - self._decoder.weight_offset if name == "w" else 0)
        if not name.startswith("b"):
            return raw
        result = raw.astype(np.float64) + self._from_norm(rule)
        if self._processing.fold_value_biases:
            if name in ("b_Q", "b_V"):
                result[_places(rule, f"{owner}.b_V")] = 0
            if name == "b_O":
                result += self._from_values(owner)
        if self._processing.centre_writing and name in ("b_O", "b_out"):
            result -= result.mean(axis=-1, keepdims=True)
        if self._processing.centre_unembedding and part == "unembed.b_U":
            result -= result.mean()
        return result.astype(np.float32)

    def _from_norm(self, rule: TensorRule) -> Sums | float:
        """What the norm's bias adds to the bias of the matrix that reads it."""
        owner, _, name = rule.parts[0].rpartition(".")
        matrix = f"{owner}.W{name.removeprefix('b')}"
        norm = self._norm_before(matrix)
        shift = self._holders.get(f"{norm}.b") if norm else None
        if shift is None:
            return 0.0
        return self._product(self._vector(shift).astype(np.float64), matrix)

    def _from_values(self, owner: str) -> Sums | float:
        """The bias of v behind the output matrix; key-value heads are repeated for the heads that share them."""
        held = self._holders.get(f"{owner}.b_V")
        norm_adds = self._norm_before(f"{owner}.W_V") and f"{owner.replace('.attn', '.ln1')}.b" in self._holders
        if held is None and not norm_adds:
            return 0.0
        rule = next(rule for rule in self._rules if f"{owner}.b_V" in rule.parts)
        raw = self._vector(held).astype(np.float64) if held is not None else np.zeros(rule.shape)
        biases = (raw + self._from_norm(rule))[_places(rule, f"{owner}.b_V")]
        dimensions = self._architecture.dimensions
        heads, groups = dimensions["H"], dimensions.get("KV", dimensions["H"])
        by_head = np.repeat(biases.reshape(groups, -1), heads // groups, axis=0).reshape(-1)
        return self._product(by_head, f"{owner}.W_O")

    def _product(self, vector: Sums, matrix: str) -> Sums:
        """vector · the stored tensor that holds `matrix`, all of its outputs."""
        held = self._holders.get(matrix) or self._holders["embed.W_E"]
        tensor, rule = self._source.tensors[held], self._source.rules[held]
        has_output_rows = rule.transpose or rule.use == "table"
        result = np.zeros(tensor.shape[-2] if has_output_rows else tensor.shape[-1])
        for start, stop in row_ranges(tensor.shape):
            rows = tensor.rows(start, stop)
            if has_output_rows:
                result[start:stop] = rows @ vector
            else:
                result += vector[start:stop] @ rows
            tensor.forget()
        return result


def _is_written(part: str) -> bool:
    """Whether a matrix's outputs, or a table's rows, go to the residual stream."""
    return part in ("embed.W_E", "pos_embed.W_pos") or part.endswith((".attn.W_O", ".mlp.W_out"))


def _places(rule: TensorRule, part: str) -> NDArray[np.bool_]:
    """Which outputs of a tensor are those of one part."""
    if part not in rule.parts:
        return np.zeros(rule.outputs, np.bool_)
    turns = np.concatenate([np.full(size, name == part) for name, size in zip(rule.parts, rule.sizes, strict=True)])
    return np.tile(turns, rule.outputs // len(turns))


@dataclass(frozen=True)
class Vector:
    """A tensor whose numbers are at hand."""

    numbers: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    def rows(self, start: int, stop: int, columns: slice = slice(None)) -> Floats:
        return self.numbers.reshape(-1, self.shape[-1])[start:stop, columns].copy()

    def forget(self) -> None:
        pass


@dataclass(frozen=True)
class Changed:
    """raw · weight - means: a matrix, or a stack of one for each expert, that is changed while it is read."""

    raw: Rows
    rule: TensorRule
    has_output_rows: bool  # [outputs, inputs]
    weight: Floats | None  # of each input
    means_of_outputs: Floats | None
    means_of_inputs: Floats | None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape

    def rows(self, start: int, stop: int, columns: slice = slice(None)) -> Floats:
        numbers = self.raw.rows(start, stop, columns)
        which = np.arange(start, stop) % self.shape[-2]

        def spread(vector: Floats, is_of_rows: bool) -> Floats:
            return vector[which, None] if is_of_rows else vector[columns]

        if self.weight is not None:
            numbers *= spread(self.weight, not self.has_output_rows)
        if self.means_of_outputs is not None:
            numbers -= spread(self.means_of_outputs, self.has_output_rows)
        if self.means_of_inputs is not None:
            numbers -= spread(self.means_of_inputs, not self.has_output_rows)
        return numbers

    def forget(self) -> None:
        self.raw.forget()

    def means(self) -> tuple[Floats, Floats]:
        """Over the inputs, of each output; and over the outputs, of each input."""
        rows, columns = self.shape[-2:]
        of_rows, of_columns = np.zeros(rows), np.zeros(columns)
        for start, stop in row_ranges(self.shape):
            numbers = self.rows(start, stop)
            of_rows[start:stop] = numbers.sum(axis=1, dtype=np.float64)
            of_columns += numbers.sum(axis=0, dtype=np.float64)
            self.forget()
        of_rows, of_columns = of_rows / columns, of_columns / rows
        pair = (of_rows, of_columns) if self.has_output_rows else (of_columns, of_rows)
        return pair[0].astype(np.float32), pair[1].astype(np.float32)
