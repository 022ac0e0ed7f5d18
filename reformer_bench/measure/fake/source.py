"""Finds the line of code that runs an operator, and what its statement does with what it reads."""

from __future__ import annotations

import ast
import dis
import functools
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Literal

import torch
from torch import Tensor, nn

_TORCH = str(Path(torch.__file__).parent)
_PROBES = str(Path(__file__).parent)
# What torch itself puts between a statement and the operator that the statement runs.
_PLUMBING = tuple(
    f"{_TORCH}/{name}"
    for name in (
        *("_ops.py", "_tensor.py", "_compile.py", "overrides.py", "functional.py", "__init__.py"),
        *("utils/", "_subclasses/", "_dynamo/", "_library/", "_prims", "_refs/", "_decomp/"),
        *("_meta_registrations.py", "autograd/", "nn/functional.py", "_higher_order_ops/"),
    )
)
_TESTS = ("POP_JUMP", "JUMP_IF", "UNARY_NOT", "TO_BOOL", "EXTENDED_ARG")
_SIZES_FROM = ("int", "range", "round", "ceil", "floor")

_Positions = tuple[int | None, int | None, int | None, int | None]

Purpose = Literal["raises", "loops", "sizes", "decides", "number"]
"""What becomes of a value: whether to raise, whether to leave a loop, a size, which way to go, or
something else."""


@dataclass(frozen=True)
class Use:
    """What a statement does with a value that it reads."""

    purpose: Purpose
    passing: bool | None = None
    """The truth with which nothing is raised, or the loop is left; None where the value's truth
    does not decide that."""
    passing_number: int | None = None
    """A number with which it is so, where the statement compares the value."""


def running_frame() -> FrameType | None:
    """Return the innermost frame whose statement runs the operator, torch's own functions of more
    than one operator among them.
    """
    return next(_frames(_PLUMBING), None)


def copies_buffer_deeply() -> bool:
    """Say whether ``copy.deepcopy`` of a tensor that is no parameter runs the operator."""
    frame = next(_frames(tuple(x for x in _PLUMBING if x != f"{_TORCH}/_tensor.py")), None)
    if frame is None or frame.f_code is not Tensor.__deepcopy__.__code__:
        return False
    return not isinstance(frame.f_locals["self"], nn.Parameter)


def place(path: str, line: int) -> str:
    """Write a place in the code, by its package's path where it is an installed one."""
    _, installed, inside = path.rpartition("site-packages/")
    return f"{inside if installed else path}:{line}"


def model_place() -> str:
    """Return the line that runs the operator, outside torch."""
    frame = next(_frames((f"{_TORCH}/",)), None)
    return "an unknown line" if frame is None else place(frame.f_code.co_filename, frame.f_lineno)


def is_torchs(path: str) -> bool:
    """Say whether a file belongs to torch, to these recordings or to Python's import machinery."""
    return path.startswith((f"{_TORCH}/", f"{_PROBES}/", "<frozen"))


def _frames(passed_over: tuple[str, ...]) -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith((*passed_over, f"{_PROBES}/", "<frozen")):
            yield frame
        frame = frame.f_back


def use_of_value(frame: FrameType) -> Use:
    """Say what the statement that runs in a frame does with the value it reads."""
    code, at = frame.f_code, frame.f_lasti // 2
    # A jump on a value has the place of its whole statement; what comes before it, the value's own.
    while at > 0 and dis.opname[code.co_code[2 * at]].startswith(_TESTS):
        at -= 1
    return _use(code.co_filename, *_positions(code)[at])


@functools.cache
def _positions(code: CodeType) -> tuple[_Positions, ...]:
    return tuple(code.co_positions())


@functools.cache
def _use(
    path: str, line: int | None, end_line: int | None, column: int | None, end_column: int | None
) -> Use:
    tree = _parsed(path)
    if tree is None or line is None or end_line is None or column is None or end_column is None:
        return Use("number")
    way = _way_to(tree, (line, column), (end_line, end_column))
    return _judged(way)


@functools.cache
def _parsed(path: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):
        return None


def _way_to(tree: ast.AST, start: tuple[int, int], end: tuple[int, int]) -> list[ast.AST]:
    """Return the nodes around a piece of source, the outermost first."""
    way, node = [tree], tree
    while True:
        for child in ast.iter_child_nodes(node):
            # Operators and contexts have no place of their own.
            if not isinstance(child, ast.stmt | ast.expr | ast.ExceptHandler | ast.match_case):
                continue
            first: Any = child.body[0] if isinstance(child, ast.match_case) else child
            last: Any = child.body[-1] if isinstance(child, ast.match_case) else child
            begin = (first.lineno, first.col_offset)
            if begin <= start and end <= (last.end_lineno or 0, last.end_col_offset or 0):
                way.append(child)
                node = child
                break
        else:
            return way


_SMALL, _LARGE = 0, 2**62
_Relation = Literal["truth", "less", "greater", "other"]
_COMPARED: dict[type[ast.cmpop], _Relation] = {
    ast.Lt: "less",
    ast.LtE: "less",
    ast.Gt: "greater",
    ast.GtE: "greater",
}


def _judged(way: list[ast.AST]) -> Use:
    """Climb from the expression that reads to its statement, and keep what in the value makes the
    statement's condition true.
    """
    relation: _Relation = "truth"
    negated = False
    if isinstance(way[-1], ast.Assert | ast.While | ast.If):
        way.append(way[-1].test)
    while isinstance(way[-1], ast.UnaryOp) and isinstance(way[-1].op, ast.Not):
        way.append(way[-1].operand)
    for at in range(len(way) - 1, 0, -1):
        inner, outer = way[at], way[at - 1]
        if isinstance(outer, ast.stmt):
            return _of_statement(inner, way[:at], relation, negated)
        if isinstance(outer, ast.UnaryOp) and isinstance(outer.op, ast.Not):
            negated = not negated
        elif isinstance(outer, ast.BoolOp) or _calls(outer, "bool"):
            continue
        elif _calls(outer, *_SIZES_FROM):
            return Use("sizes")
        elif isinstance(outer, ast.Compare):
            alone = relation == "truth" and not negated and inner is outer.left
            relation = _COMPARED.get(type(outer.ops[0]), "other") if alone else "other"
        elif isinstance(outer, ast.IfExp) and inner is outer.test:
            return Use("decides")
        else:
            relation = "other"
    return Use("number")


def _of_statement(inner: ast.AST, way: list[ast.AST], relation: _Relation, negated: bool) -> Use:
    statement = way[-1]
    if not isinstance(statement, ast.Assert | ast.While | ast.If) or inner is not statement.test:
        return Use("number")
    purpose: Purpose = "decides"
    wanted = None
    if isinstance(statement, ast.Assert):
        purpose, wanted = "raises", True
    elif isinstance(statement, ast.While):
        purpose, wanted = "loops", False
    else:
        for branch, taken in ((statement.body, True), (statement.orelse, False)):
            if branch and isinstance(branch[-1], ast.Raise):
                purpose, wanted = "raises", not taken
            elif branch and isinstance(branch[-1], ast.Break) and _endless(way):
                purpose, wanted = "loops", taken
    if wanted is None or relation == "other":
        return Use(purpose)
    wanted = wanted is not negated
    if relation == "truth":
        return Use(purpose, wanted)
    return Use(purpose, None, _SMALL if wanted is (relation == "less") else _LARGE)


def _calls(node: ast.AST, *names: str) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return getattr(node.func, "attr", getattr(node.func, "id", "")) in names


def _endless(way: list[ast.AST]) -> bool:
    """Say whether the innermost loop ends by a break only."""
    loops = [node for node in way if isinstance(node, ast.While | ast.For)]
    return (
        bool(loops)
        and isinstance(loops[-1], ast.While)
        and isinstance(loops[-1].test, ast.Constant)
    )
