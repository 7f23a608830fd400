"""Style: messages that are formal or informal from the first word to the last.

A sentence's first words are mostly the same in both styles, and every sentence is drawn apart from the others: what
comes next can only be told from the style of what came before. So the model has to carry the style along, and a
steering lesson finds it as a direction. Held out: 20 % of (request, document) per style.
"""

from __future__ import annotations

import random

from neuroscope.demo.documents.words import NAMES, SURNAMES, words
from neuroscope.demo.split import is_held_out

PAPERS = words("report letter contract invoice schedule document form proposal")
STYLES = ("formal", "informal")
GREETINGS = {
    "formal": ("Dear Mr {surname},", "Dear Mrs {surname},", "Dear Sir,", "Dear Madam,", "Good morning, Mr {surname}."),
    "informal": ("hey {name},", "yo {name}!", "hi {name},", "hey dude,", "what's up {name}?"),
}
REQUESTS = {
    "formal": (
        "I would be most grateful if you could send the {paper} at your earliest convenience.",
        "I am writing to inquire about the {paper}.",
        "please find the {paper} enclosed for your kind consideration.",
        "the {paper} requires your signature and your immediate attention.",
        "we kindly request that you review the {paper}.",
        "it is my pleasure to present the {paper}.",
    ),
    "informal": (
        "I really need the {paper} asap, can you send it over?",
        "I was gonna ask about the {paper} lol.",
        "please just grab the {paper} for me, ok?",
        "the {paper} is kinda messy, wanna fix it?",
        "we gotta check out the {paper} soon man.",
        "it is super cool that you did the {paper}!",
    ),
}
REMARKS = {
    "formal": (
        "I would appreciate your prompt reply.",
        "I sincerely regret any inconvenience.",
        "We look forward to receiving your response.",
        "Your assistance in this matter is greatly appreciated.",
        "The committee will consider it with care.",
        "Should you require further information, do not hesitate to contact me.",
    ),
    "informal": (
        "I owe you a big one.",
        "I totally messed up, sorry!",
        "We should hang out later.",
        "Your help is awesome, no worries if not.",
        "The guys will love it haha.",
        "Should be fun, gimme a shout!",
    ),
}
CLOSINGS = {
    "formal": ("Yours sincerely, {name}.", "Yours faithfully, {name}.",
               "With kind regards, {name}.", "Respectfully, {name}."),
    "informal": ("cheers, {name}!", "thanks a lot, cya!", "see ya, {name}!", "later dude!"),
}  # fmt: skip

# Words that only one style uses: how a generated text is told to be formal or informal.
MARKERS = {
    "formal": words(
        "Dear Sir Madam grateful earliest convenience inquire enclosed kind consideration requires signature kindly "
        "request pleasure appreciate prompt sincerely regret inconvenience receiving assistance matter greatly "
        "appreciated committee require further hesitate Yours faithfully regards Respectfully"
    ),
    "informal": words(
        "hey yo hi dude really asap gonna lol grab ok kinda messy wanna gotta man super cool owe totally messed sorry "
        "hang awesome worries guys haha fun gimme shout cheers thanks cya ya"
    ),
}


def is_held_out_message(style: str, request: str, paper: str) -> bool:
    return is_held_out(20, "style", style, REQUESTS[style].index(request), paper)


def message(source: random.Random, style: str, held_out: bool = False) -> str:
    """One message in `style`; the request and its document from the held-out ones where `held_out`."""
    while True:
        request, paper = source.choice(REQUESTS[style]), source.choice(PAPERS)
        if is_held_out_message(style, request, paper) == held_out:
            break
    parts = [source.choice(GREETINGS[style])] if source.random() < 0.7 else []
    parts.append(request)
    parts += source.sample(REMARKS[style], source.choice((0, 1, 1, 2, 3)))
    if source.random() < 0.7:
        parts.append(source.choice(CLOSINGS[style]))
    return " ".join(parts).format(surname=source.choice(SURNAMES), name=source.choice(NAMES), paper=paper)


def document(source: random.Random) -> str:
    start = source.choice(("Message: ", "Message: ", "Note: ", ""))
    return start + message(source, source.choice(STYLES))


def style_of(text: str) -> str | None:
    """The style whose markers `text` has more of; None where they are as many."""
    words = text.replace(",", " ").replace(".", " ").replace("!", " ").replace("?", " ").split()
    counts = {style: sum(word in MARKERS[style] for word in words) for style in STYLES}
    if counts["formal"] == counts["informal"]:
        return None
    return max(STYLES, key=lambda style: counts[style])
