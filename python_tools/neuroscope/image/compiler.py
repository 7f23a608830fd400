"""One method's source ► its code: parse, analyse, generate, again where a send must be un-inlined."""

from __future__ import annotations

from dataclasses import dataclass

from .generator import GeneratedCode, Generator, Uninline
from .literals import Literal
from .nodes import Method
from .parser import parse_do_it, parse_method, primitive_of
from .scope import Environment, analyse


@dataclass(frozen=True)
class Pragma:
    """A pragma that is not a primitive: `<inspectorView: 'x' order: 1>`."""

    selector: str
    arguments: tuple[Literal, ...]


@dataclass(frozen=True)
class CompiledCode:
    """A method but for its place: no class binding, no trailer."""

    selector: str
    code: GeneratedCode
    pragmas: tuple[Pragma, ...]

    @property
    def header(self) -> int:
        """The value of the method header, a SmallInteger."""
        code = self.code
        return (
            (len(code.literals) + 2)
            | (code.primitive != 0) << 16
            | code.large_frame << 17
            | code.num_temps << 18
            | code.num_args << 24
        )


def compile_method(source: str, environment: Environment) -> CompiledCode:
    """Raises: Fault, LimitFault, with offsets into `source`."""
    return _compile(parse_method(source), environment)


def compile_do_it(source: str, environment: Environment) -> CompiledCode:
    """Statements as a method `DoIt` without arguments, which answers the last one."""
    return _compile(parse_do_it(source), environment)


def _compile(method: Method, environment: Environment) -> CompiledCode:
    while True:
        try:
            code = Generator(method, analyse(method, environment)).generate()
        except Uninline as signal:
            signal.send.may_inline = False
        else:
            pragmas = [each for each in method.pragmas if primitive_of(each) is None]
            return CompiledCode(
                method.selector, code, tuple(Pragma(each.selector, tuple(each.arguments)) for each in pragmas)
            )
