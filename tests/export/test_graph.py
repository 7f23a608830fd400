"""model.onnx computes what PyTorch computes, at every hook point; and a wrong graph would not pass for a right one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from neuroscope.export import oracles
from neuroscope.export.bundle import export_bundle
from onnx import helper, numpy_helper

TOLERANCE = 1e-4  # the project's; what is seen with these widths is below 3e-6
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]

SHAPES = {
    "odd": {},
    "one head, one layer": {"n_head": 1, "n_layer": 1},
    "heads of width one": {"n_embd": 6, "n_head": 6, "n_inner": 7},
    "default inner width": {"n_inner": None},
    "exact GELU": {"activation_function": "gelu"},
    "ReLU": {"activation_function": "relu"},
    "large epsilon": {"layer_norm_epsilon": 0.1},
    "untied": {"tie_word_embeddings": False},
}


def run_graph(model: Path, tokens: list[list[int]]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(model))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input_ids": np.array(tokens)}), strict=True))


def worst(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference over all hook points; masked scores must be -infinity in both."""
    distance = 0.0
    for name, expected in other.items():
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(one[name][~finite], expected[~finite])
        distance = max(distance, float(np.abs(one[name][finite] - expected[finite]).max()))
    return distance


@pytest.mark.parametrize("case", SHAPES)
def test_every_hook_point_equals_transformer_lens(make_checkpoint, tmp_path, case):
    bundle = export_bundle(make_checkpoint(**SHAPES[case]), tmp_path / "bundle").folder
    expected = oracles.LensOracle(bundle).activations([TOKENS])
    found = run_graph(bundle / "model.onnx", [TOKENS])
    assert found.keys() == expected.keys()
    assert {name: value.shape for name, value in found.items()} == {name: v.shape for name, v in expected.items()}
    assert worst(found, expected) < TOLERANCE


def test_unscaled_scores_equal_transformers(make_checkpoint, tmp_path):
    """TransformerLens's bridge scales them all the same, so it is no oracle here."""
    bundle = export_bundle(make_checkpoint(scale_attn_weights=False), tmp_path / "bundle").folder
    expected = oracles.TorchOracle(bundle).activations([TOKENS])
    assert worst(run_graph(bundle / "model.onnx", [TOKENS]), expected) < TOLERANCE
    assert isinstance(oracles.best_oracle(bundle), oracles.TorchOracle)


@pytest.mark.parametrize("case", ["odd", "exact GELU", "untied"])
def test_the_two_oracles_agree(make_checkpoint, case):
    checkpoint = make_checkpoint(**SHAPES[case])
    expected = oracles.LensOracle(checkpoint).activations([TOKENS])
    assert worst(oracles.TorchOracle(checkpoint).activations([TOKENS]), expected) < 1e-5


def test_hook_points_are_17_a_layer_and_6_in_forward_order(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(n_layer=3), tmp_path / "bundle").folder
    names = [output.name for output in onnx.load(bundle / "model.onnx", load_external_data=False).graph.output]
    assert len(names) == 17 * 3 + 6
    assert names[:2] == ["hook_embed", "hook_pos_embed"] and names[-1] == "unembed.hook_out"
    assert names.index("blocks.0.hook_resid_post") < names.index("blocks.1.hook_resid_pre")


def test_rows_of_a_batch_are_computed_apart(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    rows = [TOKENS, TOKENS[::-1]]
    together = run_graph(bundle / "model.onnx", rows)
    for index, row in enumerate(rows):
        alone = run_graph(bundle / "model.onnx", [row])
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][index : index + 1], value, atol=1e-5)


@pytest.mark.parametrize("length", [1, 19])
def test_one_token_and_all_positions_run(make_checkpoint, tmp_path, length):
    checkpoint = make_checkpoint()
    bundle = export_bundle(checkpoint, tmp_path / "bundle").folder
    tokens = [token % 37 for token in range(length)]
    expected = oracles.TorchOracle(checkpoint).activations([tokens])
    assert worst(run_graph(bundle / "model.onnx", [tokens]), expected) < TOLERANCE


def test_weights_are_not_copied_into_the_graph(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(n_embd=48), tmp_path / "bundle").folder
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            assert {entry.key: entry.value for entry in tensor.external_data}["location"] == "model.safetensors"
        else:
            assert np.prod(tensor.dims, dtype=int) <= 5  # a shape
    assert model.ir_version == 10 and model.opset_import[0].version == 20


# Mutations: each is a mistake that a graph like this one has had somewhere, and each must be seen.


def node(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if output in node.output)


def constant(model: onnx.ModelProto, name: str, number: float) -> None:
    index = next(index for index, tensor in enumerate(model.graph.initializer) if tensor.name == name)
    old = numpy_helper.to_array(model.graph.initializer[index])
    model.graph.initializer[index].CopyFrom(numpy_helper.from_array(np.full_like(old, number), name))


def exact_gelu(model):
    for each in model.graph.node:
        if each.op_type == "Gelu":
            each.attribute[0].CopyFrom(helper.make_attribute("approximate", "none"))


def other_epsilon(model):
    constant(model, "epsilon", 1e-3)


def attention_scale(model):
    constant(model, "score divisor", 3.0)


def mask_one_too_many(model):
    node(model, "future").op_type = "GreaterOrEqual"


def positions_from_one(model):
    graph = model.graph
    graph.node.insert(4, helper.make_node("Add", ["lengths", "[one]"], ["ends"]))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "[one]"))
    slicing = node(model, "positions")
    slicing.input[1], slicing.input[2] = "[one]", "ends"


def missing_bias(model):
    adding = node(model, "blocks.1.mlp.hook_pre")
    adding.op_type = "Identity"
    del adding.input[1]


def mean_of_squares(model):
    squaring = node(model, "blocks.0.ln2.squares")
    squaring.input[0] = squaring.input[1] = node(model, "blocks.0.ln2.mean").input[0]


def queries_and_keys_exchanged(model):
    splitting = next(each for each in model.graph.node if each.op_type == "Split")
    splitting.output[0], splitting.output[1] = splitting.output[1], splitting.output[0]


MUTATIONS = [
    exact_gelu, other_epsilon, attention_scale, mask_one_too_many, positions_from_one, missing_bias, mean_of_squares,
    queries_and_keys_exchanged,
]  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_mistake_in_the_graph_is_beyond_the_tolerance(make_checkpoint, tmp_path, mutate):
    checkpoint = make_checkpoint()
    bundle = export_bundle(checkpoint, tmp_path / "bundle").folder
    expected = oracles.TorchOracle(checkpoint).activations([TOKENS])
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    mutate(model)
    onnx.save(model, bundle / "model.onnx")
    found = run_graph(bundle / "model.onnx", [TOKENS])
    worst_of_all = max(
        float(np.abs(np.where(np.isfinite(value), value, 0) - np.where(np.isfinite(found[name]), found[name], 0)).max())
        for name, value in expected.items()
    )
    assert worst_of_all > 5 * TOLERANCE
