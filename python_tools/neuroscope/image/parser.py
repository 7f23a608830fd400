"""Tokens ► syntax tree, by recursive descent: unary binds before binary, binary before keyword, cascades last.

Here a `-` directly before a number, where an operand is due, makes the number negative; elsewhere it is a selector
(`3 -2` is 1, `3 - -2` is 5). Redundant periods are allowed; a statement after `^` is not.
"""

from __future__ import annotations

from .faults import Fault, listing
from .literals import (
    FALSE,
    NIL,
    TRUE,
    ArrayLiteral,
    ByteArrayLiteral,
    FloatLiteral,
    FractionLiteral,
    IntegerLiteral,
    Literal,
    ScaledDecimalLiteral,
    StringLiteral,
    SymbolLiteral,
)
from .nodes import (
    Assignment,
    Block,
    Brace,
    Cascade,
    Expression,
    LiteralNode,
    Message,
    Method,
    PragmaNode,
    Return,
    Send,
    Statement,
    Variable,
    is_super,
)
from .scanner import ASSIGN, BINARY, END, IDENTIFIER, KEYWORD, LITERAL, Scanner, Token

DO_IT_SELECTOR = "DoIt"
_CONSTANTS: dict[str, Literal] = {"nil": NIL, "true": TRUE, "false": FALSE}
_OPERAND = "an operand (a variable, a literal, `(`, `[` or `{`)"


def parse_method(source: str) -> Method:
    return Parser(source).method()


def parse_do_it(source: str) -> Method:
    """A sequence of statements as a method without arguments; the last expression is answered."""
    return Parser(source).do_it()


class Parser:
    def __init__(self, source: str) -> None:
        self._tokens = Scanner(source).tokens()
        self._index = 0
        self._parenthesised: Expression | None = None  # the last one: `(a b); c` is no cascade

    @property
    def _token(self) -> Token:
        return self._tokens[self._index]

    def _advance(self) -> Token:
        token = self._token
        if token.kind != END:
            self._index += 1
        return token

    def _at(self, kind: str) -> bool:
        return self._token.kind == kind

    def _at_binary(self, text: str) -> bool:
        return self._token.kind == BINARY and self._token.text == text

    def _expect(self, kind: str, context: str) -> Token:
        if not self._at(kind):
            wanted = f"`{kind}`" if not kind[0].isalpha() else kind
            raise self._unexpected(f"{wanted} {context}")
        return self._advance()

    def _unexpected(self, expected: str) -> Fault:
        return Fault(self._token.start, f"found {self._token}, expected {expected}")

    # Methods

    def method(self) -> Method:
        start = self._token.start
        selector, parameters = self._pattern()
        pragmas = self._pragmas()
        temporaries = self._temporaries()
        pragmas += self._pragmas()
        statements = self._statements(END)
        return Method(start, self._token.stop, selector, parameters, temporaries, pragmas, statements)

    def do_it(self) -> Method:
        temporaries = self._temporaries()
        statements = self._statements(END)
        if statements and not isinstance(statements[-1], Return):
            last = statements[-1]
            statements[-1] = Return(last.start, last.stop, last)
        return Method(0, self._token.stop, DO_IT_SELECTOR, [], temporaries, [], statements)

    def _pattern(self) -> tuple[str, list[Variable]]:
        if self._at(IDENTIFIER):
            return self._advance().text, []
        if self._at(BINARY) or self._at("|"):
            return self._advance().text, [self._declaration("the argument's name")]
        if not self._at(KEYWORD):
            raise self._unexpected("a method pattern (a name, a binary selector or keywords with arguments)")
        selector = ""
        parameters = []
        while self._at(KEYWORD):
            selector += self._advance().text
            parameters.append(self._declaration("the argument's name"))
        return selector, parameters

    def _declaration(self, expected: str) -> Variable:
        if not self._at(IDENTIFIER):
            raise self._unexpected(expected)
        token = self._advance()
        return Variable(token.start, token.stop, token.text)

    def _temporaries(self) -> list[Variable]:
        result: list[Variable] = []
        if self._at("|"):
            self._advance()
            while not self._at("|"):
                result.append(self._declaration("a temporary's name or `|`"))
            self._advance()
        return result

    def _pragmas(self) -> list[PragmaNode]:
        result = []
        while self._at_binary("<"):
            start = self._advance().start
            selector = ""
            arguments: list[Literal] = []
            if self._at(IDENTIFIER):
                selector = self._advance().text
            else:
                while self._at(KEYWORD):
                    selector += self._advance().text
                    arguments.append(self._pragma_argument())
            if not selector:
                raise self._unexpected("a pragma's selector")
            if not self._at_binary(">"):
                raise self._unexpected("`>` at the end of the pragma")
            result.append(PragmaNode(start, self._advance().stop, selector, arguments))
        return result

    def _pragma_argument(self) -> Literal:
        if self._at(IDENTIFIER) and self._token.text not in _CONSTANTS:
            raise self._unexpected("a literal as the pragma's argument")
        node = self._literal_or_none()
        if node is not None:
            return node.value
        if self._at(IDENTIFIER):
            return _CONSTANTS[self._advance().text]
        raise self._unexpected("a literal as the pragma's argument")

    # Statements

    def _statements(self, closer: str) -> list[Statement]:
        result: list[Statement] = []
        while True:
            while self._at("."):
                self._advance()
            if self._at(closer):
                return result
            if self._at("^"):
                start = self._advance().start
                value = self._expression()
                result.append(Return(start, value.stop, value))
                while self._at("."):
                    self._advance()
                if not self._at(closer):
                    raise self._unexpected(f"{self._closing(closer)} after a return statement")
                return result
            result.append(self._expression())
            if not self._at(".") and not self._at(closer):
                raise self._unexpected(f"`.` or {self._closing(closer)}")

    def _closing(self, closer: str) -> str:
        return "the end of the method" if closer == END else f"`{closer}`"

    # Expressions

    def _expression(self) -> Expression:
        if self._at(IDENTIFIER) and self._tokens[self._index + 1].kind == ASSIGN:
            token = self._advance()
            self._advance()
            target = Variable(token.start, token.stop, token.text)
            value = self._expression()
            return Assignment(target.start, value.stop, target, value)
        node = self._keyword_expression()
        return self._cascade(node) if self._at(";") else node

    def _cascade(self, first: Expression) -> Expression:
        if not isinstance(first, Send) or first is self._parenthesised:
            raise self._unexpected("a message before the cascade")
        messages = [Message(first.receiver.stop, first.stop, first.selector, first.arguments)]
        while self._at(";"):
            self._advance()
            messages.append(self._message())
        if self._at(BINARY) or self._at("|") or self._at(KEYWORD) or self._at(IDENTIFIER):
            raise self._unexpected("`;` or the end of the cascade; to send its result a message, put it in parentheses")
        return Cascade(first.start, messages[-1].stop, first.receiver, messages)

    def _message(self) -> Message:
        start = self._token.start
        if self._at(IDENTIFIER):
            token = self._advance()
            return Message(start, token.stop, token.text, [])
        if self._at(BINARY) or self._at("|"):
            selector = self._advance().text
            argument = self._value(self._unary_expression())
            return Message(start, argument.stop, selector, [argument])
        if not self._at(KEYWORD):
            raise self._unexpected("a message after `;`")
        keywords, arguments = self._keyword_message()
        return Message(start, arguments[-1].stop, keywords, arguments)

    def _keyword_message(self) -> tuple[str, list[Expression]]:
        selector = ""
        arguments = []
        while self._at(KEYWORD):
            selector += self._advance().text
            arguments.append(self._value(self._binary_expression()))
        return selector, arguments

    def _keyword_expression(self) -> Expression:
        receiver = self._binary_expression()
        if not self._at(KEYWORD):
            return self._value(receiver)
        selector, arguments = self._keyword_message()
        return Send(receiver.start, arguments[-1].stop, receiver, selector, arguments)

    def _binary_expression(self) -> Expression:
        result = self._unary_expression()
        while self._at(BINARY) or self._at("|"):
            selector = self._advance().text
            argument = self._value(self._unary_expression())
            result = Send(result.start, argument.stop, result, selector, [argument])
        return result

    def _unary_expression(self) -> Expression:
        result = self._operand()
        while self._at(IDENTIFIER):
            token = self._advance()
            result = Send(result.start, token.stop, result, token.text, [])
        return result

    def _value(self, node: Expression) -> Expression:
        if is_super(node):
            raise Fault(
                node.start, "found `super` without a message to it, expected `self`, or a message after `super`"
            )
        return node

    def _operand(self) -> Expression:
        literal = self._literal_or_none()
        if literal is not None:
            return literal
        token = self._token
        if token.kind == IDENTIFIER:
            self._advance()
            return Variable(token.start, token.stop, token.text)
        if token.kind == "(":
            self._advance()
            node = self._expression()
            self._expect(")", "to close the parenthesis")
            self._parenthesised = node
            return node
        if token.kind == "[":
            return self._block()
        if token.kind == "{":
            return self._brace()
        raise self._unexpected(_OPERAND)

    def _block(self) -> Block:
        start = self._advance().start
        parameters = []
        while self._at(":"):
            self._advance()
            parameters.append(self._declaration("the block argument's name"))
        if parameters and not self._at("]"):
            self._expect("|", "after the block's arguments")
        temporaries = self._temporaries()
        statements = self._statements("]")
        return Block(start, self._advance().stop, parameters, temporaries, statements)

    def _brace(self) -> Brace:
        start = self._advance().start
        elements = []
        while not self._at("}"):
            elements.append(self._expression())
            if self._at("."):
                self._advance()
            elif not self._at("}"):
                raise self._unexpected("`.` or `}`")
        return Brace(start, self._advance().stop, elements)

    # Literals

    def _literal_or_none(self) -> LiteralNode | None:
        token = self._token
        if token.kind == LITERAL and token.literal is not None:
            self._advance()
            return LiteralNode(token.start, token.stop, token.literal)
        if self._at_negative_number():
            value = self._negative_number()
            return LiteralNode(token.start, self._tokens[self._index - 1].stop, value)
        if token.kind in ("#(", "#["):
            value = self._array() if token.kind == "#(" else self._byte_array()
            return LiteralNode(token.start, self._tokens[self._index - 1].stop, value)
        return None

    def _at_negative_number(self) -> bool:
        if not self._at_binary("-"):
            return False
        following = self._tokens[self._index + 1]
        return following.start == self._token.stop and isinstance(
            following.literal, IntegerLiteral | FloatLiteral | FractionLiteral | ScaledDecimalLiteral
        )

    def _negative_number(self) -> Literal:
        self._advance()
        match self._advance().literal:
            case IntegerLiteral(value):
                return IntegerLiteral(-value)
            case FloatLiteral(bits):
                return FloatLiteral(bits | 1 << 63)
            case FractionLiteral(numerator, denominator):
                return FractionLiteral(-numerator, denominator)
            case ScaledDecimalLiteral(numerator, denominator, scale):
                return ScaledDecimalLiteral(-numerator, denominator, scale)
        raise AssertionError("a number was seen here")

    def _array(self) -> Literal:
        opener = self._advance()
        elements: list[Literal] = []
        while not self._at(")"):
            if self._at(END):
                raise Fault(opener.start, f"unterminated literal array; found {END}, expected `)`")
            elements.append(self._array_element())
        self._advance()
        return ArrayLiteral(tuple(elements))

    def _array_element(self) -> Literal:
        if self._at("("):
            return self._array()
        if self._at("["):
            return self._byte_array()
        node = self._literal_or_none()
        if node is not None:
            return node.value
        token = self._advance()
        if token.kind == IDENTIFIER:
            return _CONSTANTS.get(token.text, SymbolLiteral(token.text))
        if token.kind == KEYWORD:
            text = token.text
            while self._at(KEYWORD) and self._token.start == token.stop:
                token = self._advance()
                text += token.text
            return SymbolLiteral(text)
        if token.kind in (BINARY, "|"):
            return SymbolLiteral(token.text)
        self._index -= 1
        raise self._unexpected("an element of a literal array or `)`")

    def _byte_array(self) -> Literal:
        opener = self._advance()
        data = bytearray()
        while not self._at("]"):
            token = self._advance()
            if token.kind == END:
                raise Fault(opener.start, f"unterminated byte array; found {END}, expected `]`")
            if not isinstance(token.literal, IntegerLiteral) or token.literal.value > 255:
                raise Fault(token.start, f"found {token} in a byte array, expected an integer from 0 to 255")
            data.append(token.literal.value)
        self._advance()
        return ByteArrayLiteral(bytes(data))


def primitive_of(pragma: PragmaNode) -> tuple[int, tuple[str, str] | None] | None:
    """(number, None), (117, (module, function)), or None where the pragma declares no primitive."""
    if not pragma.selector.startswith("primitive:"):
        return None
    arguments = pragma.arguments
    if pragma.selector == "primitive:" and isinstance(arguments[0], IntegerLiteral):
        number = arguments[0].value
        if not 1 <= number <= 0x7FFF:
            raise Fault(pragma.start, f"primitive number {number}, expected 1 to {0x7FFF}")
        return number, None
    names = [each.text for each in arguments if isinstance(each, StringLiteral | SymbolLiteral)]
    if len(names) == len(arguments):
        if pragma.selector == "primitive:module:":
            return 117, (names[1], names[0])
        if pragma.selector == "primitive:":
            return 117, ("", names[0])
    forms = ["<primitive: 60>", "<primitive: 'name'>", "<primitive: 'name' module: 'Module'>"]
    raise Fault(pragma.start, f"found <{pragma.selector}> with other arguments, expected {listing(forms)}")
