"""Small faults put into a module, one at a time: what a test that can fail must notice.

A mutant is one changed node of the syntax tree: a comparison with another operator, a number that
is one more, a condition turned round, an arithmetic sign, `and` for `or`. It is named by its
module, its function, its line's text and what was changed, so that the name stays the same when
lines move.
"""

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
CALCULATED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    source: str


def mutants_of(module: str, source: str) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    tree = ast.parse(source)
    lines = source.splitlines()
    seen: dict[str, int] = {}
    for place, (node, function) in enumerate(_walk(tree)):
        for change in _changes(node):
            line = lines[node.lineno - 1].strip() if hasattr(node, "lineno") else ""
            name = f"{module}:{function}: {line} [{change}]"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name += f" #{seen[name]}"
            changed = copy.deepcopy(tree)
            _apply([each for each, _ in _walk(changed)][place], change)
            yield Mutant(name, ast.unparse(ast.fix_missing_locations(changed)))


def _walk(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield nodes with the name of their function, in a stable order. Annotations, decorators and
    `strict` of a zip are left out: they keep us from mistakes, and change nothing of what is right.
    """

    def inside(node: ast.AST, function: str) -> Iterator[tuple[ast.AST, str]]:
        decorators = getattr(node, "decorator_list", [])
        for child in ast.iter_child_nodes(node):
            if child in decorators or (isinstance(child, ast.keyword) and child.arg == "strict"):
                continue
            if isinstance(child, ast.AnnAssign | ast.arg):
                children: list[ast.AST] = [c for c in [getattr(child, "value", None)] if c]
                for each in children:
                    yield each, function
                    yield from inside(each, function)
                continue
            named = child.name if isinstance(child, ast.FunctionDef) else function
            yield child, named
            yield from inside(child, named)

    yield from inside(tree, "")


def _changes(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
        return ["compare"]
    if isinstance(node, ast.BinOp) and type(node.op) in CALCULATED and not _is_text(node):
        return ["calculate"]
    if isinstance(node, ast.BoolOp):
        return ["and/or"]
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare):
        return ["turn round"]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return ["flip" if isinstance(node.value, bool) else "one more"]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLED:
        return ["call"]
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Compare | ast.BoolOp):
        return ["return the opposite"]
    return []


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(each, ast.JoinedStr | ast.Constant)
        and not isinstance(getattr(each, "value", None), int | float)
        for each in (node.left, node.right)
    )


def _apply(node: ast.AST, change: str) -> None:
    if change == "compare" and isinstance(node, ast.Compare):
        node.ops[0] = COMPARED[type(node.ops[0])]()
    elif change == "calculate" and isinstance(node, ast.BinOp):
        node.op = CALCULATED[type(node.op)]()
    elif change == "and/or" and isinstance(node, ast.BoolOp):
        node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif change == "turn round" and isinstance(node, ast.If | ast.IfExp | ast.While):
        node.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Constant):
        node.value = not node.value if change == "flip" else node.value + 1  # type: ignore[operator]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        node.func.id = CALLED[node.func.id]
    elif isinstance(node, ast.Return) and node.value is not None:
        node.value = ast.UnaryOp(ast.Not(), node.value)
