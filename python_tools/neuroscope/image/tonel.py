"""Reads Tonel files: one class, extension or package a file, as text that a person edits.

    "comment"  Class { #name : #Foo, ... }  and then  { #category : #accessing }  Foo >> bar [ ... ]

A method's source is its pattern, a newline, and the text between the brackets without the newline after `[` and
without the white space before `]`; otherwise byte for byte. Every method knows where its characters came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import SourceError
from .faults import Fault, line_and_column
from .scanner import LETTERS, NAME_CHARACTERS

KINDS = ("Class", "Extension", "Package")
Value = str | int | bool | None | list["Value"] | dict[str, "Value"]


@dataclass(frozen=True)
class Place:
    """A position in a file, from 1."""

    path: Path
    line: int
    column: int

    def error(self, message: str) -> SourceError:
        return SourceError(self.path, self.line, self.column, message)


@dataclass(frozen=True)
class TonelMethod:
    class_name: str
    is_class_side: bool
    protocol: str
    source: str
    body_start: int  # index in `source` of the first character of the body
    file_text: str
    path: Path
    pattern_offset: int  # in the file
    body_offset: int

    def place(self, offset: int) -> Place:
        """Where a character of the source stands in the file."""
        in_body = offset >= self.body_start
        file_offset = self.body_offset + offset - self.body_start if in_body else self.pattern_offset + offset
        return Place(self.path, *line_and_column(self.file_text, min(file_offset, len(self.file_text))))


@dataclass(frozen=True)
class TonelFile:
    path: Path
    kind: str
    comment: str
    properties: dict[str, Value]
    places: dict[str, Place]  # of each property's value
    start: Place
    methods: tuple[TonelMethod, ...]


def read_tonel(path: Path) -> TonelFile:
    """Raises: SourceError."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = line_and_column(data[: error.start].decode("utf-8"), error.start)
        raise SourceError(
            path, line, column, f"byte {data[error.start]:02X} is not UTF-8; save the file as UTF-8"
        ) from None
    return parse_tonel(text, path)


def parse_tonel(text: str, path: Path) -> TonelFile:
    """Raises: SourceError."""
    try:
        return _TonelParser(text, path).file()
    except Fault as fault:
        raise SourceError(path, *line_and_column(text, fault.offset), fault.message) from None


def _without_trailing_space(body: str) -> str:
    """The body without the white space at its end; but the character after a final `$` is a literal and stays."""
    result = body.rstrip()
    dollars = len(result) - len(result.rstrip("$"))
    return body[: len(result) + dollars % 2]


class _TonelParser:
    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.path = path
        self.position = 0
        self.places: dict[str, Place] = {}

    def file(self) -> TonelFile:
        self._skip_space()
        comment = self._comment() if self._peek() == '"' else ""
        start = self._place(self.position)
        kind = self._word(f"one of {', '.join(KINDS)}")
        if kind not in KINDS:
            raise Fault(self.position - len(kind), f"found `{kind}`, expected one of {', '.join(KINDS)}")
        properties = self._record(remember=True)
        methods = []
        self._skip_space()
        while self._peek():
            methods.append(self._method())
            self._skip_space()
        return TonelFile(self.path, kind, comment, properties, self.places, start, tuple(methods))

    def _place(self, offset: int) -> Place:
        return Place(self.path, *line_and_column(self.text, offset))

    def _peek(self) -> str:
        return self.text[self.position] if self.position < len(self.text) else ""

    def _skip_space(self) -> None:
        while self._peek() and self._peek() in " \t\r\n\ufeff":
            self.position += 1

    def _found(self) -> str:
        return f"`{self._peek()}`" if self._peek() else "the end of the file"

    def _expect(self, character: str, context: str) -> None:
        self._skip_space()
        if self._peek() != character:
            raise Fault(self.position, f"found {self._found()}, expected `{character}` {context}")
        self.position += 1

    def _word(self, expected: str) -> str:
        self._skip_space()
        start = self.position
        if self._peek() not in LETTERS:
            raise Fault(start, f"found {self._found()}, expected {expected}")
        while self._peek() and self._peek() in NAME_CHARACTERS:
            self.position += 1
        return self.text[start : self.position]

    def _delimited(self, delimiter: str, what: str) -> str:
        """The text up to the closing delimiter, which is doubled where it belongs to the text."""
        start = self.position
        parts = []
        self.position += 1
        while True:
            end = self.text.find(delimiter, self.position)
            if end < 0:
                raise Fault(start, f"unterminated {what}; found the end of the file, expected `{delimiter}`")
            parts.append(self.text[self.position : end])
            self.position = end + 1
            if self._peek() != delimiter:
                return "".join(parts)
            parts.append(delimiter)
            self.position += 1

    def _comment(self) -> str:
        return self._delimited('"', "class comment").strip("\r\n")

    # Metadata: { #key : value, ... }

    def _record(self, *, remember: bool = False) -> dict[str, Value]:
        self._expect("{", "to begin the properties")
        result: dict[str, Value] = {}
        self._skip_space()
        while self._peek() != "}":
            start = self.position
            key = self._value()
            if not isinstance(key, str):
                raise Fault(start, f"found {key!r}, expected a property's name as a symbol, `#name`")
            if key in result:
                raise Fault(start, f"property #{key} is given twice; remove one")
            self._expect(":", f"after #{key}")
            self._skip_space()
            if remember:
                self.places[key] = self._place(self.position)
            result[key] = self._value()
            self._skip_space()
            if self._peek() == ",":
                self.position += 1
                self._skip_space()
            elif self._peek() != "}":
                raise Fault(self.position, f"found {self._found()}, expected `,` or `}}` after the value of #{key}")
        self.position += 1
        return result

    def _value(self) -> Value:
        self._skip_space()
        character = self._peek()
        if character == "#":
            return self._symbol()
        if character == "'":
            return self._delimited("'", "string")
        if character == "[":
            return self._list()
        if character == "{":
            return self._record()
        if character.isdigit():
            start = self.position
            while self._peek().isdigit():
                self.position += 1
            return int(self.text[start : self.position])
        start = self.position
        word = self._word("a value (a symbol, string, number, list or record)")
        if word not in ("true", "false", "nil"):
            raise Fault(
                start, f"found `{word}`, expected a symbol (`#{word}`), a string (`'{word}'`), true, false or nil"
            )
        return {"true": True, "false": False, "nil": None}[word]

    def _symbol(self) -> str:
        self.position += 1
        if self._peek() == "'":
            return self._delimited("'", "symbol")
        start = self.position
        while self._peek() and self._peek() in NAME_CHARACTERS | {":", "-"}:
            self.position += 1
        if start == self.position:
            raise Fault(start, f"found {self._found()}, expected the characters of a symbol after `#`")
        return self.text[start : self.position]

    def _list(self) -> list[Value]:
        self.position += 1
        result: list[Value] = []
        self._skip_space()
        while self._peek() != "]":
            result.append(self._value())
            self._skip_space()
            if self._peek() == ",":
                self.position += 1
                self._skip_space()
            elif self._peek() != "]":
                raise Fault(self.position, f"found {self._found()}, expected `,` or `]` in the list")
        self.position += 1
        return result

    # Methods

    def _method(self) -> TonelMethod:
        start = self.position
        if self._peek() != "{":
            raise Fault(start, f"found {self._found()}, expected `{{ #category : #protocol }}` before the method")
        protocol = self._record().get("category")
        if not isinstance(protocol, str):
            raise Fault(start, "the method has no protocol, expected `{ #category : #protocol }`")
        class_name = self._word("the method's class")
        self._skip_space()
        is_class_side = self.text.startswith("class", self.position)
        if is_class_side:
            self.position += len("class")
            self._skip_space()
        if not self.text.startswith(">>", self.position):
            raise Fault(
                self.position, f"found {self._found()}, expected `>>` between the class and the method's pattern"
            )
        self.position += 2
        self._skip_space()
        pattern_offset = self.position
        opening = self.text.find("[", self.position)
        if opening < 0:
            raise Fault(pattern_offset, "found the end of the file, expected `[` after the method's pattern")
        pattern = self.text[pattern_offset:opening].rstrip()
        closing = self._matching_bracket(opening)
        body_offset = opening + 1
        if self.text.startswith("\r\n", body_offset):
            body_offset += 2
        elif self.text.startswith("\n", body_offset):
            body_offset += 1
        body = _without_trailing_space(self.text[body_offset:closing])
        self.position = closing + 1
        return TonelMethod(
            class_name=class_name,
            is_class_side=is_class_side,
            protocol=protocol,
            source=f"{pattern}\n{body}",
            body_start=len(pattern) + 1,
            file_text=self.text,
            path=self.path,
            pattern_offset=pattern_offset,
            body_offset=body_offset,
        )

    def _matching_bracket(self, opening: int) -> int:
        """The `]` that closes the method: brackets in strings, comments and after `$` do not count."""
        depth = 0
        position = opening
        while position < len(self.text):
            character = self.text[position]
            if character in "'\"":
                end = self.text.find(character, position + 1)
                if end < 0:
                    what = "string" if character == "'" else "comment"
                    raise Fault(position, f"unterminated {what}; found the end of the file, expected `{character}`")
                position = end
            elif character == "$":
                position += 1
            elif character == "[":
                depth += 1
            elif character == "]":
                depth -= 1
                if depth == 0:
                    return position
            position += 1
        raise Fault(opening, "unterminated method; found the end of the file, expected `]`")
