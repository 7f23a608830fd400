"""The errors that the toolchain reports to a person, drawn once.

    NeuroScopeError             anything that a person can mend; its text is one sentence, exit status 1
    ├── SourceError             a Smalltalk source file: file, line, column, what was expected
    ├── ImageLimitError         a limit of the image format or the bytecode set, with value and bound
    ├── CheckpointError         a folder that is no checkpoint, or one that is damaged or unsupported
    ├── BundleError             a bundle that does not match its bundle.json
    ├── ParityError             an activation that is further from its reference than its tolerance
    ├── LabError                a request that the lab refuses: HTTP status, code, the parameter at fault
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


class LabError(NeuroScopeError):
    """A request that the lab refuses. `code` is a word for programs, `parameter` the field at fault."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        parameter: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.parameter = parameter
        self.retry_after = retry_after

    def as_json(self) -> dict[str, str | None]:
        """In the shape of OpenAI's errors."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else kinds.get(self.status, "invalid_request_error")
        return {"message": str(self), "type": kind, "param": self.parameter, "code": self.code}


class MissingProgramError(NeuroScopeError):
    """A program or package that this command needs and this machine lacks, with how to get it."""
