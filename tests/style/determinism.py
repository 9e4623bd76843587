"""Rules that keep every node's result the same: each takes source text and yields what could make two nodes differ.

What syntax decides is decided strictly. A set is recognised by how it is written (literal, call, comprehension,
operator, method), by the assignments and annotations of names in its scope, and by the annotations of fields and
functions, which are known by their names in every file that is read together.
"""

import ast
from collections.abc import Iterator

from tests.style.source_tree import Violation, dotted, imported_names, resolved

CLOCK_AND_CHANCE = ("time", "random", "secrets", "uuid", "sched", "zoneinfo", "calendar")
SURROUNDINGS = ("os", "sys", "locale", "platform", "socket", "getpass", "tempfile", "subprocess", "gc", "signal")
THREADS = ("asyncio", "threading", "multiprocessing", "concurrent", "queue", "contextvars")
CALLS = {
    "id": "id() differs from run to run",
    "hash": "hash() differs from run to run",
    "input": "reads from outside",
    "open": "reads from outside",
    "datetime.datetime.now": "reads the clock",
    "datetime.datetime.utcnow": "reads the clock",
    "datetime.datetime.today": "reads the clock",
    "datetime.date.today": "reads the clock",
    "nacl.utils.random": "draws randomness",
    "nacl.signing.SigningKey.generate": "draws randomness",
    "nacl.bindings.randombytes": "draws randomness",
    "nacl.bindings.crypto_sign_keypair": "draws randomness",
    "numpy.random": "draws randomness",
}
EDGE_MAY_CALL = ("open",)

SET_TYPES = ("set", "frozenset", "AbstractSet", "MutableSet", "Set", "FrozenSet", "KeysView")
SET_METHODS = ("union", "intersection", "difference", "symmetric_difference")
SET_OPERATORS = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Sub)
# What gives the same for every order of its only argument.
ORDER_FREE = ("sorted", "set", "frozenset", "sum", "min", "max", "any", "all", "len")
# What walks through its arguments in their order.
ORDERED = (
    *("list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed", "next", "dict", "bytes", "bytearray"),
    *("str", "repr", "dict.fromkeys", "itertools.chain", "itertools.islice", "functools.reduce"),
)
ORDERED_METHODS = ("join", "extend", "from_iterable", "fromkeys", "writelines")


def surroundings_violations(source: str, *, edge: bool = False) -> list[Violation]:
    """Clock, chance, environment, identity and threads. A file at the edge may use threads, files and the system."""
    forbidden = CLOCK_AND_CHANCE if edge else (*CLOCK_AND_CHANCE, *SURROUNDINGS, *THREADS)
    tree = ast.parse(source)
    names = imported_names(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            tops = [module.partition(".")[0] for module in modules]
            found += [Violation(node.lineno, f"imports {top}") for top in tops if top in forbidden]
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            name = resolved(node, names)
            if name in CALLS and not (edge and name in EDGE_MAY_CALL):
                found.append(Violation(node.lineno, f"{name}: {CALLS[name]}"))
            elif name in {"os.environ", "os.getenv", "os.urandom", "os.environb"}:
                found.append(Violation(node.lineno, f"{name}: the environment is not an argument"))
            elif isinstance(node, ast.Attribute) and node.attr == "__hash__":
                found.append(Violation(node.lineno, "__hash__ differs from run to run"))
    return found


def _is_set_annotation(node: ast.expr | None) -> bool:
    match node:
        case ast.Subscript(value=value):
            if dotted(value).rpartition(".")[2] in {"Annotated", "Final", "ClassVar", "Optional", "Union"}:
                inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
                return any(_is_set_annotation(part) for part in inner)
            return _is_set_annotation(value)
        case ast.BinOp(left=left, right=right, op=ast.BitOr()):
            return _is_set_annotation(left) or _is_set_annotation(right)
        case ast.Constant(value=str(text)):
            try:
                return _is_set_annotation(ast.parse(text, mode="eval").body)
            except SyntaxError:
                return False
        case ast.Name() | ast.Attribute():
            return dotted(node).rpartition(".")[2] in SET_TYPES
    return False


Scope = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a scope without those of the functions and classes inside it (but with these themselves)."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _own_nodes(child)


def set_members(source: str) -> frozenset[str]:
    """The names of fields that hold sets and of functions that return them, as far as annotations and values say so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(body=body):
                for part in body:
                    match part:
                        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                            found |= {name} if _is_set_annotation(annotation) else set()
            case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=annotation):
                found |= {name} if _is_set_annotation(annotation) else set()
            case ast.FunctionDef(name=name, returns=returns) | ast.AsyncFunctionDef(name=name, returns=returns):
                found |= {name} if _is_set_annotation(returns) else set()
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value):
                found |= {name} if _Sets(frozenset()).is_set(value, set()) else set()
    return frozenset(found)


class _Sets:
    """Which expressions stand for sets, where the fields and functions named ``members`` do."""

    def __init__(self, members: frozenset[str]) -> None:
        self.members = members

    def names_of(self, scope: ast.AST, outer: set[str]) -> set[str]:
        """The names that stand for sets in a scope, those of the scopes around it included."""
        names = set(outer)
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            arguments = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
            names -= {argument.arg for argument in arguments}
            names |= {argument.arg for argument in arguments if _is_set_annotation(argument.annotation)}
        grown = True
        while grown:  # `b = a` before or after `a = set()`: until nothing more is found
            before = len(names)
            for node in _own_nodes(scope):
                match node:
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                        if _is_set_annotation(annotation):
                            names.add(name)
                    case ast.Assign(targets=targets, value=value) if self.is_set(value, names):
                        names |= {target.id for target in targets if isinstance(target, ast.Name)}
                    case ast.NamedExpr(target=ast.Name(id=name), value=value) if self.is_set(value, names):
                        names.add(name)
            grown = len(names) > before
        return names

    def is_set(self, node: ast.expr, names: set[str]) -> bool:
        """Whether an expression stands for a set, where ``names`` do."""
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Name(id=name):
                return name in names
            case ast.Attribute(attr=attribute):
                return attribute in self.members
            case ast.Call(func=ast.Name(id=name)):
                return name in {"set", "frozenset"} or name in self.members
            case ast.Call(func=ast.Attribute(attr=method, value=value)):
                return (
                    method in SET_METHODS or method in self.members or (method == "copy" and self.is_set(value, names))
                )
            case ast.BinOp(left=left, op=operator, right=right) if isinstance(operator, SET_OPERATORS):
                return any(self.is_set(side, names) or _is_view(side) for side in (left, right))
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body, names) or self.is_set(orelse, names)
            case ast.BoolOp(values=values):
                return any(self.is_set(value, names) for value in values)
            case ast.NamedExpr(value=value):
                return self.is_set(value, names)
        return False


def _is_view(node: ast.expr) -> bool:
    """``d.keys()`` and ``d.items()``: in order themselves, but an operator makes a set of them."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in {"keys", "items"}


def set_iteration_violations(source: str, members: frozenset[str] = frozenset()) -> list[Violation]:
    """Walks through a set, whose order differs from run to run, except into something that no order changes.

    ``members`` are the set members of the files around it, see set_members.
    """
    tree = ast.parse(source)
    sets = _Sets(members | set_members(source))
    found: list[Violation] = []

    def visit(scope: ast.AST, outer: set[str]) -> None:
        names = sets.names_of(scope, outer)
        free = {id(node) for call in _own_nodes(scope) for node in _order_free_arguments(call)}
        for node in _own_nodes(scope):
            if walked := [part for part in _walked(node, free) if sets.is_set(part, names)]:
                found.append(Violation(walked[0].lineno, f"walks through a set: sort it ({ast.unparse(walked[0])})"))
            elif isinstance(node, ast.Call) and _pops(node) and sets.is_set(node.func.value, names):  # type: ignore[attr-defined]
                found.append(Violation(node.lineno, "pops from a set: which element differs from run to run"))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
                visit(node, outer if isinstance(scope, ast.ClassDef) else names)

    visit(tree, set())
    return found


def _pops(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "pop" and not call.args


def _order_free_arguments(node: ast.AST) -> list[ast.AST]:
    """The comprehension that is the only argument of something that no order changes."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[ast.GeneratorExp() | ast.ListComp() as only], keywords=[]):
            return [only] if name in ORDER_FREE else []
    return []


def _walked(node: ast.AST, free: set[int]) -> list[ast.expr]:
    """The expressions that a node walks through in their order."""
    match node:
        case ast.For(iter=iterated) | ast.AsyncFor(iter=iterated):
            return [iterated]
        case ast.ListComp(generators=generators) | ast.GeneratorExp(generators=generators) if id(node) not in free:
            return [generator.iter for generator in generators]
        case ast.DictComp(generators=generators):
            return [generator.iter for generator in generators]
        case ast.Starred(value=value) | ast.YieldFrom(value=value):
            return [value]
        case ast.Assign(targets=[ast.Tuple() | ast.List()], value=value):
            return [value]
        case ast.FormattedValue(value=value):
            return [value]
        case ast.Call(func=function, args=arguments, keywords=keywords):
            name = dotted(function)
            if name in ORDERED or (isinstance(function, ast.Attribute) and function.attr in ORDERED_METHODS):
                return arguments
            if name in {"sorted", "min", "max"} and keywords:  # elements with equal keys stay in the set's order
                return arguments
    return []
