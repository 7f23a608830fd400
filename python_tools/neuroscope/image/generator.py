"""Syntax tree ► V3-plus-closures bytecodes. This comment is the complete specification of code generation.

The compiler inside the image follows the same specification and must produce the same bytes, literals and header.
Nothing here depends on hashing, on the order of a set, or on measuring twice: code is generated front to back, once,
into nested sections; a jump's size is chosen when the code that it jumps over is complete.

1. Modes. Every expression is emitted in one of four modes:
     VALUE   its value is left on the stack
     EFFECT  its value is dropped; a variable, a pseudo-variable or a literal emits nothing
     RETURN  its value is returned from the home method
     BLOCK   its value is returned from the block
   Unless said otherwise an expression emits itself for VALUE, then: EFFECT 87, RETURN 7C, BLOCK 7D.
   self, true, false, nil: RETURN is 78-7B. An assignment: the value for VALUE, then store; for EFFECT pop-into instead.
   A statement `^ e` emits e for RETURN, whatever the mode of the sequence that it ends.
   A sequence of statements emits all but the last for EFFECT and the last in the sequence's mode. An empty sequence is
   `nil` in the sequence's mode (EFFECT: nothing).
   Order of evaluation is the order of the text: receiver, arguments from left to right; literals enter the literal
   frame in the order in which their first instruction is emitted.

2. Inlined sends (scope.py INLINED_SHAPES). A send is inlined when its selector is in that table, its receiver is not
   super, the parts that must be blocks are literal blocks (parentheses do not matter) with the right number of
   parameters, and the send has not been un-inlined (9). to:do: and to:by:do: moreover need that no assignment to the
   loop variable's name stands inside the block (assigns_to in nodes.py: by name, nested blocks included), and to:by:do:
   a literal number other than zero as step. Messages of a cascade are never inlined.
   An inlined block begins (7), then its statements follow as a sequence. c is the code of the condition for VALUE;
   T and F are the sections of the two arms in the send's mode:
     ifTrue: [t]                   T = t, F = nil              ifFalse: [f]                 T = nil, F = f
     ifTrue: [t] ifFalse: [f], ifFalse: [f] ifTrue: [t]        T = t, F = f
     and: [t]                      T = t, F = false            or: [f]                      T = true, F = f
     (nil, true, false in that mode; EFFECT: nothing)
     EFFECT and T is no bytes:     c, jump if true over F, F
     else:                         c, jump if false over T and the jump, T, jump over F, F
       where the jump over F is left out in the modes RETURN and BLOCK, and when T is a block that ends with `^`.
     T is always generated before F.
   The nil tests: x is the receiver for VALUE; v the parameter of the ifNotNil: block, if it has one.
     ifNil: [n], mode EFFECT:      x, 73, C6, then as above with T = n, F = nothing
     ifNil: [n], other modes:      x, 88, 73, C6, then as above with T = (87, then n), F = (VALUE: nothing, RETURN: 7C,
                                   BLOCK: 7D)
     those with ifNotNil: [p]:     x, store into v without popping, 73, C6, then as above with T = n or nil, F = p
   Loops (back = A0-A3, two bytes, always):
     [c] whileTrue: [b]            c for VALUE, jump if false over b and back, b for EFFECT, back to c
     [c] whileFalse: [b]           the same with jump if true.  whileTrue and whileFalse without argument: b is no bytes
     [b] repeat                    b for EFFECT, back to b
       Each is followed by nil in the send's mode (EFFECT: nothing).
     s to: e by: k do: [:i | b]    s for VALUE; store into i (EFFECT: pop into i); unless e is a literal number: e for
                                   VALUE, pop into the hidden limit variable;
                                   then the loop: push i; push limit or literal; B4 (k > 0) or B5 (k < 0); jump if false
                                   over the rest; b for EFFECT; push i; push k; B0; pop into i; back.
                                   Other modes than EFFECT: s is still on the stack: nothing, 7C or 7D.
       to:do: has k = 1.

3. Variables (scope.py). A frame is a method or a real (not inlined) block; the parameters and temporaries of inlined
   blocks live in the frame around them. The hidden limit is declared after the loop block's parameter and before its
   temporaries. A name means: the innermost local variable; else instance variable, class variable, global.
   The walk in evaluation order (an assignment: value, then target; ifFalse:ifTrue: in order of text) has a clock that
   counts every use of a local variable and every beginning of a real block.
     capture of v   a use of v inside a real block nested in v's frame; its time is the beginning of the outermost such
                    block inside v's frame, its loops are the inlined loops around that block inside v's frame
     write of v     an assignment in v's own frame; the initial stores of loop variables and ifNotNil: parameters are
                    no writes. The loops of an inlined loop send surround its literal blocks only, not s and e.
   v is shared if it is captured and: written inside a real block nested in its frame, or some write is later than some
   capture, or some write and some capture have a loop in common that is not around v's declaration.
   A shared variable lives in a temp vector: that of the innermost inlined loop block around its declaration in its
   frame, or else that of the frame. Indexes in a vector follow the order of declaration. Other captured variables are
   copied into the closure, and a vector is copied as if it were such a variable.
   Slots of a frame: parameters; (block) copied values in the order of first use inside the block, nested blocks
   included, each vector once; the frame's own vector if it has variables; then in the order of the text, for every
   declaration of the frame and its inlined blocks: the vector of a loop block (at the block's beginning, if it has
   variables), each variable that is not shared. Unused variables have slots too; slots are never reused.

4. Method. The bytes are: 8B lo hi if there is a primitive; the beginning of the frame (7); all statements for EFFECT;
   78 unless the last statement is `^`.
   Quick methods: no arguments, no temporaries, no primitive pragma, and either no statements or the single statement
   `^ e`, where e is self (and no statements): primitive 256; true 257, false 258, nil 259; integer -1, 0, 1, 2: 260 to
   263; an instance variable of index i: 264 + i. The ordinary bytes follow the 8B.
   A primitive named in a pragma: 8B and the number; named primitives have number 117 and literal 0 is an Array
   {#Module. #function. 0. 0} that never merges with another literal.

5. Literals. Equal literals share an index: same class and equal value, Floats by their 64 bits, arrays element by
   element (see literals.py); a Symbol as literal and as selector share it too; a binding (Association) only with
   itself. Integers -1, 0, 1, 2 and self, true, false, nil, thisContext have instructions and are no literals.
   At the end follow, never merged, the selector (or the AdditionalMethodState) and the class's binding.

6. Instruction forms, the first that fits:
     push temp        10+n (n < 16), 80 40|n              pop into temp    68+n (n < 8), 82 40|n      store 81 40|n
     push inst var    00+n (n < 16), 80 n (< 64), 84 40 n  pop into         60+n (n < 8), 82 n (< 64), 84 C0 n
     store inst var   81 n (< 64), 84 A0 n                remote temp      8C, 8D (store), 8E (pop): index, slot
     push literal     20+n (n < 32), 80 80|n (< 64), 84 60 n
     push binding     40+n (n < 32), 80 C0|n (< 64), 84 80 n
     store binding    81 C0|n (n < 64), 84 E0 n           pop into         82 C0|n (n < 64), 84 E0 n 87
     send             special B0-CF if the selector is special, except blockCopy: never, and at:put: (C1) only where the
                      value is dropped: mode EFFECT, or not the last message of a cascade;
                      D0+n, E0+n, F0+n (n < 16, 0 to 2 arguments); 83 a<<5|n (n < 32, a < 8); 86 a<<6|n (n < 64, a < 4);
                      84 a n
     super send       85 a<<5|n (n < 32, a < 8); 84 20|a n.  Never special. The receiver is pushed as self.
     jump             no bytes (0), 90+d-1 (d < 9), A4+d/256 d\\\\256       back by d: A0.. with -(d + 2)
     jump if false    87 (0), 98+d-1 (d < 9), AC+d/256 d\\\\256             jump if true: 87 (0), A8+d/256 d\\\\256
   Cascade: receiver for VALUE; each message but the last: 88, arguments, send, 87; the last: arguments, send. A
   cascade to super sends all its messages to super.
   Brace array of n elements: n <= 32: the elements for VALUE, 8A 80|n. More: push the binding of Array, push n, CD
   (new:), then for each element number i from 1: 88, push i, the element for VALUE, C1, 87. (A frame has only 56
   slots.)

7. Beginning of a method: if its vector has n > 0 variables: 8A n, pop into the vector's slot.
   Beginning of a real block: for each local slot in order: 8A n for a vector, else 73; then for each shared parameter
   in order: push the parameter, pop into the vector (8E).
   Beginning of an inlined block: if it is a loop's and its vector has n > 0 variables: 8A n, pop into its slot; then
   for each of its own temporaries, in order, that is not shared, is used, and lies inside an inlined loop of its frame:
   73, pop into it, unless the first use of it in the walk is a write whose innermost surrounding block is the
   declaring block itself.
   A real block: its copied values are pushed in order, then 8F copied<<4|arguments, size high, size low, the body.
   Body: its beginning, its statements as a sequence in mode BLOCK.

8. Header. Number of literals (with the final two), numArgs, numTemps (slots of the method's frame), bit 16 if there is
   a primitive, bit 17 if any frame (method or real block) needs more than 16 slots. A frame needs its slots plus
   the greatest depth of its stack; after a return or jump the depth is what the other path has.

9. Un-inlining. If a jump of an inlined send would exceed 1023 bytes (or 1024 backwards), the innermost such send, the
   first in order of completion, becomes a real send and the whole method is analysed and generated again.

10. Limits: 255 literals with the final two, 56 slots a frame, 63 temporaries, 15 arguments, 15 copied values, 127
    variables a vector, 65535 bytes a block, instance variable index 255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import bytecodes as bc
from .assembler import MAX_CLOSURE_BYTES, MAX_SLOT_INDEX, Assembler, JumpTooLong
from .faults import LimitFault
from .inlining import INLINED
from .literals import IntegerLiteral, Literal, NamedPrimitiveLiteral
from .mode import Mode
from .nodes import (
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
    is_super,
)
from .parser import primitive_of
from .scope import Analysis, CodeScope, InstanceVariable, LocalVariable, Slot, Vector

SMALL_FRAME = 16
MAX_FRAME = 56
MAX_TEMPORARIES = 63
MAX_ARGUMENTS = 15
MAX_COPIED = 15
MAX_VECTOR = 127
MAX_BRACE_ON_STACK = 32
NAMED_PRIMITIVE = 117
QUICK_SELF = 256
QUICK_INSTANCE_VARIABLE = 264

_PSEUDO = {
    "self": bc.PUSH_SELF,
    "super": bc.PUSH_SELF,
    "true": bc.PUSH_TRUE,
    "false": bc.PUSH_FALSE,
    "nil": bc.PUSH_NIL,
}
_PUSH_TO_RETURN = bc.RETURN_SELF - bc.PUSH_SELF
_SMALL = {-1: bc.PUSH_MINUS_ONE, 0: bc.PUSH_ZERO, 1: bc.PUSH_ONE, 2: bc.PUSH_TWO}


class Uninline(Exception):
    """An inlined send whose jump is too long; it must be compiled as a real send."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self.send = send


@dataclass(frozen=True)
class GeneratedCode:
    bytecodes: bytes
    literals: tuple[Literal, ...]  # without selector and class
    primitive: int  # 0: none
    num_args: int
    num_temps: int
    large_frame: bool


class Generator:
    def __init__(self, method: Method, analysis: Analysis) -> None:
        self._method = method
        self.analysis = analysis
        self._scope: CodeScope = analysis.method_scope
        self.asm = Assembler()
        self._largest_frame = 0

    def generate(self) -> GeneratedCode:
        """Raises: LimitFault; Uninline when the method must be generated again with a send un-inlined."""
        try:
            return self._method_code()
        except OverflowError:
            raise LimitFault(
                self._method.start, "the method has more than 255 literals; split it, or build the data at run time"
            ) from None

    def _method_code(self) -> GeneratedCode:
        method, scope, asm = self._method, self._scope, self.asm
        temporaries = len(scope.slots)
        self._check(len(method.parameters), MAX_ARGUMENTS, "arguments", method)
        self._check(temporaries, MAX_TEMPORARIES, "arguments and temporaries", method)
        primitive = self._declared_primitive() or self._quick_primitive()
        if primitive:
            asm.call_primitive(primitive)
        asm.depth = asm.max_depth = temporaries
        if scope.vector.variables:
            self._new_vector(scope.vector)
            asm.store_temporary(scope.slots[scope.vector], pop=True)
        for each in method.statements:
            self.emit(each, Mode.EFFECT)
        if not self.ends_in_return(method.statements):
            asm.return_constant(bc.RETURN_SELF)
        self._finish_frame(method)
        large = self._largest_frame > SMALL_FRAME
        arguments = len(method.parameters)
        return GeneratedCode(bytes(asm.code), tuple(asm.literals), primitive, arguments, temporaries, large)

    def _declared_primitive(self) -> int:
        for pragma in self._method.pragmas:
            primitive = primitive_of(pragma)
            if primitive is not None:
                number, name = primitive
                if name is not None:
                    self.asm.literals.append(NamedPrimitiveLiteral(*name))
                return number
        return 0

    def _quick_primitive(self) -> int:
        method = self._method
        if method.parameters or method.temporaries or len(method.statements) > 1:
            return 0
        if not method.statements:
            return QUICK_SELF
        statement = method.statements[0]
        if not isinstance(statement, Return):
            return 0
        match statement.value:
            case Variable(name=name, binding=None) if name in _PSEUDO:
                return QUICK_SELF + _PSEUDO[name] - bc.PUSH_SELF
            case Variable(binding=InstanceVariable(index)):
                return QUICK_INSTANCE_VARIABLE + index
            case LiteralNode(value=IntegerLiteral(value)) if value in _SMALL:
                return QUICK_SELF + _SMALL[value] - bc.PUSH_SELF
        return 0

    # Frames

    def _check(self, count: int, limit: int, what: str, node: Method | Block) -> None:
        if count > limit:
            kind = "method" if isinstance(node, Method) else "block"
            raise LimitFault(node.start, f"the {kind} has {count} {what}, at most {limit} are possible; split it")

    def _finish_frame(self, node: Method | Block) -> None:
        self._check(self.asm.max_depth, MAX_FRAME, "frame slots (temporaries and stack)", node)
        self._largest_frame = max(self._largest_frame, self.asm.max_depth)

    def _new_vector(self, vector: Vector) -> None:
        assert isinstance(self._scope.node, Method | Block)
        self._check(len(vector.variables), MAX_VECTOR, "captured variables", self._scope.node)
        self.asm.push_new_array(len(vector.variables))

    def _slot(self, entry: Slot) -> int:
        return self._scope.slots[entry]

    # Statements and expressions

    def ends_in_return(self, statements: list[Statement]) -> bool:
        return bool(statements) and isinstance(statements[-1], Return)

    def _sequence(self, statements: list[Statement], mode: Mode) -> None:
        for each in statements[:-1]:
            self.emit(each, Mode.EFFECT)
        if statements:
            self.emit(statements[-1], mode)
        else:
            self.constant(bc.PUSH_NIL, mode)

    def emit(self, node: Statement, mode: Mode) -> None:
        before = self.asm.depth
        match node:
            case Return():
                self.emit(node.value, Mode.RETURN)
            case Variable():
                self._variable(node, mode)
            case LiteralNode():
                self._literal(node.value, mode)
            case Assignment():
                self.emit(node.value, Mode.VALUE)
                self.store(node.target, pop=mode is Mode.EFFECT)
                if mode is not Mode.EFFECT:
                    self.finish(mode)
            case Send():
                self._send(node, mode)
            case Cascade():
                self._cascade(node, mode)
            case Block():
                self._real_block(node)
                self.finish(mode)
            case Brace():
                self._brace(node)
                self.finish(mode)
        self.asm.depth = before + (mode is Mode.VALUE)

    def value(self, node: Expression) -> None:
        self.emit(node, Mode.VALUE)

    def finish(self, mode: Mode) -> None:
        """What follows a value on the stack."""
        match mode:
            case Mode.EFFECT:
                self.asm.pop()
            case Mode.RETURN:
                self.asm.return_top()
            case Mode.BLOCK:
                self.asm.block_return()
            case Mode.VALUE:
                pass

    def constant(self, push: int, mode: Mode) -> None:
        """self, true, false or nil."""
        if mode is Mode.RETURN:
            self.asm.return_constant(push + _PUSH_TO_RETURN)
        elif mode is not Mode.EFFECT:
            self.asm.push_constant(push)
            self.finish(mode)

    def _literal(self, value: Literal, mode: Mode) -> None:
        if mode is not Mode.EFFECT:
            if isinstance(value, IntegerLiteral) and value.value in _SMALL:
                self.asm.push_constant(_SMALL[value.value])
            else:
                self.asm.push_literal(value)
            self.finish(mode)

    def _variable(self, node: Variable, mode: Mode) -> None:
        if node.binding is None and node.name in _PSEUDO:
            self.constant(_PSEUDO[node.name], mode)
        elif mode is not Mode.EFFECT:
            self.push_variable(node)
            self.finish(mode)

    def push_variable(self, node: Variable) -> None:
        match node.binding:
            case None:
                self.asm.push_this_context()
            case LocalVariable() as local:
                self.push_local(local)
            case InstanceVariable(index):
                self._check_instance_variable(node, index)
                self.asm.push_instance_variable(index)
            case binding:
                self.asm.push_variable(binding)

    def push_local(self, local: LocalVariable) -> None:
        if local.vector is None:
            self.asm.push_temporary(self._slot(local))
        else:
            self.asm.push_remote(local.vector_index, self._slot(local.vector))

    def store(self, node: Variable, *, pop: bool) -> None:
        match node.binding:
            case LocalVariable() as local:
                self.store_local(local, pop=pop)
            case InstanceVariable(index):
                self._check_instance_variable(node, index)
                self.asm.store_instance_variable(index, pop=pop)
            case None:
                raise AssertionError("a pseudo-variable was refused before")
            case binding:
                self.asm.store_variable(binding, pop=pop)

    def store_local(self, local: LocalVariable, *, pop: bool) -> None:
        if local.vector is None:
            self.asm.store_temporary(self._slot(local), pop=pop)
        else:
            self.asm.store_remote(local.vector_index, self._slot(local.vector), pop=pop)

    def _check_instance_variable(self, node: Variable, index: int) -> None:
        if index > MAX_SLOT_INDEX:
            raise LimitFault(
                node.start, f"`{node.name}` is instance variable {index}, at most {MAX_SLOT_INDEX} is possible"
            )

    def _send(self, node: Send, mode: Mode) -> None:
        if node.inlining is None:
            self.value(node.receiver)
            self._message(node.selector, node.arguments, node.to_super, value_discarded=mode is Mode.EFFECT, node=node)
            self.finish(mode)
            return
        try:
            INLINED[node.selector](self, node, mode)
        except JumpTooLong:
            raise Uninline(node) from None

    def _message(
        self, selector: str, arguments: list[Expression], to_super: bool, *, value_discarded: bool, node: Send | Cascade
    ) -> None:
        if len(arguments) > MAX_ARGUMENTS:
            raise LimitFault(
                node.start, f"{len(arguments)} arguments in a message, at most {MAX_ARGUMENTS} are possible"
            )
        for each in arguments:
            self.value(each)
        if to_super:
            self.asm.send_super(selector, len(arguments))
        else:
            self.asm.send(selector, len(arguments), value_discarded=value_discarded)

    def _cascade(self, node: Cascade, mode: Mode) -> None:
        to_super = is_super(node.receiver)
        self.value(node.receiver)
        for message in node.messages[:-1]:
            self.asm.duplicate()
            self._message(message.selector, message.arguments, to_super, value_discarded=True, node=node)
            self.asm.pop()
        last = node.messages[-1]
        self._message(last.selector, last.arguments, to_super, value_discarded=mode is Mode.EFFECT, node=node)
        self.finish(mode)

    def _brace(self, node: Brace) -> None:
        asm, size = self.asm, len(node.elements)
        if size <= MAX_BRACE_ON_STACK:
            for each in node.elements:
                self.value(each)
            asm.pop_into_new_array(size)
            return
        asm.push_array_class()
        self._literal(IntegerLiteral(size), Mode.VALUE)
        asm.send("new:", 1, value_discarded=False)
        for index, each in enumerate(node.elements, 1):
            asm.duplicate()
            self._literal(IntegerLiteral(index), Mode.VALUE)
            self.value(each)
            asm.send("at:put:", 2, value_discarded=True)
            asm.pop()

    # Blocks

    def _real_block(self, block: Block) -> None:
        scope = block.scope
        assert scope is not None
        self._check(len(block.parameters), MAX_ARGUMENTS, "arguments", block)
        self._check(len(scope.copied), MAX_COPIED, "variables copied from outside", block)
        self._check(len(scope.slots), MAX_TEMPORARIES, "arguments, copied values and temporaries", block)
        for each in scope.copied:
            self.asm.push_temporary(self._slot(each))
        body = self.asm.section(lambda: self._block_body(block, scope))
        self._check(len(body), MAX_CLOSURE_BYTES, "bytes of code", block)
        self.asm.push_closure(len(scope.parameters), len(scope.copied), body)

    def _block_body(self, block: Block, scope: CodeScope) -> None:
        asm = self.asm
        saved = self._scope, asm.depth, asm.max_depth
        self._scope = scope
        asm.depth = asm.max_depth = len(scope.parameters) + len(scope.copied)
        for each in scope.locals:
            if isinstance(each, Vector):
                self._new_vector(each)
            else:
                asm.push_constant(bc.PUSH_NIL)
        for parameter in scope.parameters:
            if parameter.vector is not None:
                asm.push_temporary(self._slot(parameter))
                self.store_local(parameter, pop=True)
        self._sequence(block.statements, Mode.BLOCK)
        self._finish_frame(block)
        self._scope, asm.depth, asm.max_depth = saved

    def inlined_block(self, block: Expression, mode: Mode) -> None:
        assert isinstance(block, Block)
        inlined = self.analysis.inlined[block]
        if inlined.vector is not None and inlined.vector.variables:
            self._new_vector(inlined.vector)
            self.asm.store_temporary(self._slot(inlined.vector), pop=True)
        for variable in inlined.variables:
            if variable.needs_nil():
                self.asm.push_constant(bc.PUSH_NIL)
                self.store_local(variable, pop=True)
        self._sequence(block.statements, mode)

    def section_at(self, depth: int, generate: Callable[[], None]) -> bytes:
        self.asm.depth = depth
        return self.asm.section(generate)
