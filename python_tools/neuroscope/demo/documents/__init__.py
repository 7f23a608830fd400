"""The kinds of document in the demo model's corpus, one a file.

Each has `document(source)`, which draws one training document from a `random.Random`; those that hold something out
also make the questions about it.
"""
