"""The rules of the house (CONTRIBUTING.md), read from the imports."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
# From the ground floor up. A room imports from floors below its own, and from itself.
FLOORS = (
    ("core",),
    ("radiographs",),
    ("models", "metrics"),
    ("lungs",),
    ("training", "tfds_builders"),
    ("heatmaps",),
    ("inference", "reporting"),
    ("hospital",),
    ("workflow",),
    ("commands",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WITHOUT_JAX = ("radiographs", "metrics", "reporting")
MAY_IMPORT_JAX = tuple(f"sdfn_jax.core.{name}" for name in ("backend", "checkpoint", "jit_cache", "processes"))
JAX = {"jax", "flax", "optax", "orbax"}


def modules() -> dict[str, ast.Module]:
    """{dotted name: its syntax tree} of the product's modules."""
    paths = [path for package in ("sdfn_jax", "tfds_builders") for path in (ROOT / package).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items()}


MODULES = modules()


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


ARROWS = {name: {other for other in imported(tree) if other in MODULES} for name, tree in MODULES.items()}


def room(module: str) -> str:
    """The folder of a module; a file directly in `sdfn_jax/` is a command, and the package itself is the API."""
    first, *rest = module.split(".")
    if first == "tfds_builders":
        return first
    return rest[0] if rest and rest[0] in FLOOR else "commands"


def test_a_file_directly_in_the_package_is_a_command():
    files = {path.stem for path in (ROOT / "sdfn_jax").glob("*.py")} - {"__init__"}
    for name in files:
        functions = {node.name for node in MODULES[f"sdfn_jax.{name}"].body if isinstance(node, ast.FunctionDef)}
        assert "main" in functions, f"sdfn_jax/{name}.py has no main: it belongs in a room"
    folders = {path.name for path in (ROOT / "sdfn_jax").iterdir() if (path / "__init__.py").exists()}
    assert folders == FLOOR.keys() - {"commands", "tfds_builders"}


def test_rooms_import_from_floors_below_alone():
    upward = [
        f"{module} imports {other}"
        for module, others in ARROWS.items()
        for other in others
        if room(other) != room(module) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert not upward, "\n".join(sorted(upward))


def test_no_circle_between_modules():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "a circle: " + " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in ARROWS[module] - {module}:
                # A package's own __init__ names its modules for others; they may import the package.
                if not other.startswith(f"{module}."):
                    visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_what_needs_no_network_needs_no_jax():
    wrong = [
        name
        for name, tree in MODULES.items()
        if room(name) in WITHOUT_JAX or (room(name) == "core" and name not in MAY_IMPORT_JAX)
        for other in imported(tree)
        if other.split(".")[0] in JAX
    ]
    assert not wrong, f"these import jax: {sorted(set(wrong))}"


def test_the_report_and_the_metrics_are_imported_without_jax():
    """The rule above sees direct imports; this sees all of them."""
    rooms = [name for name in MODULES if room(name) in WITHOUT_JAX]
    code = f"import sys, importlib\nfor name in {rooms}: importlib.import_module(name)\nassert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What several modules of one room have because something asks each of them for it: {name: who asks}.
ASKED_OF_EACH = {
    "AGAIN": "cli: what a command does when it is run again",
    "Builder": "TFDS: the builder of a data set's folder",
    "NAME": "weights_file: whose files a module reads",
    "PREPROCESSING": "weights_file: the images that they expect",
}


def test_a_public_class_or_constant_has_a_name_of_its_own():
    """Whoever meets a name, in a traceback or a search, knows which thing it is."""
    places: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        for name in defined(tree):
            places.setdefault(name, set()).add(module)
    doubles = {name: sorted(found) for name, found in places.items() if len(found) > 1 and name not in ASKED_OF_EACH}
    assert not doubles, f"one name, two things: {doubles}"


def defined(tree: ast.Module) -> Iterator[str]:
    """The public classes, types and constants of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign) and "TypeVar(" not in ast.unparse(node):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found = (each for target in targets for each in ast.walk(target))
            names = [each.id for each in found if isinstance(each, ast.Name) and each.id[0].isupper()]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def test_only_the_workflow_prepares_data_sets():
    """Heatmaps of reference boxes read a prepared set; nothing below prepares one."""
    callers = {name for name, others in ARROWS.items() if "tfds_builders.prepare" in others}
    assert {room(name) for name in callers} <= {"workflow", "commands", "tfds_builders"} or callers <= {
        "sdfn_jax.heatmaps.localize"
    }
