"""verify compares every hook point with PyTorch, and names the first one that is off."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_checkpoint as make_family
from neuroscope import project
from neuroscope.errors import BundleError, ParityError
from neuroscope.export import hosts, manifest, oracles
from neuroscope.export import reference as reference_file
from neuroscope.export.bundle import export_bundle
from neuroscope.export.checkpoint import open_checkpoint
from neuroscope.export.reference import NAME as REFERENCE
from neuroscope.export.reference import places_of, read_reference
from neuroscope.export.tensor_file import TensorFile
from neuroscope.export.verify import TOLERANCE, verify_bundle

node_is_there = pytest.mark.skipif(
    not (project.ROOT / "node_modules" / ".bin" / "node").exists(),
    reason="the pinned Node is not installed: make setup",
)
chromium_is_there = pytest.mark.skipif(
    project.chromium_program() is None, reason="no Chromium on the PATH; name one in NEUROSCOPE_CHROMIUM"
)


def flip_weight_byte(bundle: Path, tensor: str, element: int) -> None:
    """Flips the lowest bit of the exponent of one number, and leaves bundle.json as it is."""
    place = TensorFile(bundle / "model.safetensors").places[tensor]
    size = {"F32": 4, "F16": 2}[place.dtype]
    content = bytearray((bundle / "model.safetensors").read_bytes())
    content[place.offset + (element + 1) * size - 1] ^= {4: 0x01, 2: 0x04}[size]
    (bundle / "model.safetensors").write_bytes(content)


def mend_checksums(bundle: Path) -> None:
    fields = {key: value for key, value in manifest.read_manifest(bundle).items() if key not in ("format", "files")}
    manifest.write_manifest(bundle, **fields)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("with_checkpoint", [False, True], ids=["reference", "against"])
def test_graph_of_an_export_passes(make_checkpoint, tmp_path, dtype, with_checkpoint):
    checkpoint = make_checkpoint()
    bundle = export_bundle(checkpoint, tmp_path / "bundle", dtype=dtype).folder
    report = verify_bundle(bundle, against=checkpoint if with_checkpoint else None)
    assert report.first_off is None and len(report.hooks) == 17 * 2 + 6
    assert ("transformer-lens" if with_checkpoint else REFERENCE) in report.oracle
    assert report.largest.difference < TOLERANCE


@node_is_there
@pytest.mark.parametrize("backend", ["wasm", "reference"])
def test_engine_in_node_passes(make_checkpoint, tmp_path, backend):
    checkpoint = make_checkpoint()
    bundle = export_bundle(checkpoint, tmp_path / "bundle", dtype="float16").folder
    report = verify_bundle(bundle, against=checkpoint, host="node", backend=backend)
    assert (report.host, report.backend, report.first_off) == ("node", backend, None)


@node_is_there
@chromium_is_there
@pytest.mark.parametrize("backend", ["wasm", "webgl"])
def test_engine_in_chromium_passes(make_checkpoint, tmp_path, backend):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    # a thread of its own: Playwright starts only once in a thread, and another test's browser may still be open in this
    with ThreadPoolExecutor(1) as thread:
        report = thread.submit(verify_bundle, bundle, host="chromium", backend=backend).result()
    assert (report.host, report.backend, report.first_off) == ("chromium", backend, None)


FLIPS = {
    "transformer.wte.weight": ("hook_embed", 3 * 24 + 1),
    "transformer.wpe.weight": ("hook_pos_embed", 2),
    "transformer.h.0.ln_1.weight": ("blocks.0.attn.hook_q", 4),
    "transformer.h.0.attn.c_attn.weight": ("blocks.0.attn.hook_k", 24),
    "transformer.h.1.attn.c_proj.bias": ("blocks.1.hook_attn_out", 7),
    "transformer.h.1.mlp.c_fc.weight": ("blocks.1.mlp.hook_pre", 5),
    "transformer.ln_f.bias": ("unembed.hook_in", 0),
}


@pytest.mark.parametrize("tensor", FLIPS)
def test_flipped_weight_byte_with_mended_checksums_names_the_first_hook_point_that_is_off(
    make_checkpoint, tmp_path, tensor
):
    hook, element = FLIPS[tensor]
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    flip_weight_byte(bundle, tensor, element)
    mend_checksums(bundle)
    report = verify_bundle(bundle)
    assert report.first_off is not None and report.first_off.hook == hook
    with pytest.raises(ParityError, match=rf"{hook} of .* differs by .*, and .* is allowed"):
        report.raise_if_off()


def test_numbers_between_the_samples_are_watched_by_the_norm(make_checkpoint, tmp_path, monkeypatch):
    bundle = export_bundle(make_checkpoint(vocab_size=300), tmp_path / "bundle").folder
    honest = hosts.OnnxHost.activations

    def tampered(self, tokens):
        values = honest(self, tokens)
        logits = values["unembed.hook_out"].reshape(-1)
        unsampled = np.setdiff1d(np.arange(logits.size), places_of(logits.size))
        logits[unsampled[100]] += 10
        return values

    monkeypatch.setattr(hosts.OnnxHost, "activations", tampered)
    with pytest.raises(ParityError, match=r"unembed\.hook_out of .* has a norm that differs by"):
        verify_bundle(bundle).raise_if_off()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_number_that_is_not_finite_is_off(make_checkpoint, tmp_path, monkeypatch, wrong):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    honest = hosts.OnnxHost.activations

    def tampered(self, tokens):
        values = honest(self, tokens)
        values["blocks.0.hook_mlp_out"][0, 0, 0] = wrong
        return values

    monkeypatch.setattr(hosts.OnnxHost, "activations", tampered)
    report = verify_bundle(bundle)
    assert report.first_off is not None and report.first_off.hook == "blocks.0.hook_mlp_out"
    with pytest.raises(ParityError, match="a number that is not finite"):
        report.raise_if_off()
    json.loads((bundle / "parity.json").read_text(), parse_constant=pytest.fail)


@node_is_there
def test_flipped_weight_byte_is_named_in_node_against_the_checkpoint(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint()
    bundle = export_bundle(checkpoint, tmp_path / "bundle", dtype="float16").folder
    flip_weight_byte(bundle, "transformer.h.1.mlp.c_proj.weight", 100)
    mend_checksums(bundle)
    report = verify_bundle(bundle, against=checkpoint, host="node", backend="wasm")
    assert report.first_off is not None and report.first_off.hook == "blocks.1.hook_mlp_out"


def test_flipped_weight_byte_without_mended_checksums_is_a_damaged_bundle(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    flip_weight_byte(bundle, "transformer.wpe.weight", 2)
    with pytest.raises(BundleError, match=r"model\.safetensors differs from bundle\.json in the chunk at byte 0"):
        verify_bundle(bundle)


def test_report_is_kept_per_host_and_backend(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    verify_bundle(bundle)
    verify_bundle(bundle)
    (run,) = json.loads((bundle / "parity.json").read_text())["runs"]
    assert run["host"] == "onnx" and run["firstOff"] is None and run["tolerance"] == TOLERANCE
    assert [hook["hook"] for hook in run["hooks"]][:2] == ["hook_embed", "hook_pos_embed"]
    assert all(hook["difference"] <= hook["allowed"] for hook in run["hooks"])
    verify_bundle(bundle)  # parity.json is no part of the bundle, so it is still whole


def test_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"is no bundle: it has no bundle\.json"):
        verify_bundle(tmp_path)


def test_missing_file_is_named(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    (bundle / "config.json").unlink()
    with pytest.raises(BundleError, match=r"lacks config\.json, which bundle\.json lists"):
        verify_bundle(bundle)


@pytest.mark.parametrize(
    ("host", "backend", "text"),
    [("firefox", None, "the hosts are onnx, node, chromium"), ("node", "cuda", "it has wasm, webgl, reference")],
)
def test_unknown_host_or_backend_is_refused(make_checkpoint, tmp_path, host, backend, text):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    with pytest.raises(BundleError, match=text):
        verify_bundle(bundle, host=host, backend=backend)


def test_bundle_without_reference_asks_for_the_checkpoint(make_checkpoint, tmp_path):
    bundle = export_bundle(make_checkpoint(), tmp_path / "bundle").folder
    (bundle / REFERENCE).unlink()
    mend_checksums(bundle)
    with pytest.raises(BundleError, match="name the checkpoint with --against"):
        verify_bundle(bundle)


def test_reference_holds_norms_and_seeded_samples(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(vocab_size=300)
    bundle = export_bundle(checkpoint, tmp_path / "bundle").folder
    (prompt,) = read_reference(bundle / REFERENCE).prompts  # no tokenizer, so the seeded tokens alone
    assert len(prompt.tokens) == 19
    whole = oracles.TorchOracle(checkpoint).activations([prompt.tokens])["unembed.hook_out"]
    known = prompt.hooks["unembed.hook_out"]
    assert known.samples.size == 1024 < whole.size
    np.testing.assert_array_equal(known.samples, whole.reshape(-1)[places_of(whole.size)])
    assert known.norm == pytest.approx(np.linalg.norm(whole), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "made_with"),
    [
        ("llama", r"torch [\d.]+, transformer-lens [\d.]+"),
        ("phi3", r"torch [\d.]+, transformer-lens [\d.]+, transformers [\d.]+ for attn\.hook_rot_k, attn\.hook_rot_q"),
        ("opt_after", r"torch [\d.]+, transformers [\d.]+"),
    ],
    ids=lambda text: text.partition(" ")[0],
)
def test_reference_says_which_oracle_knew_which_point(tmp_path, name, made_with):
    checkpoint = make_family(tmp_path / "checkpoint", name).folder
    bundle = export_bundle(checkpoint, tmp_path / "bundle").folder
    reference = read_reference(bundle / REFERENCE)
    assert re.fullmatch(made_with, reference.made_with), reference.made_with
    points = {point.name for point in open_checkpoint(bundle).architecture.hook_points() if point.on}
    assert reference.prompts[0].hooks.keys() == points
    assert verify_bundle(bundle).first_off is None


def test_reference_that_does_not_fit_into_memory_is_left_out(make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(reference_file, "_free_memory", lambda: 1000.0)
    made = export_bundle(make_checkpoint(), tmp_path / "bundle")
    assert "none: PyTorch would hold the weights as float32" in made.reference
    assert not (made.folder / REFERENCE).exists()
