"""The page's tokenizer gives the ids of Python's `tokenizers`, for texts that try it."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from engine_places import NODE
from neuroscope.project import ROOT
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

END = "<|endoftext|>"
WORDS = """
When Mary and John went to the store, John gave a drink to Mary's sister. It's 1732; they'll've paid £3.50!
naïve café Ünïcödé ÅNGSTRÖM straße İstanbul ﬁne Ⅷ ½ x² fullwidth．Ａ Здравствуй мир こんにちは世界 漢字と仮名
你好，世界。 안녕하세요 שלום عالم नमस्ते ไทย 🙂 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽 don't DON'T I'm we're 'tis
def f(x): return x**2 # comment <html> &amp; {"a": [1, 2.5e-3]} http://a.b/c?d=e \\n \\\\ `~!@#$%^&*()_+-=[]{}|;:',.<>/?
""".split()  # noqa: SIM905
# What JavaScript and Unicode count as a space differs; combining marks; characters of no width.
WORDS += [
    "e\u0301",
    "A\u030a",
    "\u200b\u200d\ufeff",
    "\ufeff",
    "\u0085",
    "\u00a0",
    "\u3000",
    "\u2028",
    "a\u0085b",
    "a\ufeff b",
]
GLUE = [" ", " ", " ", "", "  ", "   ", "\n", "\n\n", " \n", "\t", "\r\n", "\u00a0", END, " " + END + " "]


def texts(count: int = 1000) -> list[str]:
    """Words, emoji, scripts, spaces and newlines, glued at random; and some single hard cases."""
    generator = random.Random(0)
    cases = [
        "",
        " ",
        "  ",
        "\n",
        "\n\n\n",
        "\t\t",
        " a",
        "a ",
        "  a  b  ",
        END,
        END + END,
        f"a{END}b",
        "\u0000",
        "\ud7ff",
        "\U0010ffff",
    ]
    while len(cases) < count:
        length = generator.randint(1, 12)
        cases.append("".join(generator.choice(WORDS) + generator.choice(GLUE) for _ in range(length)))
    return cases


@pytest.fixture(scope="module", params=["trained here", "the demo model's"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE as GPT-2 has it, trained on part of these words; and the demo model's, which splits years."""
    if request.param == "the demo model's":
        return ROOT / "demo_model"
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = BpeTrainer(
        vocab_size=900, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text for text in texts(400) if END not in text], trainer)
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": END,
        "eos_token": {"content": END},
        "add_prefix_space": False,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def test_ids_equal_those_of_tokenizers(folder: Path) -> None:
    cases = texts()
    command = [NODE, "tests/engine/tokenizer_ids.ts", folder]
    done = subprocess.run(command, input=json.dumps(cases), capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)
    oracle = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert ours["size"] == oracle.get_vocab_size()
    assert ours["bos"] == ours["eos"] == oracle.token_to_id(END)
    assert len(cases) == 1000
    for text, result in zip(cases, ours["results"], strict=True):
        ids = oracle.encode(text).ids
        assert result["ids"] == ids, text
        assert result["text"] == text
        assert result["tokens"] == [oracle.decode([each], skip_special_tokens=False) for each in ids], text
