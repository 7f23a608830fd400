"""The syntax tree of a method. Offsets are characters of the method's source.

Parentheses leave no trace. The parser fills in what the text says; `inlining` of a Send and `scope` of a Block are
written by scope.py, anew at each attempt to generate code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .literals import Literal

if TYPE_CHECKING:
    from .scope import CodeScope, Inlining, LocalVariable, OuterVariable

PSEUDO_VARIABLES = frozenset(["self", "super", "true", "false", "nil", "thisContext"])


@dataclass(eq=False)
class Node:
    start: int
    stop: int


@dataclass(eq=False)
class Variable(Node):
    """A name where it is used or declared. `binding` is None for the pseudo-variables."""

    name: str
    binding: LocalVariable | OuterVariable | None = field(default=None, init=False)


@dataclass(eq=False)
class LiteralNode(Node):
    value: Literal


@dataclass(eq=False)
class Assignment(Node):
    target: Variable
    value: Expression


@dataclass(eq=False)
class Send(Node):
    """`may_inline` is cleared when a jump over the inlined code would be too long: then it becomes a real send."""

    receiver: Expression
    selector: str
    arguments: list[Expression]
    may_inline: bool = field(default=True, init=False)
    inlining: Inlining | None = field(default=None, init=False)

    @property
    def to_super(self) -> bool:
        return is_super(self.receiver)


@dataclass(eq=False)
class Message(Node):
    """One message of a cascade."""

    selector: str
    arguments: list[Expression]


@dataclass(eq=False)
class Cascade(Node):
    receiver: Expression
    messages: list[Message]


@dataclass(eq=False)
class Block(Node):
    """`scope` is the frame that its variables live in: its own for a real block, the surrounding one when inlined."""

    parameters: list[Variable]
    temporaries: list[Variable]
    statements: list[Statement]
    scope: CodeScope | None = field(default=None, init=False)


@dataclass(eq=False)
class Brace(Node):
    elements: list[Expression]


@dataclass(eq=False)
class Return(Node):
    value: Expression


@dataclass(eq=False)
class PragmaNode(Node):
    selector: str
    arguments: list[Literal]


@dataclass(eq=False)
class Method(Node):
    selector: str
    parameters: list[Variable]
    temporaries: list[Variable]
    pragmas: list[PragmaNode]
    statements: list[Statement]


Expression = Variable | LiteralNode | Assignment | Send | Cascade | Block | Brace
Statement = Expression | Return


def is_super(node: Expression) -> bool:
    return isinstance(node, Variable) and node.name == "super"


def assigns_to(node: Statement, name: str) -> bool:
    """Whether an assignment to a variable of that name stands anywhere inside, nested blocks included. By name alone:
    a variable of the same name declared inside counts too."""
    match node:
        case Assignment():
            return node.target.name == name or assigns_to(node.value, name)
        case Return():
            return assigns_to(node.value, name)
        case Send():
            return assigns_to(node.receiver, name) or any(assigns_to(each, name) for each in node.arguments)
        case Cascade():
            return assigns_to(node.receiver, name) or any(
                assigns_to(each, name) for message in node.messages for each in message.arguments
            )
        case Block():
            return any(assigns_to(each, name) for each in node.statements)
        case Brace():
            return any(assigns_to(each, name) for each in node.elements)
        case _:
            return False
