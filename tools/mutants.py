"""Which small changes of a solution does its check accept?

    python tools/mutants.py quantize_kv      of this exercise
    python tools/mutants.py 05 13            of the labs whose names begin so
    python tools/mutants.py                  of all: 20 minutes

A change is one operator, number, name or argument for another, or one left out. What passes is printed. It is the same
function written otherwise, or something that the lab leaves open; if it is neither, the check lacks a case.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import difflib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
from tqdm import tqdm

from labutils.course.engine import examine
from labutils.course.exercise import Exercise
from labutils.labs.catalogue import EXERCISES

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT = 2.0  # seconds a case: some changes make a loop endless
OPERATORS = {
    ast.Add: [ast.Sub], ast.Sub: [ast.Add], ast.Mult: [ast.Div], ast.Div: [ast.Mult, ast.FloorDiv],
    ast.FloorDiv: [ast.Div], ast.Pow: [ast.Mult], ast.LShift: [ast.RShift], ast.RShift: [ast.LShift],
    ast.BitAnd: [ast.BitOr], ast.BitOr: [ast.BitAnd, ast.BitXor], ast.And: [ast.Or], ast.Or: [ast.And],
    ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.GtE], ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.LtE],
    ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is], ast.In: [ast.NotIn],
}  # fmt: skip
NAMES = {
    "min": ["max"], "max": ["min"], "amin": ["amax"], "amax": ["amin"], "minimum": ["maximum"], "maximum": ["minimum"],
    "argmin": ["argmax"], "argmax": ["argmin"], "sum": ["mean"], "mean": ["sum"], "any": ["all"], "all": ["any"],
    "round": ["floor", "ceil", "trunc"], "floor": ["ceil", "round"], "ceil": ["floor"],
    "int8": ["int16", "uint8"], "uint8": ["int8", "int16"], "int16": ["int8"], "int32": ["int16", "int64"],
    "float16": ["float32"], "float32": ["float16", "float64"], "float64": ["float32"],
    "zeros": ["ones"], "ones": ["zeros"],
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Which small changes of a solution does its check accept?")
    parser.add_argument("wanted", nargs="*", help="names of exercises, or beginnings of labs' names; all by default")
    wanted = parser.parse_args(arguments).wanted or [""]
    chosen = [each for each in EXERCISES.values() if any(each.name == w or each.lab.startswith(w) for w in wanted)]
    if not chosen:
        parser.error(f"no exercise, and no lab, is called {' or '.join(wanted)}")
    for exercise in chosen:
        refused, accepted = tried(exercise)
        for change in accepted:
            print(f"  {change}")
        print(f"{exercise.name}: {refused} of {refused + len(accepted)} changes refused", flush=True)


def tried(exercise: Exercise) -> tuple[int, list[str]]:
    """(how many changes of the solution are refused, those that pass, as pieces of a diff); ValueError if it fails."""
    tree, scope = solution(exercise)
    right = ast.unparse(tree)
    if not passes(right, exercise, scope):
        raise ValueError(f"{exercise.name}: its own solution does not pass")
    refused, accepted = 0, []
    for source in tqdm(list(mutants(tree)), desc=exercise.name, unit="change", leave=False):
        if passes(source, exercise, scope):
            accepted.append(difference(right, source))
        else:
            refused += 1
    return refused, accepted


def passes(source: str, exercise: Exercise, scope: dict[str, Any]) -> bool:
    scope = dict(scope)
    try:
        exec(compile(source, "<a changed solution>", "exec"), scope)
    except Exception:
        return False
    return examine(scope[exercise.name], exercise, TIME_LIMIT).passed


def difference(before: str, after: str) -> str:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "\n  ".join(f"{line[0]} {line[2:].strip()}" for line in lines if line[0] in "+-")


# --- what a solution needs --------------------------------------------------------------------------------------------


def solution(exercise: Exercise) -> tuple[ast.Module, dict[str, Any]]:
    """The definition in the solution's notebook, and the names that it needs of the cells before it."""
    notebook = nbformat.read(ROOT / "solutions" / f"{exercise.lab}.ipynb", as_version=4)
    makers: dict[str, ast.stmt] = {}  # name -> the last statement so far that makes it
    for cell in notebook.cells:
        for statement in statements(cell.source) if cell.cell_type == "code" else []:
            if getattr(statement, "name", None) == exercise.name:
                scope: dict[str, Any] = {"__name__": "__main__"}
                make(needed_by(statement) - {exercise.name}, makers, scope)
                return ast.Module([statement], []), scope
            makers |= dict.fromkeys(made_by(statement), statement)
    raise ValueError(f"{exercise.lab}: its solution does not define {exercise.name}")


def statements(source: str) -> list[ast.stmt]:
    with contextlib.suppress(SyntaxError):  # a cell with a magic
        return ast.parse(source).body
    return []


def made_by(statement: ast.stmt) -> list[str]:
    """The names that an import, a definition or an assignment gives a value."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            return [(each.asname or each.name).partition(".")[0] for each in statement.names]
        case ast.FunctionDef() | ast.ClassDef():
            return [statement.name]
        case ast.Assign():
            return [name.id for name in ast.walk(statement) if isinstance(name, ast.Name) and is_set(name)]
    return []


def is_set(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def needed_by(node: ast.AST) -> set[str]:
    """The names that are read in a statement, and neither assigned there nor its arguments."""
    names = [name for name in ast.walk(node) if isinstance(name, ast.Name)]
    own = {name.id for name in names if is_set(name)}
    own |= {argument.arg for argument in ast.walk(node) if isinstance(argument, ast.arg)}
    return {name.id for name in names} - own


def make(names: set[str], makers: dict[str, ast.stmt], scope: dict[str, Any]) -> None:
    """Execute the statements that make these names, after those that make what they need themselves."""
    for name in sorted(names & makers.keys()):
        if name not in scope:
            make(needed_by(makers[name]) - {name}, makers, scope)
            exec(compile(ast.Module([makers[name]], []), "<a cell before>", "exec"), scope)


# --- changes ----------------------------------------------------------------------------------------------------------


def mutants(tree: ast.Module) -> Iterator[str]:
    """The source with one change, for each change.

    >>> list(mutants(ast.parse("x / 2")))
    ['x', '2', 'x * 2', 'x // 2', 'x / 3', 'x / 1']
    """
    seen = {ast.unparse(tree)}
    for put, node in places(tree):
        for other in changes(node):
            put(other)
            source = ast.unparse(tree)
            if source not in seen:
                seen.add(source)
                yield source
        put(node)


def places(tree: ast.AST) -> Iterator[tuple[Callable[[ast.AST], None], ast.AST]]:
    """Every node but annotations and decorators, and a function that puts another in its place."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        nodes = value if isinstance(value, list) else [value]
        for index, node in enumerate(nodes):
            if isinstance(node, ast.AST):
                if isinstance(value, list):
                    yield (lambda other, index=index, value=value: value.__setitem__(index, other)), node
                else:
                    yield (lambda other, field=field: setattr(tree, field, other)), node
                yield from places(node)


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of a node."""
    yield from (other() for other in OPERATORS.get(type(node), []))
    match node:
        case ast.BinOp():
            yield from (node.left, node.right)
        case ast.UnaryOp():
            yield node.operand
        case ast.BoolOp():
            yield from node.values
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case ast.Constant(value=float()):
            yield from (ast.Constant(2 * node.value), ast.Constant(0.0))
        case ast.Attribute():
            yield from (but(node, attr=name) for name in NAMES.get(node.attr, []))
        case ast.Name():
            yield from (but(node, id=name) for name in NAMES.get(node.id, []))
        case ast.Slice():
            yield from (but(node, **{end: None}) for end in ("lower", "upper", "step") if getattr(node, end))
        case ast.Call():
            yield from changed_calls(node)
        case ast.Assign() | ast.AugAssign() | ast.If() | ast.Expr(value=ast.Call()):
            yield ast.Pass()


def changed_calls(call: ast.Call) -> Iterator[ast.AST]:
    """Without one argument, with two exchanged, and not called at all: f(x) and x.f() become x."""
    for given in ("keywords", "args"):
        arguments = getattr(call, given)
        yield from (but(call, **{given: arguments[:i] + arguments[i + 1 :]}) for i in range(len(arguments)))
    if len(call.args) == 2:
        yield but(call, args=call.args[::-1])
    yield from call.args[:1]
    if isinstance(call.func, ast.Attribute):
        yield call.func.value


def but(node: ast.AST, **fields: Any) -> ast.AST:
    """A copy of a node with other fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


if __name__ == "__main__":
    sys.exit(main())
