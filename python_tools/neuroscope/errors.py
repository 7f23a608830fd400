"""The errors that the toolchain reports to a person, drawn once.

    NeuroScopeError             anything that a person can mend; its text is one sentence, exit status 1
    ├── SourceError             a Smalltalk source file: file, line, column, what was expected
    ├── ImageLimitError         a limit of the image format or the bytecode set, with value and bound
    ├── CheckpointError         a folder that is no checkpoint, or one that is damaged or unsupported
    ├── BundleError             a bundle that does not match its bundle.json
    ├── ParityError             an activation that is further from its reference than its tolerance
    └── MissingProgramError     a program that is missing on this machine, with how to get it

Everything else is a defect of the toolchain and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


class NeuroScopeError(Exception):
    """What happened, the value, what is allowed, what to do: one sentence, in that order."""


class SourceError(NeuroScopeError):
    """A Smalltalk source that cannot be read or compiled."""

    def __init__(self, path: Path | str, line: int, column: int, message: str) -> None:
        super().__init__(f"{path}:{line}:{column}: {message}")
        self.path = path
        self.line = line
        self.column = column
        self.message = message


class ImageLimitError(NeuroScopeError):
    """A method or image that exceeds a limit of the format; the text names value and bound."""


class CheckpointError(NeuroScopeError):
    """A folder that is no checkpoint, or a checkpoint that is damaged or not supported."""


class BundleError(NeuroScopeError):
    """A bundle whose files do not match its bundle.json."""


class ParityError(NeuroScopeError):
    """An activation further from its reference than the stated tolerance; the text names the first hook."""


class MissingProgramError(NeuroScopeError):
    """A program or package that this command needs and this machine lacks, with how to get it."""
