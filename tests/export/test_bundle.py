"""A bundle is the checkpoint's own folder with a graph, a reference and a list of chunks beside it."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from neuroscope.errors import BundleError, CheckpointError
from neuroscope.export import manifest, oracles, reference
from neuroscope.export.bundle import export_bundle
from neuroscope.export.tensor_file import TensorFile
from safetensors import safe_open
from safetensors.numpy import load_file

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_weights_keep_their_names_layouts_and_numbers(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    export_bundle(checkpoint, tmp_path / "bundle")
    before, after = load_file(checkpoint / "model.safetensors"), load_file(tmp_path / "bundle" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, numbers in before.items():
        np.testing.assert_array_equal(after[name], numbers)


def test_weight_file_has_no_holes(make_checkpoint, tmp_path):
    export_bundle(make_checkpoint(), tmp_path / "bundle")
    file = TensorFile(tmp_path / "bundle" / "model.safetensors")
    places = sorted(file.places.values(), key=lambda place: place.offset)
    for one, next_one in pairwise(places):
        assert one.offset + one.bytes == next_one.offset
    assert places[-1].offset + places[-1].bytes == file.size


def test_tied_tensor_is_written_once(make_checkpoint, tmp_path):
    def add_copy(weights):
        weights["lm_head.weight"] = weights["transformer.wte.weight"].copy()

    export_bundle(make_checkpoint(edit=add_copy), tmp_path / "bundle")
    assert "lm_head.weight" not in load_file(tmp_path / "bundle" / "model.safetensors")


def test_untied_unembedding_is_kept(make_checkpoint, tmp_path):
    export_bundle(make_checkpoint(tie_word_embeddings=False), tmp_path / "bundle")
    assert "lm_head.weight" in load_file(tmp_path / "bundle" / "model.safetensors")


def test_masks_of_old_checkpoints_are_left_out(make_checkpoint, tmp_path):
    def add_masks(weights):
        weights["h.0.attn.bias"] = np.ones((1, 1, 19, 19), np.float32)
        weights["h.1.attn.masked_bias"] = np.array(-1e4, np.float32)

    export_bundle(make_checkpoint(edit=add_masks, prefix=""), tmp_path / "bundle")
    export_bundle(make_checkpoint("modern", prefix=""), tmp_path / "without")
    with_masks, without = (load_file(tmp_path / name / "model.safetensors").keys() for name in ("bundle", "without"))
    assert with_masks == without


@pytest.mark.parametrize("prefix", ["transformer.", ""])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_transformers_transformer_lens_and_onnx_runtime_open_the_same_bundle(make_checkpoint, tmp_path, prefix, dtype):
    import onnxruntime

    bundle = export_bundle(make_checkpoint(prefix=prefix), tmp_path / "bundle", dtype=dtype).folder
    of_transformers = oracles.TorchOracle(bundle).activations([TOKENS])["unembed.hook_out"]
    of_lens = oracles.LensOracle(bundle).activations([TOKENS])["unembed.hook_out"]
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
    (of_graph,) = session.run(["unembed.hook_out"], {"input_ids": np.array([TOKENS])})
    np.testing.assert_allclose(of_lens, of_transformers, atol=1e-5)
    np.testing.assert_allclose(of_graph, of_transformers, atol=1e-5)


def test_float16_rounds_to_nearest_and_says_so(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    made = export_bundle(checkpoint, tmp_path / "bundle", dtype="float16")
    before, after = load_file(checkpoint / "model.safetensors"), load_file(made.folder / "model.safetensors")
    for name, numbers in before.items():
        np.testing.assert_array_equal(after[name], numbers.astype(np.float16))
    assert json.loads((made.folder / "config.json").read_text())["dtype"] == "float16"
    assert manifest.read_manifest(made.folder)["dtype"] == "float16"


def test_bfloat16_is_read_exactly(make_checkpoint, tmp_path):
    import torch
    from safetensors.torch import save_file

    checkpoint = make_checkpoint()
    weights = {
        name: torch.tensor(numbers).bfloat16() for name, numbers in load_file(checkpoint / "model.safetensors").items()
    }
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    export_bundle(checkpoint, tmp_path / "bundle")
    after = load_file(tmp_path / "bundle" / "model.safetensors")
    for name, numbers in weights.items():
        np.testing.assert_array_equal(after[name], numbers.float().numpy())


def test_manifest_lists_every_file_in_chunks_that_follow_one_another(make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "CHUNK_BYTES", 1000)
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle", id="some-name").folder
    described = manifest.read_manifest(bundle)
    assert described["id"] == "some-name" and described["source"] == "odd"
    assert {file["name"] for file in described["files"]} == entries(bundle).keys() - {"bundle.json"}
    for file in described["files"]:
        content = (bundle / file["name"]).read_bytes()
        assert file["bytes"] == len(content) and file["sha256"] == hashlib.sha256(content).hexdigest()
        end = 0
        for chunk in file["chunks"]:
            assert chunk["offset"] == end and chunk["bytes"] <= 1000
            end += chunk["bytes"]
            assert chunk["sha256"] == hashlib.sha256(content[chunk["offset"] : end]).hexdigest()
        assert end == len(content)


def test_name_defaults_to_the_folders(make_checkpoint, tmp_path):
    assert export_bundle(make_checkpoint("tiny-gpt2"), tmp_path / "bundle").id == "tiny-gpt2"


def test_license_comes_from_the_model_card(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    (checkpoint / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    export_bundle(checkpoint, tmp_path / "bundle")
    assert manifest.read_manifest(tmp_path / "bundle")["license"] == "mit"


def test_folder_of_a_hub_cache_tells_repository_and_commit(make_checkpoint, tmp_path):
    """There the folder's own name is the commit, and its files are links to blobs."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some-one--tiny-gpt2" / "snapshots" / commit
    cached.mkdir(parents=True)
    for path in make_checkpoint().iterdir():
        (cached / path.name).symlink_to(path)
    made = export_bundle(cached, tmp_path / "bundle", with_reference=False)
    described = manifest.read_manifest(made.folder)
    assert (described["source"], described["revision"]) == ("some-one/tiny-gpt2", commit)
    assert described["id"] == made.id == "tiny-gpt2"


def test_commit_that_the_configuration_notes_is_recorded(make_checkpoint, tmp_path):
    made = export_bundle(make_checkpoint(_commit_hash="abc123"), tmp_path / "bundle", with_reference=False)
    assert manifest.read_manifest(made.folder)["revision"] == "abc123"
    made = export_bundle(make_checkpoint("plain"), tmp_path / "plain_bundle", with_reference=False)
    assert manifest.read_manifest(made.folder)["revision"] is None


def test_same_checkpoint_gives_the_same_bytes(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    one, other = (export_bundle(checkpoint, tmp_path / name).folder for name in ("one", "other"))
    assert entries(one) == entries(other)


def test_sharded_bundle_opens_as_a_whole(make_checkpoint, tmp_path):
    import onnxruntime

    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle", shard_bytes=10_000).folder
    shards = sorted(path.name for path in bundle.glob("model-*.safetensors"))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    of_transformers = oracles.TorchOracle(bundle).activations([TOKENS])
    session = onnxruntime.InferenceSession(str(bundle / "model.onnx"))
    (of_graph,) = session.run(["unembed.hook_out"], {"input_ids": np.array([TOKENS])})
    np.testing.assert_allclose(of_graph, of_transformers["unembed.hook_out"], atol=1e-5)
    again = export_bundle(bundle, tmp_path / "again").folder
    whole = load_file(again / "model.safetensors")
    for shard in shards:
        with safe_open(bundle / shard, "np") as file:
            for name in file.keys():  # noqa: SIM118  the file is no mapping
                np.testing.assert_array_equal(file.get_tensor(name), whole[name])


def test_bundle_takes_the_place_of_an_older_one(make_checkpoint, tmp_path):
    export_bundle(make_checkpoint("first"), tmp_path / "bundle")
    (tmp_path / "bundle" / "parity.json").write_text("{}")
    export_bundle(make_checkpoint("second"), tmp_path / "bundle")
    assert manifest.read_manifest(tmp_path / "bundle")["id"] == "second"
    assert not (tmp_path / "bundle" / "parity.json").exists()


def test_folder_that_is_no_bundle_is_left_alone(make_checkpoint, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter 1")
    with pytest.raises(BundleError, match="is no bundle"):
        export_bundle(make_checkpoint(), tmp_path / "mine")
    assert entries(tmp_path / "mine") == {"thesis.txt": b"chapter 1"}


class TestWithoutTorch:
    @pytest.fixture(autouse=True)
    def no_torch(self, monkeypatch):
        monkeypatch.setattr(reference, "has_torch", lambda: False)

    def test_checkpoints_own_reference_is_taken(self, make_checkpoint, tmp_path, monkeypatch):
        checkpoint = make_checkpoint()
        reference.write_checkpoint_reference(checkpoint)
        made = export_bundle(checkpoint, tmp_path / "bundle")
        assert "the checkpoint's own" in made.reference
        assert (made.folder / reference.NAME).read_bytes() == (checkpoint / reference.NAME).read_bytes()

    def test_reference_of_other_weights_is_not_taken(self, make_checkpoint, tmp_path):
        checkpoint = make_checkpoint()
        reference.write_checkpoint_reference(checkpoint)
        made = export_bundle(checkpoint, tmp_path / "bundle", dtype="float16")  # rounding makes other weights
        assert "belongs to other weights" in made.reference and not (made.folder / reference.NAME).exists()

    def test_bundle_without_reference_says_why(self, make_checkpoint, tmp_path):
        made = export_bundle(make_checkpoint(), tmp_path / "bundle")
        assert "PyTorch is not installed" in made.reference and not (made.folder / reference.NAME).exists()


def drop(name):
    return lambda weights: weights.pop(name)


def put(name, numbers):
    return lambda weights: weights.__setitem__(name, np.asarray(numbers, np.float32))


def set_one(name, number):
    def edit(weights):
        weights[name].flat[5] = number

    return edit


REFUSED = {
    "missing tensor": (
        {"edit": drop("transformer.h.1.mlp.c_fc.bias")},
        r"no tensor transformer\.h\.1\.mlp\.c_fc\.bias of shape \[40\]",
    ),
    "wrong shape": (
        {"edit": put("transformer.h.0.attn.c_attn.weight", np.zeros((72, 24)))},
        r"h\.0\.attn\.c_attn\.weight .* has shape \[72, 24\], and config\.json asks for \[24, 72\]",
    ),
    "tensor too many": (
        {"edit": put("transformer.h.0.attn.q_norm", [1.0])},
        r"a tensor transformer\.h\.0\.attn\.q_norm",
    ),
    "missing unembedding": (
        {"tie_word_embeddings": False, "edit": drop("lm_head.weight")},
        r"no tensor lm_head\.weight",
    ),
    "unknown architecture": (
        {"model_type": "mamba"},
        r"model_type 'mamba', and the supported architectures are gemma2, gemma3, ",
    ),
    "no architecture": ({"model_type": None}, r"model_type None"),
    "refused setting": ({"scale_attn_by_inverse_layer_idx": True}, r"sets scale_attn_by_inverse_layer_idx to True"),
    "unknown activation": ({"activation_function": "swish"}, r"activation_function 'swish'.* gelu, gelu_new"),
    "heads that do not divide": ({"n_head": 5}, r"width 24 and 5 heads"),
    "no layers": ({"n_layer": 0}, r"n_layer 0; it must be a whole number"),
    "other quantisation": (
        {"quantization_config": {"quant_method": "gptq"}},
        r"quantization_config\.quant_method 'gptq', and weights can be read plain or as 'mxfp4'",
    ),
    "infinite weight": ({"edit": set_one("transformer.wpe.weight", np.inf)}, r"transformer\.wpe\.weight .* not finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_checkpoint_is_refused_in_one_sentence_and_nothing_is_left(make_checkpoint, tmp_path, case):
    changes, text = REFUSED[case]
    checkpoint = make_checkpoint(**changes)
    before = set(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=text) as refusal:
        export_bundle(checkpoint, tmp_path / "bundle")
    assert "\n" not in str(refusal.value)
    assert set(tmp_path.iterdir()) == before


def test_float16_overflow_is_refused_by_the_tensors_name(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(edit=set_one("transformer.h.1.ln_2.weight", 70000.0))
    with pytest.raises(CheckpointError, match=r"h\.1\.ln_2\.weight .* holds 70000, and float16 ends at 65504"):
        export_bundle(checkpoint, tmp_path / "bundle", dtype="float16")
    assert export_bundle(checkpoint, tmp_path / "bundle").dtype == "float32"


def test_folder_without_configuration_is_no_checkpoint(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"has no config\.json, so it is no checkpoint"):
        export_bundle(tmp_path / "empty", tmp_path / "bundle")


@pytest.mark.parametrize("file", ["pytorch_model.bin", "weights.pt"])
def test_folder_with_only_a_pickle_is_refused(make_checkpoint, tmp_path, file):
    checkpoint = make_checkpoint()
    (checkpoint / "model.safetensors").rename(checkpoint / file)
    with pytest.raises(CheckpointError, match="only as a pickle, which may run code"):
        export_bundle(checkpoint, tmp_path / "bundle")


@pytest.mark.parametrize("keep", [4, 500, -1])
def test_truncated_weight_file_is_refused(make_checkpoint, tmp_path, keep):
    checkpoint = make_checkpoint()
    content = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(content[:keep])
    with pytest.raises(CheckpointError, match="is damaged"):
        export_bundle(checkpoint, tmp_path / "bundle")


def test_missing_shard_is_named(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(), tmp_path / "sharded", shard_bytes=10_000).folder
    next(bundle.glob("model-00002-*")).unlink()
    with pytest.raises(CheckpointError, match="lacks model-00002-of-"):
        export_bundle(bundle, tmp_path / "bundle")


def test_unknown_dtype_is_refused(make_checkpoint, tmp_path):
    with pytest.raises(BundleError, match="'int4'; the types are float32, float16"):
        export_bundle(make_checkpoint(), tmp_path / "bundle", dtype="int4")
