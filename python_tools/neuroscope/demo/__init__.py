"""The demo model: a small GPT-2, its corpus and its training, all from text.

documents/      the kinds of document, one a file, each with what it holds out
split.py        the rule that holds out
corpus.py       the mixture, packed into rows; rows of repeated spans
tokenizer.py    byte-level BPE
train.py        train_demo: the recipe, its phases, the checkpoint folder
evaluate.py     the measures on held-out questions
card.py         the model card, written from the measures
"""
