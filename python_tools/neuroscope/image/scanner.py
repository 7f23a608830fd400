"""Smalltalk text ► tokens. One pass, no context: what a `-` or a `|` means is the parser's business.

Letters and digits are ASCII; anything may stand in strings, comments and after `$`. Radix digits are upper case.
A run of binary characters is one token, except that a `-` right before a digit begins the next token unless it
begins the run (`a>-1` is `a`, `>`, `-`, `1`) and that `|` is always a token of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from .faults import Fault
from .literals import (
    CharacterLiteral,
    FractionLiteral,
    IntegerLiteral,
    Literal,
    ScaledDecimalLiteral,
    StringLiteral,
    SymbolLiteral,
    float_literal,
)

LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
DIGITS = frozenset("0123456789")
NAME_CHARACTERS = LETTERS | DIGITS
BINARY_CHARACTERS = frozenset("+-*/\\~<>=@%&?!,")
RADIX_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
WHITE_SPACE = frozenset(" \t\n\r\f\ufeff")

# Kinds of tokens; for the single characters the kind is the text itself.
IDENTIFIER = "identifier"
KEYWORD = "keyword"
BINARY = "binary selector"
LITERAL = "literal"
ASSIGN = ":="
END = "end of the source"
SINGLE = frozenset("^.;()[]{}:|")


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    start: int
    stop: int
    literal: Literal | None = None

    def __str__(self) -> str:
        return self.kind if self.kind == END else f"`{self.text}`"


class Scanner:
    """Reads one method's source; `tokens` is the whole of it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.position = 0

    def tokens(self) -> list[Token]:
        result = []
        while True:
            token = self._next()
            result.append(token)
            if token.kind == END:
                return result

    def _peek(self, ahead: int = 0) -> str:
        index = self.position + ahead
        return self.source[index] if index < len(self.source) else ""

    def _skip_space_and_comments(self) -> None:
        while True:
            character = self._peek()
            if character == '"':
                end = self.source.find('"', self.position + 1)
                if end < 0:
                    raise Fault(self.position, 'unterminated comment; found the end of the source, expected `"`')
                self.position = end + 1
            elif character and character in WHITE_SPACE:
                self.position += 1
            else:
                return

    def _token(self, kind: str, start: int, literal: Literal | None = None) -> Token:
        return Token(kind, self.source[start : self.position], start, self.position, literal)

    def _next(self) -> Token:
        self._skip_space_and_comments()
        start = self.position
        character = self._peek()
        if not character:
            return self._token(END, start)
        if character in LETTERS:
            return self._identifier_or_keyword()
        if character in DIGITS:
            literal = self._number()
            return self._token(LITERAL, start, literal)
        if character == "'":
            text = self._quoted("string")
            return self._token(LITERAL, start, StringLiteral(text))
        if character == "$":
            if not self._peek(1):
                raise Fault(start, "found `$` at the end of the source, expected a character after it")
            self.position += 2
            return self._token(LITERAL, start, CharacterLiteral(ord(self.source[start + 1])))
        if character == "#":
            return self._after_hash()
        if character == ":" and self._peek(1) == "=":
            self.position += 2
            return self._token(ASSIGN, start)
        if character in SINGLE:
            self.position += 1
            return self._token(character, start)
        if character in BINARY_CHARACTERS:
            self._binary_run()
            return self._token(BINARY, start)
        raise Fault(start, f"found {character!r} (code point {ord(character)}), which begins no Smalltalk token")

    def _identifier_or_keyword(self) -> Token:
        start = self.position
        self._name()
        if self._peek() == ":" and self._peek(1) != "=":
            self.position += 1
            return self._token(KEYWORD, start)
        return self._token(IDENTIFIER, start)

    def _name(self) -> None:
        while self._peek() and self._peek() in NAME_CHARACTERS:
            self.position += 1

    def _binary_run(self) -> None:
        self.position += 1
        while self._peek() and self._peek() in BINARY_CHARACTERS:
            if self._peek() == "-" and self._peek(1) and self._peek(1) in DIGITS:
                return
            self.position += 1

    def _quoted(self, what: str) -> str:
        start = self.position
        parts = []
        self.position += 1
        while True:
            end = self.source.find("'", self.position)
            if end < 0:
                raise Fault(start, f"unterminated {what}; found the end of the source, expected `'`")
            parts.append(self.source[self.position : end])
            self.position = end + 1
            if self._peek() != "'":
                return "".join(parts)
            parts.append("'")
            self.position += 1

    def _after_hash(self) -> Token:
        start = self.position
        self.position += 1
        character = self._peek()
        if character and character in "([":
            self.position += 1
            return self._token(f"#{character}", start)
        if character == "'":
            text = self._quoted("symbol")
            return self._token(LITERAL, start, SymbolLiteral(text))
        if character and character in LETTERS:
            while self._peek() and (self._peek() in NAME_CHARACTERS or self._peek() == ":"):
                if self._peek() == ":" and self._peek(1) == "=":
                    break
                self.position += 1
        elif character and character in BINARY_CHARACTERS:
            self._binary_run()
        elif character == "|":
            self.position += 1
        else:
            found = repr(character) if character else END
            raise Fault(start, f"found {found} after `#`, expected a symbol, `'`, `(` or `[`")
        return self._token(LITERAL, start, SymbolLiteral(self.source[start + 1 : self.position]))

    # Numbers: digits [r radix digits] [. digits] [e [-] digits] [s [digits]]

    def _decimal_digits(self) -> str:
        start = self.position
        while self._peek() and self._peek() in DIGITS:
            self.position += 1
        return self.source[start : self.position]

    def _radix_digits(self, radix: int, start: int) -> str:
        allowed = RADIX_DIGITS[:radix]
        first = self.position
        while self._peek() and self._peek() in RADIX_DIGITS:
            if self._peek() not in allowed:
                raise Fault(start, f"digit {self._peek()!r} in a number of radix {radix}, expected one of {allowed}")
            self.position += 1
        return self.source[first : self.position]

    def _number(self) -> Literal:
        start = self.position
        whole = self._decimal_digits()
        radix = 10
        if self._peek() == "r" and self._peek(1) and self._peek(1) in RADIX_DIGITS:
            radix = int(whole)
            if not 2 <= radix <= 36:
                raise Fault(start, f"radix {radix}, expected 2 to 36")
            self.position += 1
            whole = self._radix_digits(radix, start)
        fraction = ""
        follower = self._peek(1)
        if self._peek() == "." and follower and follower in RADIX_DIGITS[:radix]:
            self.position += 1
            fraction = self._radix_digits(radix, start) if radix != 10 else self._decimal_digits()
        exponent = self._exponent()
        value = Fraction(int(whole + fraction, radix)) * Fraction(radix) ** (exponent - len(fraction))
        scale = self._scale(len(fraction))
        if scale is not None:
            return ScaledDecimalLiteral(value.numerator, value.denominator, scale)
        if fraction:
            return float_literal(self._nearest_float(value, start))
        if value.denominator == 1:
            return IntegerLiteral(value.numerator)
        return FractionLiteral(value.numerator, value.denominator)

    def _exponent(self) -> int:
        if self._peek() != "e":
            return 0
        negative = self._peek(1) == "-"
        first = self._peek(2 if negative else 1)
        if not first or first not in DIGITS:
            return 0
        start = self.position
        self.position += 2 if negative else 1
        digits = self._decimal_digits()
        if len(digits) > 4:
            raise Fault(start, f"exponent {digits}, expected at most 9999")
        return -int(digits) if negative else int(digits)

    def _scale(self, fraction_digits: int) -> int | None:
        """`s`, or `s2`; but the `s` of `3sin` belongs to the name after the number."""
        if self._peek() != "s":
            return None
        length = 1
        while self._peek(length) and self._peek(length) in DIGITS:
            length += 1
        if self._peek(length) and self._peek(length) in LETTERS:
            return None
        digits = self.source[self.position + 1 : self.position + length]
        self.position += length
        return int(digits) if digits else fraction_digits

    def _nearest_float(self, value: Fraction, start: int) -> float:
        """The double nearest to an exact value, ties to even."""
        try:
            result = value.numerator / value.denominator
        except OverflowError:
            result = math.inf
        if math.isinf(result):
            raise Fault(start, "the number is beyond the range of Float, which ends at 1.7976931348623157e308")
        return result
