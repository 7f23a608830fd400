"""Chat templates give transformers' text, for templates that use what published ones use; and its ids."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from engine_places import NODE
from jinja2.exceptions import TemplateError
from neuroscope.project import ROOT
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

SPECIAL = {"bos_token": "<|begin|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"}

# Headers and trimmed contents, as Llama 3 has them; the system's message is apart.
LLAMA = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{%- if system_message or tools is not none %}
    {{- "<|head|>system<|/head|>\\n\\n" + system_message + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
"""

# ChatML with a default system message, a namespace that is changed in a loop over a reversed list, and JSON, as Qwen.
QWEN = """{%- set ns = namespace(last_user=-1, seen=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.seen and message.role == "user" and message.content is string %}
        {%- set ns.seen = true %}
        {%- set ns.last_user = index %}
    {%- endif %}
{%- endfor %}
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
    {%- if loop.index0 == ns.last_user %}{{- '(last) ' }}{%- endif %}
    {%- if '</think>' in message.content %}
        {{- message.content.split('</think>')[-1].lstrip('\\n') }}
    {%- else %}
        {{- message.content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if tools %}{{- tools | tojson }}{%- endif %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""

# Refuses a system's message and two of one role in a row; renames the assistant, as Gemma. No line is trimmed by hand.
GEMMA = """{{ bos_token }}{% set first = messages[0]['role'] %}{% if first == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
  {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
  {% endif %}
  {% set role = "model" if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role }}
{{ message['content'] | trim + '<end_of_turn>' }}
{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

# A macro, a filter over messages, escapes and a count, as Mistral.
MISTRAL = """{%- macro wrapped(text) -%}[INST] {{ text }} [/INST]{%- endmacro -%}
{%- set loop_messages = messages | rejectattr('role', 'equalto', 'system') | list -%}
{{- bos_token -}}
{%- for message in loop_messages -%}
    {%- if message['role'] == 'user' -%}
        {%- if loop.last and messages[0]['role'] == 'system' -%}
            {{- wrapped(messages[0]['content'] + '\\n\\n' + message['content']) -}}
        {%- else -%}
            {{- wrapped(message['content']) -}}
        {%- endif -%}
    {%- elif message['role'] == 'assistant' -%}
        {{- ' ' + message['content'] + eos_token -}}
    {%- else -%}
        {{- raise_exception('Only user, system and assistant roles, not in ' ~ loop_messages|length ~ ' messages') -}}
    {%- endif -%}
{%- endfor -%}"""

TEMPLATES = {"llama": LLAMA, "qwen": QWEN, "gemma": GEMMA, "mistral": MISTRAL}

CHATS = [
    [("user", "Hi")],
    [("user", "  Was ist 3 < 4 && \"5\" > '2'?\n"), ("assistant", "wahr 🙂"), ("user", "漢字\n\nzwei")],
    [("system", "Be brief. "), ("user", "Why?")],
    [("system", ""), ("user", "a"), ("assistant", "<think>\nhm</think>\n\nb"), ("user", "c")],
    [("user", "a"), ("user", "b")],
    [("user", "a"), ("tool", "b")],
]


def messages_of(chat: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in chat]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE without merges, which puts a token in front by itself, as Llama's does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {text: number for number, text in enumerate([*SPECIAL.values(), *alphabet])}
    plain = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens(list(SPECIAL.values()))
    plain.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=plain, **SPECIAL)


def ours(cases: list[dict[str, Any]]) -> list[list[dict[str, str]]]:
    command = [NODE, "tests/engine/chat_texts.ts"]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[list[dict[str, str]]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("place", ["in the configuration", "named", "in a file"])
def test_templates_render_as_in_transformers(tokenizer: PreTrainedTokenizerFast, place: str) -> None:
    chats = [{"messages": messages_of(chat), "prompt": prompt} for chat in CHATS for prompt in (False, True)]
    cases = []
    for template in TEMPLATES.values():
        entry: Any = {
            "in the configuration": template,
            "named": [{"name": "rag", "template": "wrong"}, {"name": "default", "template": template}],
            "in a file": "wrong",
        }[place]
        config = {**SPECIAL, "eos_token": {"content": SPECIAL["eos_token"]}, "chat_template": entry}
        cases.append({"config": config, "file": template if place == "in a file" else None, "chats": chats})
    refused = 0
    for (name, template), results in zip(TEMPLATES.items(), ours(cases), strict=True):
        for chat, result in zip(chats, results, strict=True):
            try:
                expected = tokenizer.apply_chat_template(
                    chat["messages"], chat_template=template, add_generation_prompt=chat["prompt"], tokenize=False
                )
            except TemplateError as error:
                assert str(error) in result["error"], (name, chat)
                refused += 1
            else:
                assert result == {"text": expected}, (name, chat)
    assert 0 < refused < len(chats) * len(TEMPLATES) / 2


def test_a_model_without_a_template_says_so() -> None:
    [[result]] = ours(
        [{"config": SPECIAL, "file": None, "chats": [{"messages": messages_of(CHATS[0]), "prompt": True}]}]
    )
    assert "no chat template" in result["error"]
    assert "tokenizer_config.json" in result["error"]


def test_the_template_alone_puts_a_token_in_front(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """A tokenizer that puts one there by itself would make it two."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(LLAMA)
    script = """
import { readFileSync } from "node:fs";
import { Tokenizer } from "./js_bridge/tokenizer/tokenizer.ts";
const folder = process.argv[1];
const read = (name) => readFileSync(`${folder}/${name}`, "utf8");
const tokenizer = new Tokenizer(JSON.parse(read("tokenizer.json")), JSON.parse(read("tokenizer_config.json")),
  read("chat_template.jinja"));
process.stdout.write(JSON.stringify(tokenizer.chat([{ role: "user", content: "Hi" }], true)));
"""
    done = subprocess.run(
        [NODE, "--input-type=module-typescript", "-e", script, tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    expected = tokenizer.apply_chat_template(
        messages_of(CHATS[0]), chat_template=LLAMA, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert json.loads(done.stdout)["ids"] == expected
    assert expected.count(0) == 1
