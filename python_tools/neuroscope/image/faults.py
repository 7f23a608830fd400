"""What is wrong in a piece of Smalltalk source, before anyone knows which file it came from.

The scanner, the parser and the generator see one method; they raise a Fault with an offset into that method's
source. Whoever knows the file turns it into a SourceError or an ImageLimitError with path, line and column.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import ImageLimitError, NeuroScopeError, SourceError


class Fault(Exception):
    """A fault at an offset (characters, from 0) of one method's source."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message

    def located(self, path: Path | str, line: int, column: int) -> NeuroScopeError:
        return SourceError(path, line, column, self.message)


class LimitFault(Fault):
    """A method that exceeds a limit of the bytecode set; the message names value and bound."""

    def located(self, path: Path | str, line: int, column: int) -> NeuroScopeError:
        return ImageLimitError(f"{path}:{line}:{column}: {self.message}")


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Line and column (from 1, in characters) of an offset in a text."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def listing(names: list[str]) -> str:
    """`a, b or c`, for messages."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
