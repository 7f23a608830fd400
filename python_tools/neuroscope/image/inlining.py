"""Control flow without sends: the code of inlined conditionals, nil tests and loops.

One function for each selector of scope.INLINED_SHAPES, found by INLINED. Specified in generator.py, section 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import bytecodes as bc
from .literals import IntegerLiteral
from .mode import Mode
from .nodes import Block, Expression, LiteralNode, Send
from .scope import step_sign

if TYPE_CHECKING:
    from .generator import Generator


def _arm(g: Generator, part: Expression | int, mode: Mode) -> Callable[[], None]:
    """A literal block, or the push instruction of a constant."""
    return lambda: g.constant(part, mode) if isinstance(part, int) else g.inlined_block(part, mode)


def _leaves(g: Generator, part: Expression | int) -> bool:
    return isinstance(part, Block) and g.ends_in_return(part.statements)


def _branch(
    g: Generator, if_true: Callable[[], None], if_false: Callable[[], None], mode: Mode, *, true_leaves: bool
) -> None:
    """The condition is on the stack."""
    asm = g.asm
    depth = asm.depth - 1
    when_true = g.section_at(depth, if_true)
    when_false = g.section_at(depth, if_false)
    asm.depth = depth + 1
    if mode is Mode.EFFECT and not when_true:
        asm.jump_if(True, len(when_false))
        asm.append(when_false)
        return
    joins = mode in (Mode.VALUE, Mode.EFFECT) and not true_leaves
    asm.jump_if(False, len(when_true) + (asm.jump_size(len(when_false)) if joins else 0))
    asm.append(when_true)
    if joins:
        asm.jump(len(when_false))
    asm.append(when_false)


def _conditional(g: Generator, if_true: Expression | int, if_false: Expression | int, mode: Mode) -> None:
    _branch(g, _arm(g, if_true, mode), _arm(g, if_false, mode), mode, true_leaves=_leaves(g, if_true)
    )  # fmt: skip


def _if_true(g: Generator, node: Send, mode: Mode) -> None:
    g.value(node.receiver)
    _conditional(g, node.arguments[0], bc.PUSH_NIL, mode)


def _if_false(g: Generator, node: Send, mode: Mode) -> None:
    g.value(node.receiver)
    _conditional(g, bc.PUSH_NIL, node.arguments[0], mode)


def _if_true_if_false(g: Generator, node: Send, mode: Mode) -> None:
    g.value(node.receiver)
    _conditional(g, node.arguments[0], node.arguments[1], mode)


def _if_false_if_true(g: Generator, node: Send, mode: Mode) -> None:
    g.value(node.receiver)
    _conditional(g, node.arguments[1], node.arguments[0], mode)


def _and(g: Generator, node: Send, mode: Mode) -> None:
    g.value(node.receiver)
    _conditional(g, node.arguments[0], bc.PUSH_FALSE, mode)


def _or(g: Generator, node: Send, mode: Mode) -> None:
    g.value(node.receiver)
    _conditional(g, bc.PUSH_TRUE, node.arguments[0], mode)


def _compare_with_nil(g: Generator) -> None:
    g.asm.push_constant(bc.PUSH_NIL)
    g.asm.send_identical()


def _if_nil(g: Generator, node: Send, mode: Mode) -> None:
    block = node.arguments[0]
    g.value(node.receiver)
    if mode is Mode.EFFECT:
        _compare_with_nil(g)
        _conditional(g, block, bc.PUSH_NIL, mode)
        return
    g.asm.duplicate()
    _compare_with_nil(g)

    def when_nil() -> None:
        g.asm.pop()
        g.inlined_block(block, mode)

    _branch(g, when_nil, lambda: g.finish(mode), mode, true_leaves=_leaves(g, block))


def _if_not_nil(g: Generator, node: Send, mode: Mode) -> None:
    _nil_test(g, node, bc.PUSH_NIL, node.arguments[0], mode)


def _if_nil_if_not_nil(g: Generator, node: Send, mode: Mode) -> None:
    _nil_test(g, node, node.arguments[0], node.arguments[1], mode)


def _if_not_nil_if_nil(g: Generator, node: Send, mode: Mode) -> None:
    _nil_test(g, node, node.arguments[1], node.arguments[0], mode)


def _nil_test(g: Generator, node: Send, when_nil: Expression | int, otherwise: Expression, mode: Mode) -> None:
    assert isinstance(otherwise, Block)
    g.value(node.receiver)
    for parameter in otherwise.parameters:
        g.store(parameter, pop=False)
    _compare_with_nil(g)
    _conditional(g, when_nil, otherwise, mode)


def _while(g: Generator, node: Send, mode: Mode) -> None:
    asm = g.asm
    start, depth = len(asm.code), asm.depth
    g.inlined_block(node.receiver, Mode.VALUE)
    body = b""
    if node.arguments:
        body = g.section_at(depth, lambda: g.inlined_block(node.arguments[0], Mode.EFFECT))
    asm.depth = depth + 1
    asm.jump_if(node.selector.startswith("whileFalse"), len(body) + 2)
    asm.append(body)
    asm.jump_back(len(asm.code) - start)
    g.constant(bc.PUSH_NIL, mode)


def _repeat(g: Generator, node: Send, mode: Mode) -> None:
    start = len(g.asm.code)
    g.inlined_block(node.receiver, Mode.EFFECT)
    g.asm.jump_back(len(g.asm.code) - start)
    g.constant(bc.PUSH_NIL, mode)


def _to_do(g: Generator, node: Send, mode: Mode) -> None:
    asm, body = g.asm, node.arguments[-1]
    step: Expression = node.arguments[1] if len(node.arguments) == 3 else LiteralNode(0, 0, IntegerLiteral(1))
    assert isinstance(body, Block)
    counter, limit = body.parameters[0], g.analysis.inlined[body].limit
    g.value(node.receiver)
    g.store(counter, pop=mode is Mode.EFFECT)
    if limit is not None:
        g.value(node.arguments[0])
        g.store_local(limit, pop=True)
    start = len(asm.code)
    g.push_variable(counter)
    if limit is not None:
        g.push_local(limit)
    else:
        g.value(node.arguments[0])
    asm.send("<=" if step_sign(step) == 1 else ">=", 1, value_discarded=False)
    depth = asm.depth - 1

    def round_trip() -> None:
        g.inlined_block(body, Mode.EFFECT)
        g.push_variable(counter)
        g.value(step)
        asm.send("+", 1, value_discarded=False)
        g.store(counter, pop=True)

    rest = g.section_at(depth, round_trip)
    asm.depth = depth + 1
    asm.jump_if(False, len(rest) + 2)
    asm.append(rest)
    asm.jump_back(len(asm.code) - start)
    if mode is not Mode.EFFECT:
        g.finish(mode)


INLINED: dict[str, Callable[[Generator, Send, Mode], None]] = {
    "ifTrue:": _if_true,
    "ifFalse:": _if_false,
    "ifTrue:ifFalse:": _if_true_if_false,
    "ifFalse:ifTrue:": _if_false_if_true,
    "and:": _and,
    "or:": _or,
    "ifNil:": _if_nil,
    "ifNotNil:": _if_not_nil,
    "ifNil:ifNotNil:": _if_nil_if_not_nil,
    "ifNotNil:ifNil:": _if_not_nil_if_nil,
    "whileTrue": _while,
    "whileFalse": _while,
    "whileTrue:": _while,
    "whileFalse:": _while,
    "repeat": _repeat,
    "to:do:": _to_do,
    "to:by:do:": _to_do,
}
