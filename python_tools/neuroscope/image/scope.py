"""Where the variables of a method live: which sends are inlined, what each name means, which frame slot it gets.

`analyse` walks the tree once in evaluation order and notes who captures and who writes each local variable; then
slots are given out. The rules are part of the specification in generator.py, sections 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from .faults import Fault
from .literals import (
    ClassVariableBinding,
    FloatLiteral,
    FractionLiteral,
    GlobalBinding,
    IntegerLiteral,
    ScaledDecimalLiteral,
)
from .nodes import (
    PSEUDO_VARIABLES,
    Assignment,
    Block,
    Brace,
    Cascade,
    Expression,
    LiteralNode,
    Method,
    Return,
    Send,
    Statement,
    Variable,
    assigns_to,
)


@dataclass(frozen=True)
class InstanceVariable:
    index: int


CodeNode = Block | Method
OuterVariable = InstanceVariable | ClassVariableBinding | GlobalBinding


class Environment(Protocol):
    """What a class knows about the names in its methods."""

    def resolve(self, name: str) -> OuterVariable | None: ...

    def explain_unknown(self, name: str) -> str:
        """The message for a name that resolve does not know, with near misses."""
        ...

    def refuse_store(self, variable: OuterVariable) -> str | None:
        """Why the variable can't be assigned to, or None."""
        ...


@dataclass(frozen=True)
class Inlining:
    """How a send is compiled without sending. `kind` is a key of the generator's table."""

    kind: str


@dataclass(eq=False)
class LocalVariable:
    """An argument or temporary of a method or block, or the hidden limit of an inlined to:do:."""

    name: str
    scope: CodeScope
    loops: tuple[Send, ...]  # the inlined loops around the declaration, inside the scope
    block: CodeNode | None
    is_parameter: bool
    captures: list[tuple[int, tuple[Send, ...]]] = field(default_factory=list)
    writes: list[tuple[int, tuple[Send, ...]]] = field(default_factory=list)
    written_inside: bool = False  # by a real block inside its scope
    first_use: tuple[CodeNode, bool] | None = None  # the innermost block around it, and whether it is a write
    vector: Vector | None = None
    vector_index: int = 0

    def must_be_shared(self) -> bool:
        """Captured, and written where the capturing block could see or miss the change: lives in a temp vector."""
        if not self.captures:
            return False
        if self.written_inside:
            return True
        for written, write_loops in self.writes:
            for captured, capture_loops in self.captures:
                if written > captured or _shared_prefix(write_loops, capture_loops) > len(self.loops):
                    return True
        return False

    def needs_nil(self) -> bool:
        """A temporary of an inlined block that runs many times starts each time as nil; the store is left out where
        the block itself writes the variable before anything reads it."""
        if self.is_parameter or not self.loops or self.vector is not None or self.first_use is None:
            return False
        return self.first_use != (self.block, True)


@dataclass(eq=False)
class Vector:
    """An Array that holds shared variables: one per activation of a real block or per iteration of an inlined loop."""

    variables: list[LocalVariable] = field(default_factory=list)


Slot = LocalVariable | Vector


@dataclass(eq=False)
class CodeScope:
    """One frame: a method, or a block that stays a real block."""

    node: CodeNode
    outer: CodeScope | None
    parameters: list[LocalVariable] = field(default_factory=list)
    locals: list[Slot] = field(default_factory=list)  # in declaration order; vectors that stay empty are dropped
    used_from_outside: list[LocalVariable] = field(default_factory=list)  # in order of first use
    vector: Vector = field(default_factory=Vector)
    copied: list[Slot] = field(default_factory=list)
    slots: dict[Slot, int] = field(default_factory=dict)

    def allocate(self) -> None:
        """Arguments, then copied values, then the scope's own vector, then the other locals as declared."""
        for variable in self.used_from_outside:
            entry: Slot = variable if variable.vector is None else variable.vector
            if entry not in self.copied:
                self.copied.append(entry)
        kept: list[Slot] = [self.vector] if self.vector.variables else []
        for each in self.locals:
            if isinstance(each, Vector) and each.variables:
                kept.append(each)
            if isinstance(each, LocalVariable) and each.vector is None:
                kept.append(each)
        self.locals = kept
        for each in [*self.parameters, *self.copied, *self.locals]:
            self.slots[each] = len(self.slots)


@dataclass(eq=False)
class InlinedBlock:
    """What the generator needs at the start of an inlined block: `vector` is None unless the block is a loop's."""

    vector: Vector | None
    variables: list[LocalVariable]
    limit: LocalVariable | None = None  # of to:do:, where the limit is no literal number


@dataclass(eq=False)
class Analysis:
    method_scope: CodeScope
    inlined: dict[Block, InlinedBlock]


def _shared_prefix(a: tuple[Send, ...], b: tuple[Send, ...]) -> int:
    count = 0
    while count < len(a) and count < len(b) and a[count] is b[count]:
        count += 1
    return count


# Which sends are inlined. Value: for each of receiver and arguments the number of parameters that a literal block
# there may have (None: any expression).
_NO_BLOCK: None = None
INLINED_SHAPES: dict[str, tuple[tuple[int, ...] | None, ...]] = {
    "ifTrue:": (_NO_BLOCK, (0,)),
    "ifFalse:": (_NO_BLOCK, (0,)),
    "ifTrue:ifFalse:": (_NO_BLOCK, (0,), (0,)),
    "ifFalse:ifTrue:": (_NO_BLOCK, (0,), (0,)),
    "and:": (_NO_BLOCK, (0,)),
    "or:": (_NO_BLOCK, (0,)),
    "ifNil:": (_NO_BLOCK, (0,)),
    "ifNotNil:": (_NO_BLOCK, (0, 1)),
    "ifNil:ifNotNil:": (_NO_BLOCK, (0,), (0, 1)),
    "ifNotNil:ifNil:": (_NO_BLOCK, (0, 1), (0,)),
    "whileTrue": ((0,),),
    "whileFalse": ((0,),),
    "whileTrue:": ((0,), (0,)),
    "whileFalse:": ((0,), (0,)),
    "repeat": ((0,),),
    "to:do:": (_NO_BLOCK, _NO_BLOCK, (1,)),
    "to:by:do:": (_NO_BLOCK, _NO_BLOCK, _NO_BLOCK, (1,)),
}
LOOPS = frozenset(["whileTrue", "whileFalse", "whileTrue:", "whileFalse:", "repeat", "to:do:", "to:by:do:"])
NUMBERS = (IntegerLiteral, FloatLiteral, FractionLiteral, ScaledDecimalLiteral)


def step_sign(step: Expression) -> int | None:
    """1 or -1 for a literal number, None for anything else and for zero, which no loop can step by."""
    if not isinstance(step, LiteralNode):
        return None
    match step.value:
        case IntegerLiteral(value):
            return (value > 0) - (value < 0) or None
        case FloatLiteral() as literal:
            return (literal.value > 0) - (literal.value < 0) or None
        case FractionLiteral(numerator, _) | ScaledDecimalLiteral(numerator, _, _):
            return (numerator > 0) - (numerator < 0) or None
    return None


def inlining_of(send: Send) -> Inlining | None:
    shape = INLINED_SHAPES.get(send.selector)
    if shape is None or not send.may_inline or send.to_super:
        return None
    for part, parameters in zip([send.receiver, *send.arguments], shape, strict=True):
        if parameters is not None and not (isinstance(part, Block) and len(part.parameters) in parameters):
            return None
    if send.selector in ("to:do:", "to:by:do:"):
        body = send.arguments[-1]
        assert isinstance(body, Block)
        if assigns_to(body, body.parameters[0].name):
            return None
        if send.selector == "to:by:do:" and step_sign(send.arguments[1]) is None:
            return None
    return Inlining(send.selector)


class _Analyser:
    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.inlined: dict[Block, InlinedBlock] = {}
        self.scopes: list[CodeScope] = []  # all, in order of their beginning
        # Each variable, in order of declaration, with the vector that it goes to if it must be shared:
        self.owners: list[tuple[LocalVariable, Vector]] = []
        self.clock = 0  # counts uses and real blocks, in evaluation order
        # The surroundings of the current node:
        self.scope: CodeScope
        self.block: CodeNode
        self.loops: tuple[Send, ...] = ()
        self.vector: Vector
        self.names: list[dict[str, LocalVariable]] = []
        self.entered: list[tuple[CodeScope, int, tuple[Send, ...]]] = []  # real blocks around: outer scope, when, loops

    def run(self, method: Method) -> Analysis:
        scope = self._begin_scope(method, None)
        self.block = method
        self.names.append({})
        for name in method.parameters:
            scope.parameters.append(self._declare(name, method, is_parameter=True))
        for name in method.temporaries:
            scope.locals.append(self._declare(name, method, is_parameter=False))
        self._statements(method.statements)
        self._share()
        for each in self.scopes:
            each.allocate()
        return Analysis(scope, self.inlined)

    def _begin_scope(self, node: CodeNode, outer: CodeScope | None) -> CodeScope:
        self.scope = CodeScope(node, outer)
        self.vector = self.scope.vector
        self.scopes.append(self.scope)
        return self.scope

    def _declare(self, name: Variable, block: CodeNode, *, is_parameter: bool) -> LocalVariable:
        if name.name in PSEUDO_VARIABLES:
            raise Fault(name.start, f"`{name.name}` can't be declared, it is a reserved name; choose another name")
        if name.name in self.names[-1]:
            raise Fault(name.start, f"`{name.name}` is declared twice here; rename one of them")
        variable = LocalVariable(name.name, self.scope, self.loops, block, is_parameter)
        self.owners.append((variable, self.vector))
        self.names[-1][name.name] = variable
        name.binding = variable
        return variable

    def _share(self) -> None:
        for variable, vector in self.owners:
            if variable.must_be_shared():
                variable.vector = vector
                variable.vector_index = len(vector.variables)
                vector.variables.append(variable)

    # Uses

    def _use(self, node: Variable, *, is_write: bool) -> None:
        for names in reversed(self.names):
            if node.name in names:
                node.binding = names[node.name]
                self._use_local(names[node.name], node, is_write)
                return
        outer = self.environment.resolve(node.name)
        if outer is None:
            raise Fault(node.start, self.environment.explain_unknown(node.name))
        refusal = self.environment.refuse_store(outer) if is_write else None
        if refusal is not None:
            raise Fault(node.start, refusal)
        node.binding = outer

    def _use_local(self, variable: LocalVariable, node: Variable, is_write: bool) -> None:
        if is_write and variable.is_parameter and isinstance(variable.block, Method):
            raise Fault(node.start, f"`{variable.name}` is an argument of the method, which can't be assigned to")
        self.clock += 1
        if variable.first_use is None:
            variable.first_use = (self.block, is_write)
        if self.scope is variable.scope:
            if is_write:
                variable.writes.append((self.clock, self.loops))
            return
        variable.written_inside |= is_write
        for outer, when, loops in self.entered:
            if outer is variable.scope:
                variable.captures.append((when, loops))
        scope: CodeScope | None = self.scope
        while scope is not None and scope is not variable.scope:
            if variable not in scope.used_from_outside:
                scope.used_from_outside.append(variable)
            scope = scope.outer

    # The walk, in evaluation order

    def _statements(self, statements: list[Statement]) -> None:
        for each in statements:
            self._visit(each)

    def _visit(self, node: Statement) -> None:
        match node:
            case Variable():
                if node.name not in PSEUDO_VARIABLES:
                    self._use(node, is_write=False)
            case Assignment():
                self._visit(node.value)
                if node.target.name in PSEUDO_VARIABLES:
                    raise Fault(node.start, f"`{node.target.name}` can't be assigned to; it is a reserved name")
                self._use(node.target, is_write=True)
            case Return():
                self._visit(node.value)
            case Send():
                self._send(node)
            case Cascade():
                self._visit(node.receiver)
                for message in node.messages:
                    self._statements(list(message.arguments))
            case Block():
                self._real_block(node)
            case Brace():
                self._statements(list(node.elements))
            case LiteralNode():
                pass

    def _send(self, node: Send) -> None:
        node.inlining = inlining_of(node)
        if node.inlining is None:
            self._visit(node.receiver)
            self._statements(list(node.arguments))
            return
        loop = node if node.selector in LOOPS else None
        shape = INLINED_SHAPES[node.selector]
        for part, parameters in zip([node.receiver, *node.arguments], shape, strict=True):
            if parameters is None:
                self._visit(part)
            else:
                assert isinstance(part, Block)
                self._inlined_block(part, loop)

    def _inlined_block(self, block: Block, loop: Send | None) -> None:
        block.scope = self.scope
        saved = self.block, self.loops, self.vector
        record = InlinedBlock(None, [])
        self.inlined[block] = record
        self.block = block
        if loop is not None:
            self.loops = (*self.loops, loop)
            self.vector = record.vector = Vector()
            self.scope.locals.append(self.vector)
        self.names.append({})
        for name in block.parameters:
            record.variables.append(self._declare(name, block, is_parameter=True))
            self.scope.locals.append(record.variables[-1])
        if loop is not None and loop.selector in ("to:do:", "to:by:do:") and not self._is_number(loop.arguments[0]):
            record.limit = LocalVariable("", self.scope, self.loops, block, is_parameter=True)
            self.scope.locals.append(record.limit)
        for name in block.temporaries:
            record.variables.append(self._declare(name, block, is_parameter=False))
            self.scope.locals.append(record.variables[-1])
        self._statements(block.statements)
        self.names.pop()
        self.block, self.loops, self.vector = saved

    def _is_number(self, node: Expression) -> bool:
        return isinstance(node, LiteralNode) and isinstance(node.value, NUMBERS)

    def _real_block(self, block: Block) -> None:
        saved = self.scope, self.block, self.loops, self.vector
        self.clock += 1
        self.entered.append((self.scope, self.clock, self.loops))
        block.scope = self._begin_scope(block, self.scope)
        self.block = block
        self.loops = ()
        self.names.append({})
        for name in block.parameters:
            block.scope.parameters.append(self._declare(name, block, is_parameter=True))
        for name in block.temporaries:
            block.scope.locals.append(self._declare(name, block, is_parameter=False))
        self._statements(block.statements)
        self.names.pop()
        self.entered.pop()
        self.scope, self.block, self.loops, self.vector = saved


def analyse(method: Method, environment: Environment) -> Analysis:
    """Raises: Fault for an unknown name, a name declared twice, a store that is not allowed."""
    return _Analyser(environment).run(method)
