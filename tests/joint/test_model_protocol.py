"""A model in Smalltalk against PyTorch: parts of passes, caches, padding, gradients, attribution, sampling, chat."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from neuroscope import project
from neuroscope.cli.site import smalltalk_string
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import attribution_patch
from transformers import AutoModelForCausalLM, AutoTokenizer

Evaluate = Callable[..., str]

CLEAN = "When Mary and John went to the store, John gave a drink to"
CORRUPTED = "When Mary and John went to the store, Mary gave a drink to"
LOGITS = 1e-4  # float32 on both sides, sums of a few hundred terms
PRELUDE = f"""
model := TransformerModel fromHuggingFace: 'neuroscope-demo'.
text := '{CLEAN}'.
corrupted := '{CORRUPTED}'.
farthest := [ :a :b | (a - b) abs max ]"""


@pytest.fixture(scope="module")
def tokenizer(demo_bundle: Path) -> Any:
    return AutoTokenizer.from_pretrained(demo_bundle)


@pytest.fixture(scope="module")
def reference(demo_bundle: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(demo_bundle, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


@pytest.fixture(scope="module")
def bridge(demo_bundle: Path, tokenizer: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield TransformerBridge.boot_transformers(
            str(demo_bundle), tokenizer=tokenizer, device="cpu", dtype=torch.float32
        )


def ids(tokenizer: Any, text: str) -> torch.Tensor:
    return torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(text)]])


def run(evaluate: Evaluate, *sources: str) -> Any:
    """Evaluates a program whose last expression is written as JSON."""
    return json.loads(evaluate(PRELUDE, *sources, raw=True))


def test_parts_of_a_pass_put_together_are_the_pass(evaluate: Evaluate) -> None:
    """Through each boundary between layers, over cached positions, and cut back and gone on."""
    differences, lengths = run(
        evaluate,
        """| whole rows parts cache first again |
        whole := model forward: text.
        rows := whole tokens first.
        parts := (0 to: model layerCount) collect: [ :layer |
            | stream |
            stream := (model runToLayer: layer on: text) residual.
            farthest value: (model runFromLayer: layer residual: stream) logits value: whole logits ].
        cache := model newCache.
        model forward: (rows first: 5) cache: cache.
        first := model forward: (rows allButFirst: 5) cache: cache.
        cache keep: 3.
        again := model forward: (rows allButFirst: 3) cache: cache.
        Json write: {
            parts asArray , {
                farthest value: first lastLogits value: whole lastLogits.
                farthest value: again logits value: (whole logits sliceFrom: 3 to: -1 axis: 1)}.
            {cache length. rows size}}""",
    )
    assert max(differences) < LOGITS, differences
    assert lengths[0] == lengths[1]


def test_texts_of_different_lengths_are_a_batch(evaluate: Evaluate, reference: Any, tokenizer: Any) -> None:
    texts = ["The cat", CLEAN, "Once upon a time"]
    strings = " ".join(f"'{text}'" for text in texts)
    lengths, last, padding, loss = run(
        evaluate,
        f"""| output |
        output := model forward: #({strings}).
        Json write: {{
            output tokens collect: [ :each | each size ].
            output lastLogits asNestedArray.
            ((output tokenStringsAt: 0) select: [ :each | each = '(padding)' ]) size.
            output loss asNumber}}""",
    )
    rows = [ids(tokenizer, text) for text in texts]
    assert lengths == [row.shape[1] for row in rows]
    assert padding == max(lengths) - lengths[0]
    with torch.no_grad():
        for ours, row in zip(last, rows, strict=True):
            assert np.abs(np.array(ours) - reference(row).logits[0, -1].numpy()).max() < LOGITS
        # Over all tokens alike, as transformers averages where padding is labelled -100.
        losses = [float(reference(row, labels=row).loss) * (row.shape[1] - 1) for row in rows]
    assert loss == pytest.approx(sum(losses) / (sum(lengths) - len(lengths)), abs=1e-4)


def test_rows_padded_on_the_left_are_the_rows_alone(evaluate: Evaluate, reference: Any, tokenizer: Any) -> None:
    """Logits, loss, activations at -1 and over a row's own positions, and tokens behind a cache that is so padded."""
    texts = ["The cat", CLEAN, "Once upon a time"]
    strings = " ".join(f"'{text}'" for text in texts)
    lengths, last, losses, differences, labels = run(
        evaluate,
        f"""| texts names batch output cache further next |
        texts := #({strings}).
        names := #('blocks.1.hook_resid_post' 'blocks.1.attn.hook_z').
        batch := (model batch: texts) asLeftPadded.
        output := model runWithCaching: batch names: names.
        further := model runWithCaching: batch names: names positions: #(-1).
        cache := model newCache.
        model forward: batch cache: cache.
        next := model forward: #((5) (6) (7)) cache: cache.
        Json write: {{
            batch lengths.
            output lastLogits asNestedArray.
            {{output loss asNumber. (model forward: texts) loss asNumber}}.
            (1 to: texts size) asArray collect: [ :row |
                | alone first longer |
                alone := model runWithCaching: (texts at: row) names: names.
                first := batch firstPositionOf: row - 1.
                longer := model forward: {{(batch rows at: row) copyWith: 4 + row}}.
                (names collect: [ :name | | own |
                    own := alone cachedActivations at: name.
                    (farthest
                            value: (((output cachedActivations at: name) at: row - 1) sliceFrom: first to: -1 axis: 0)
                            value: (own at: 0))
                        max: (farthest
                            value: ((further cachedActivations at: name) at: row - 1)
                            value: ((own take: #(-1) axis: 1) at: 0)) ])
                    , {{farthest value: (next lastLogits at: row - 1) value: (longer lastLogits at: 0)}} ].
            output tokenStringsAt: 0}}""",
    )
    rows = [ids(tokenizer, text) for text in texts]
    assert lengths == [row.shape[1] for row in rows]
    with torch.no_grad():
        for ours, row in zip(last, rows, strict=True):
            assert np.abs(np.array(ours) - reference(row).logits[0, -1].numpy()).max() < LOGITS
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert np.max(differences) < LOGITS, differences
    assert labels == ["(padding)"] * (max(lengths) - lengths[0]) + labels[max(lengths) - lengths[0] :]
    assert labels[-1] == " cat"


def test_the_logit_lens_is_the_final_norm_and_the_unembedding(
    evaluate: Evaluate, reference: Any, tokenizer: Any
) -> None:
    ours = run(
        evaluate,
        """| cache |
        cache := (model runWithCaching: text names: #('blocks.0.hook_resid_post' 'blocks.1.hook_resid_mid'))
            cachedActivations.
        Json write: (cache keys collect: [ :each | (model logitsOf: (cache at: each)) asNestedArray ])""",
    )
    row = ids(tokenizer, CLEAN)
    with torch.no_grad():
        hidden = reference(row, output_hidden_states=True).hidden_states
        expected = reference.lm_head(reference.transformer.ln_f(hidden[1]))
        block = reference.transformer.h[1]
        mid = hidden[1] + block.attn(block.ln_1(hidden[1]))[0]
        expected_mid = reference.lm_head(reference.transformer.ln_f(mid))
    assert np.abs(np.array(ours[0]) - expected.numpy()).max() < LOGITS
    # Without a mask transformers' attention here is causal by itself only over the whole row.
    assert np.abs(np.array(ours[1])[0, -1] - expected_mid[0, -1].numpy()).max() < LOGITS


def test_gradients_are_those_of_autograd(evaluate: Evaluate, bridge: Any, tokenizer: Any) -> None:
    """Of the loss, a logit difference and a divergence, to the residual stream, heads and patterns."""
    names = ["blocks.0.hook_resid_post", "blocks.1.attn.hook_z", "blocks.1.attn.hook_pattern", "blocks.2.mlp.hook_post"]
    literal = " ".join(f"'{name}'" for name in names)
    ours = run(
        evaluate,
        f"""| base metrics |
        base := model forward: corrupted.
        metrics := {{
            [ :logits :output | output logitDifferenceOf: ' Mary' and: ' John' ].
            [ :logits :output | output loss ].
            [ :logits :output | output klDivergenceFrom: base ]}}.
        Json write: (metrics collect: [ :metric |
            | gradients |
            gradients := model gradientsOf: metric at: #({literal}) for: text.
            Dictionary newFrom: (gradients keys collect: [ :key | key -> (gradients at: key) asNestedArray ]) ])""",
    )
    row = ids(tokenizer, CLEAN)
    mary, john = (tokenizer.encode(name)[0] for name in (" Mary", " John"))
    with torch.no_grad():
        base = bridge(ids(tokenizer, CORRUPTED))[0, -1].log_softmax(-1)

    def divergence(logits: torch.Tensor) -> torch.Tensor:
        return (base.exp() * (base - logits[0, -1].log_softmax(-1))).sum()

    metrics = [
        lambda logits: logits[0, -1, mary] - logits[0, -1, john],
        lambda logits: torch.nn.functional.cross_entropy(logits[0, :-1], row[0, 1:]),
        divergence,
    ]
    for metric, found in zip(metrics, ours, strict=True):
        kept: dict[str, torch.Tensor] = {}

        def keep(value: torch.Tensor, hook: Any, name: str = "", kept: dict[str, torch.Tensor] = kept) -> torch.Tensor:
            value.retain_grad()
            kept[name] = value
            return value

        logits = bridge.run_with_hooks(row, fwd_hooks=[(name, partial(keep, name=name)) for name in names])
        metric(logits).backward()
        for name in names:
            expected = kept[name].grad
            assert expected is not None, name
            scale = max(float(expected.abs().max()), 1e-6)
            assert np.abs(np.array(found[name]) - expected.numpy()).max() < 2e-4 * scale + 1e-6, name
            assert float(expected.abs().max()) > 1e-5, name


def test_attribution_patching_agrees_with_transformer_lens(evaluate: Evaluate, bridge: Any, tokenizer: Any) -> None:
    ours = run(
        evaluate,
        """| scores |
        scores := model
            attributionPatchingFrom: text
            to: corrupted
            metric: [ :logits :output | output logitDifferenceOf: ' Mary' and: ' John' ]
            names: [ :name | #('hook_z' 'hook_mlp_out' 'hook_embed') anySatisfy: [ :end | name endsWith: end ] ].
        Json write: (Dictionary newFrom:
            (scores keys collect: [ :each | each -> (scores at: each) asNestedArray first ]))""",
    )
    mary, john = (tokenizer.encode(name)[0] for name in (" Mary", " John"))
    result = attribution_patch(
        bridge,
        ids(tokenizer, CLEAN),
        ids(tokenizer, CORRUPTED),
        lambda logits: logits[0, -1, mary] - logits[0, -1, john],
    )
    compared = 0
    largest = max(abs(score) for score in result.node_scores.values())
    for node, score in result.node_scores.items():
        found = ours[node.hook_name][node.position]
        found = found if node.head is None else found[node.head]
        assert found == pytest.approx(score, abs=1e-4 * largest), node
        compared += 1
    assert compared > 100
    assert largest > 0.1


def test_sampling_is_repeatable_and_streams_what_it_answers(evaluate: Evaluate) -> None:
    first, second, other, streamed, text, cut = run(
        evaluate,
        """| options streamed generation cut |
        options := [ :seed |
            (GenerationOptions maxTokens: 12) temperature: 3; topK: 40; seed: seed; stopTokens: #(); yourself ].
        streamed := WriteStream on: String new.
        generation := model generate: text with: (options value: 1) do: [ :token | streamed nextPutAll: token text ].
        cut := 0.
        [ model generate: text maxTokens: 100 do: [ :token | (cut := cut + 1) = 3 ifTrue: [ Error signal: 'enough' ] ] ]
            on: Error do: [ :error | error return: nil ].
        Json write: {
            generation newTokens.
            (model generate: text with: (options value: 1)) newTokens.
            (model generate: text with: (options value: 2)) newTokens.
            streamed contents.
            generation text.
            (Engine default ledger at: 'passes') size}""",
    )
    assert first == second
    assert first != other
    assert text == CLEAN + streamed
    assert cut == 0, "the generation that was left goes on"


def test_hooks_live_in_generation_at_absolute_positions(evaluate: Evaluate, bridge: Any, tokenizer: Any) -> None:
    """Zeroing one layer's attention from position 14 on: only what is generated is touched."""
    seen, tokens, plain = run(
        evaluate,
        """| seen options hook generation |
        seen := OrderedCollection new.
        options := (GenerationOptions maxTokens: 8) stopTokens: #(); yourself.
        hook := ActivationHook name: 'blocks.0.hook_attn_out' action: [ :activation |
            seen add: {activation offset. activation shape second}.
            activation offset > 14 ifTrue: [ activation * 0 ] ].
        generation := model withHooks: {hook} do: [ model generate: text with: options ].
        Json write: {
            seen asArray.
            generation newTokens.
            (model generate: text with: options) newTokens}""",
    )
    row = ids(tokenizer, CLEAN)
    length = row.shape[1]
    assert length == 15

    def zero(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        value[:, length:] = 0
        return value

    with torch.no_grad():
        for _ in range(8):
            logits = bridge.run_with_hooks(row, fwd_hooks=[("blocks.0.hook_attn_out", zero)])
            row = torch.cat([row, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    generated = row[0, length:].tolist()
    assert seen == [[0, length], *([length + step, 1] for step in range(len(generated) - 1))]
    assert tokens == generated
    assert tokens != plain, "the hook made no difference, so nothing was tested"


def test_processed_weights_say_so_and_leave_every_probability(evaluate: Evaluate) -> None:
    """Each change by itself and all together; int8 is further off, and says so too."""
    raw, changed, rounded = run(
        evaluate,
        """| request probabilities before rounded ways |
        request := [ TransformerModel request: 'neuroscope-demo' ].
        probabilities := [ :other | (other forward: text) logits softmax ].
        before := probabilities value: model.
        ways := (ModelRequest processings collect: [ :each | {each} ]) , {ModelRequest processings}.
        rounded := request value int8; load.
        Json write: {
            model basis printString.
            ways collect: [ :each |
                | other difference |
                other := request value processing: each; load.
                difference := farthest value: before value: (probabilities value: other).
                other unload.
                {other basis weights. difference} ].
            {rounded basis dtype. farthest value: before value: (probabilities value: rounded)}}""",
    )
    assert "raw weights" in raw
    words = ["norms folded", "writing centred", "unembedding centred", "value biases folded"]
    assert [weights for weights, _ in changed] == [*words, ", ".join(words)]
    assert max(difference for _, difference in changed) < 1e-5, changed
    assert "int8" in rounded[0]
    assert 1e-4 < rounded[1] < 0.1


def test_a_cache_that_cannot_fit_is_forecast_and_refused_with_the_numbers(evaluate: Evaluate) -> None:
    """Bytes told before and bytes taken agree; a batch for more than the budget is refused before anything runs."""
    forecast, shapes, refusal = run(
        evaluate,
        """| names output rows |
        names := #('blocks.0.attn.hook_pattern' 'blocks.1.hook_resid_post').
        output := model runWithCaching: text names: names.
        rows := (1 to: 160) asArray collect: [ :each | (1 to: model positions) asArray ].
        Json write: {
            model bytesToCache: text names: names.
            names collect: [ :each | (output cachedActivations at: each) byteSize ].
            [ model runWithCaching: rows ] on: OverBudget do: [ :error | error return: error messageText ]}""",
    )
    assert forecast == sum(shapes)
    assert re.search(r"\d+ MB", str(refusal))
    assert "Name fewer hooks" in refusal


def test_a_chat_goes_through_the_checkpoints_template(
    neuroscope: Callable[..., Any], image: Path, demo_bundle: Path, tokenizer: Any, tmp_path: Path
) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}you:{% endif %}"
    )
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(project.DEMO_MODEL, checkpoint)
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    bundle = tmp_path / "chatty"
    assert neuroscope("export", checkpoint, "-o", bundle, "--id", "chatty").returncode == 0
    program = """model := TransformerModel fromHuggingFace: 'chatty'.
    chat := {#system -> 'Be brief.'. #user -> 'Who has the drink?'}.
    reply := model chat: chat with: (GenerationOptions maxTokens: 4).
    Json write: {model chatText: chat. model encodeChat: chat. reply generated size}"""
    finished = neuroscope("eval", "--bundle", bundle, "--raw", "-e", program)
    assert finished.returncode == 0, finished.stderr
    text, encoded, count = json.loads(finished.stdout)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who has the drink?"}]
    arguments = {"chat_template": template, "add_generation_prompt": True}
    assert text == tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
    assert encoded == tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **arguments)
    assert count == 4
    plain = neuroscope("eval", "--bundle", demo_bundle, "-e", program.replace("chatty", "neuroscope-demo"))
    assert plain.returncode == 1
    assert "no chat template" in plain.stderr


def comment_examples() -> list[tuple[str, str]]:
    """(class, its examples) for each class of NeuroScope whose comment shows what to do with a model."""
    found = []
    for file in sorted((project.SMALLTALK / "NeuroScope").glob("*.class.st")):
        comment = file.read_text(encoding="utf-8")[1:].split('\n"\nClass {')[0].replace('""', '"')
        lines = [line[1:] for line in comment.splitlines() if line.startswith("\t") and ">>>" not in line]
        if any(re.search(r"\bmodel\b|\bModelRequest\b|\bTransformerModel\b", line) for line in lines):
            found.append((file.name.removesuffix(".class.st"), "\n".join(lines)))
    return found


def test_the_examples_in_class_comments_run(evaluate: Evaluate) -> None:
    """Each with the names that its comment is about; lines that need a network, for the Hub or a lab, are left out."""
    examples = comment_examples()
    names = {name for name, _ in examples}
    assert {"TransformerModel", "KeyValueCache", "ForwardPass", "Generation", "ModelOutput"} <= names
    blocks = []
    for name, source in examples:
        lines = [line for line in source.splitlines() if "EleutherAI" not in line and "http:" not in line]
        code = "\n".join(lines)
        blocks.append(
            f"failures addAll: ([ Compiler evaluate: {smalltalk_string(code)} bindings: names. #() ] on: Error do: "
            f"[ :error | error return: {{'{name}: ' , error description}} ])."
        )
    failures = json.loads(
        evaluate(
            PRELUDE,
            """names := Dictionary new.
            names
                at: 'model' put: model;
                at: 'aHook' put: (InterventionHook zero: 0 -> #residual);
                at: 'aTensor' put: (model runToLayer: 2 on: text) residual;
                at: 'clean' put: (model runWithCaching: text);
                at: 'cache' put: (model runWithCaching: text) cachedActivations;
                at: 'neuroScopeActivations' put: (Dictionary newFrom: {'hook' -> (model forward: text) logits}).
            failures := OrderedCollection new""",
            *blocks,
            "Json write: failures asArray",
            raw=True,
        )
    )
    assert failures == []
