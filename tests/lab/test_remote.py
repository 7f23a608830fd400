"""A model of a lab answers the image as one in the page does: same names, same numbers, same hooks.

The page's engine, in Node, is the oracle: it computes the same demo model. All programs of this file run in one image,
one after another; each test is about what its own answered.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from neuroscope.lab.model import LabModel

# `theirs` is the lab's model, `mine` the page's.
_MODELS = """
    lab := '%s'.
    theirs := RemoteTransformerModel named: 'demo' at: lab.
    mine := TransformerModel fromHuggingFace: 'neuroscope-demo'.
    text := 'When Mary and John went to the store, John gave a drink to'.
    answers := Dictionary new"""
_PROGRAM = """answers at: '%s' put: ([ %s ] on: Error do: [ :error |
    error return: (Dictionary with: 'error' -> (error class name , ': ' , error messageText)) ])"""
_PROGRAMS: dict[str, str] = {}  # a test's name ► its program

CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages %}{% if message.role == 'tool' %}\
{{ raise_exception('no tools here') }}{% endif %}{{ message.role }}: {{ message.content }}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""

Test = TypeVar("Test", bound=Callable[..., None])


def evaluates(program: str) -> Callable[[Test], Test]:
    """The test gets, as `value`, what this Smalltalk answers, or as `error` what it signals."""

    def register(test: Test) -> Test:
        _PROGRAMS[test.__name__] = program
        return test

    return register


def evaluates_each(program: str, cases: dict[str, str]) -> Callable[[Test], Test]:
    """The same with another part in place of `<case>` each time."""

    def register(test: Test) -> Test:
        for name, case in cases.items():
            _PROGRAMS[f"{test.__name__}[{name}]"] = program.replace("<case>", case)
        return pytest.mark.parametrize("case", cases)(test)

    return register


@pytest.fixture(scope="module")
def server(serve: Callable[..., Any], demo_model: LabModel) -> Iterator[str]:
    """A lab of this file's own, whose model has a chat template."""
    model = copy.copy(demo_model)
    model.tokenizer = copy.deepcopy(demo_model.tokenizer)
    assert model.tokenizer is not None
    model.tokenizer.chat_template = CHAT_TEMPLATE
    with serve(model=model) as url:
        yield url


@pytest.fixture(scope="module")
def answers(server: str, image: Path, demo_bundle: Path, neuroscope: Callable[..., Any]) -> dict[str, Any]:
    programs = [part for name, program in _PROGRAMS.items() for part in ("-e", _PROGRAM % (name, program))]
    last = ("-e", "Json write: answers")
    finished = neuroscope("eval", "--raw", "--bundle", demo_bundle, "-e", _MODELS % server, *programs, *last)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(finished.stdout)
    return found


@pytest.fixture
def value(request: pytest.FixtureRequest, answers: dict[str, Any]) -> Any:
    answer = answers[request.node.name]
    assert not (isinstance(answer, dict) and "error" in answer), answer["error"]
    return answer


@pytest.fixture
def error(request: pytest.FixtureRequest, answers: dict[str, Any]) -> str:
    answer = answers[request.node.name]
    assert isinstance(answer, dict) and "error" in answer, answer
    return str(answer["error"])


@evaluates("""
    names := mine hookNames select: [ :each |
        (theirs hookNames includes: each)
            and: [ (mine isOptionalHook: each) not and: [ (theirs isOptionalHook: each) not ] ] ].
    there := theirs runWithCaching: {text. 'A short one'} names: names.
    here := mine runWithCaching: {text. 'A short one'} names: names.
    rows := names collect: [ :each | | x y |
        x := there cachedActivations at: each. y := here cachedActivations at: each.
        {each. x shape. y shape.
         x shape allButFirst = y shape allButFirst ifTrue: [ ((x at: 0) - (y at: 0)) abs max ].
         (y at: 0) abs max} ].
    {rows. ((there logits at: 0) - (here logits at: 0)) abs max.
        {theirs class name. theirs basis printString}}""")
def test_activations_and_logits_equal_those_of_the_page(value: Any) -> None:
    rows, logits, classes = value
    assert classes == ["RemoteTransformerModel", "demo, raw weights, tokens as given, float32, lab"]
    assert logits < 1e-4
    assert len(rows) > 60
    for name, there, here, difference, largest in rows:
        # Positions are embedded once for all rows there, and repeated for each here.
        assert (there[1:] if name == "hook_pos_embed" else there) == (here[1:] if name == "hook_pos_embed" else here), (
            name
        )
        if not name.endswith("attn_scores"):  # whose masked entries are infinite
            assert difference <= 1e-4 * max(1.0, largest), name


@evaluates("""
    count := 0.
    hook := ActivationHook layer: 1 component: #residual action: [ :activation |
        count := count + 1.
        activation norm > 1 ifTrue: [ activation * 0.5 ] ifFalse: [ activation ] ].
    plain := theirs forward: text.
    there := theirs withHooks: {hook} do: [ theirs forward: text ].
    here := mine withHooks: {hook} do: [ mine forward: text ].
    {(there logits - here logits) abs max. (there logits - plain logits) abs max. count}""")
def test_block_that_branches_acts_as_in_the_page(value: Any) -> None:
    difference, effect, count = value
    assert difference < 1e-4
    assert effect > 0.1
    assert count == 2


@evaluates_each(
    """
    direction := ActivationTensor fromNumbers: ((1 to: 128) collect: [ :each | each sin ]) shape: #(128).
    hook := <case>.
    plain := theirs forward: text.
    there := theirs withHooks: {hook} do: [ theirs forward: text ].
    here := mine withHooks: {hook} do: [ mine forward: text ].
    {(there logits - here logits) abs max. (there logits - plain logits) abs max}""",
    {
        "zero": "InterventionHook zero: 'blocks.2.attn.hook_z' at: {#head -> 1}",
        "scale": "InterventionHook scale: 'blocks.1.hook_resid_post' by: 0.5 at: {#position -> -1}",
        "add": "InterventionHook add: direction to: 'blocks.0.hook_resid_post'",
        "project": "InterventionHook projectOut: direction from: 'blocks.1.hook_resid_pre'",
        "middle": "InterventionHook scale: 'blocks.1.hook_resid_mid' by: 0.5 at: {#position -> -1}",
    },
)
def test_interventions_as_data_act_as_in_the_page(case: str, value: Any) -> None:
    difference, effect = value
    assert difference < 1e-4
    assert effect > 1e-3


@evaluates("""
    run := [ :model | | offsets hook generation |
        offsets := OrderedCollection new.
        hook := ActivationHook layer: 1 component: #residual action: [ :activation |
            offsets add: activation offset. activation * 0.9 ].
        generation := model
            withHooks: {hook}
            do: [ model
                generate: text
                with: (GenerationOptions maxTokens: 5)
                names: #('blocks.2.hook_resid_post')
                do: [ :token | ] ].
        {generation. offsets asArray} ].
    there := run value: theirs.
    here := run value: mine.
    {there first tokens. here first tokens. {there second. here second}.
        ((there first cachedActivations at: 'blocks.2.hook_resid_post')
            - (here first cachedActivations at: 'blocks.2.hook_resid_post')) abs max.
        {there first text. here first text}}""")
def test_generation_keeps_hooks_alive_and_captures(value: Any) -> None:
    there, here, offsets, difference, texts = value
    assert there == here
    assert len(there) > 0
    assert offsets[0] == offsets[1]
    assert offsets[0][:2] == [0, 15]  # the prompt's pass, then one a token, until the text ends
    assert difference < 1e-3
    assert texts[0] == texts[1]


@evaluates("""
    cached := theirs runWithCaching: text names: #('blocks.3.hook_resid_post' 'blocks.2.hook_resid_pre').
    at := theirs runWithCaching: text names: #('blocks.2.hook_resid_pre') positions: #(-1).
    {
        ((theirs logitsOf: (cached cachedActivations at: 'blocks.3.hook_resid_post')) - cached logits) abs max.
        ((theirs runToLayer: 2 on: text) residual
            - (cached cachedActivations at: 'blocks.2.hook_resid_pre')) abs max.
        ((at cachedActivations at: 'blocks.2.hook_resid_pre') at: 0 at: 0) asArray
            = ((cached cachedActivations at: 'blocks.2.hook_resid_pre') at: 0 at: -1) asArray}""")
def test_lens_and_part_of_the_layers_are_offered(value: Any) -> None:
    lens, stopped, positions = value
    assert lens < 1e-4
    assert stopped == 0
    assert positions is True


@evaluates("""
    messages := {#system -> 'Be brief.'. #user -> 'Héllo'}.
    {theirs chatText: messages. theirs encodeChat: messages}""")
def test_chat_goes_through_the_labs_template(value: Any, demo_model: LabModel) -> None:
    text, ids = value
    assert text == "<|endoftext|>system: Be brief.\nuser: Héllo\nassistant:"
    assert demo_model.tokenizer is not None
    assert ids == demo_model.tokenizer.encode(text, add_special_tokens=False)


_REFUSED = {
    "chat": ("theirs chatText: {#tool -> 'Hi'}", "BadMessage", "no tools here"),
    "gradients": (
        "theirs gradientsOf: [ :l | l mean ] at: 'blocks.1.hook_resid_post' for: text",
        "LabRefused",
        "no gradients",
    ),
    "padding": ("theirs forward: (theirs batch: {text. 'a'}) asLeftPadded", "LabRefused", "pad them on the right"),
    "cache": ("theirs forward: 'a' cache: theirs newCache", "LabRefused", "keys and values"),
    "token": ("theirs forward: #(99999)", "TokenOutOfVocabulary", "99999"),
    "hook": ("theirs runWithCaching: text names: #('blocks.1.hook_resid_pots')", "UnknownHook", "hook_resid_post"),
    "model": ("RemoteTransformerModel named: 'gpt5' at: lab", "BundleRefused", "was not allowed"),
    "folded weights": (
        "(ModelRequest repository: ((Lab at: lab) repositoryOf: 'demo')) int8; foldNorms; load",
        "LabRefused",
        "asked for with dtype int8, foldNorms",
    ),
    "no lab": ("RemoteTransformerModel named: 'demo' at: 'http://127.0.0.1:9'", "FetchFailed", "neuroscope serve"),
    "no address": ("(Lab at: 'localhost:8080') models", "FetchFailed", "write one like http://127.0.0.1:8080"),
    "no time": ("(RemoteTransformerModel named: 'demo' at: lab) hookSeconds: 0", "BadParameter", "more than 0"),
    "too much time": (
        "(RemoteTransformerModel named: 'demo' at: lab) hookSeconds: 1000; forward: text",
        "LabRefused",
        "1000 seconds, and this lab allows 300",
    ),
}


@evaluates_each("<case>", {name: program for name, (program, _, _) in _REFUSED.items()})
def test_what_a_lab_does_not_do_is_told_in_a_sentence(case: str, error: str) -> None:
    _, name, words = _REFUSED[case]
    assert error.startswith(f"{name}: ")
    assert words in error
    assert "\n" not in error


@evaluates("""
    hook := ActivationHook layer: 1 component: #residual action: [ :activation | 1 / 0 ].
    caught := [ theirs withHooks: {hook} do: [ theirs forward: text ] ] on: ZeroDivide do: [ :error | 'caught' ].
    {caught. (theirs forward: text) logits shape}""")
def test_error_in_a_block_ends_the_pass_in_the_lab(value: Any) -> None:
    caught, after = value
    assert caught == "caught"
    assert after[0] == 1


@evaluates_each(
    """
    slow := (RemoteTransformerModel named: 'demo' at: lab) hookSeconds: 0.5; yourself.
    isLeft := false.
    block := [ :activation | [ <case> ] ensure: [ isLeft := true ] ].
    hook := ActivationHook layer: 1 component: #residual action: block.
    sentence := [ slow withHooks: {hook} do: [ slow forward: text ] ] on: Error do: [ :each | each description ].
    {sentence. isLeft. (theirs forward: text) logits shape first. (Engine default ledger at: 'passes') size}""",
    {
        "waits": "Semaphore new wait",
        "is busy": "[ true ] whileTrue",
        "comes late": "[ Semaphore new wait ] on: TimedOut do: [ :e | e return ]. (Delay forSeconds: 1) wait. nil",
    },
)
def test_block_that_takes_too_long_ends_the_pass_and_the_lab_goes_on(case: str, value: Any) -> None:
    sentence, is_left, rows, passes = value
    assert sentence.startswith("LabRefused: " if case == "comes late" else "TimedOut: "), sentence
    assert ("not answered in time" if case == "comes late" else "0.5 s that the lab waits") in sentence
    assert is_left
    assert rows == 1  # of the next request
    assert passes == 0
