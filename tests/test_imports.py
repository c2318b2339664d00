"""Imports point one way: who may import whom inside cogbatch, and what heavy library belongs to whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EVERYONE = {"cogbatch", "types", "errors", "redact", "cache", "text", "images", "metric_names"}
ALLOWED = {
    "decoding": set(),
    "model": set(),
    "checkpoint": {"model"},
    "engine": {"model", "decoding"},
    "dataset": set(),
    "batch": {"engine", "dataset", "checkpoint"},
    "eval": {"dataset"},
}
TRAVELS = ("configuration_cogvlm", "decoder", "modeling_cogvlm", "visual", "processing_cogvlm", "templates")


def imports(file: Path) -> set[str]:
    """Every module that the file names in an import, also inside functions; relative ones without dots."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {module} if node.level == 0 and module != "cogbatch" else set()
            if node.level == 0 and module == "cogbatch":
                names |= {f"cogbatch.{alias.name}" for alias in node.names}
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / "cogbatch" / package).rglob("*.py"))
    assert found, package
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_lies_below(package: str) -> None:
    for file in files(package):
        for name in imports(file):
            parts = name.split(".")
            if parts[0] != "cogbatch" or len(parts) == 1:
                continue
            below = parts[1]
            is_class = below[0].isupper() or below == "__version__"
            assert is_class or below in EVERYONE | ALLOWED[package] | {package}, f"{file} imports {name}"


@pytest.mark.parametrize("name", TRAVELS)
def test_files_that_travel_import_nothing_of_ours(name: str) -> None:
    file = ROOT / "cogbatch" / "model" / f"{name}.py"
    assert not [module for module in imports(file) if module.split(".")[0] == "cogbatch"]


@pytest.mark.parametrize(
    ("library", "owners"),
    [
        ("ray", {"batch"}),
        ("torch", {"model", "checkpoint", "decoding", "engine", "batch"}),
        ("transformers", {"model", "checkpoint", "engine"}),
        ("typer", set()),
    ],
)
def test_heavy_libraries_stay_in_their_room(library: str, owners: set[str]) -> None:
    for package in ALLOWED.keys() - owners:
        for file in files(package):
            assert library not in {name.split(".")[0] for name in imports(file)}, f"{file} imports {library}"


def test_only_torch_files_are_pickles_and_nothing_runs_code_out_of_one() -> None:
    """torch_file's unpickler knows element types only, torch_writer writes; all loading is weights_only."""
    everything = sorted((ROOT / "cogbatch").rglob("*.py"))
    unsafe = {"pickle", "marshal", "shelve", "dill", "joblib"}
    importing = {file.name for file in everything if unsafe & imports(file)}
    assert importing == {"torch_file.py", "torch_writer.py"}
    calls = [
        node
        for file in everything
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    loads = [ast.unparse(call) for call in calls if ast.unparse(call.func) == "torch.load"]
    assert len(loads) >= 2
    assert all("weights_only=True" in load for load in loads), loads
    assert not [call for call in calls if "allow_pickle" in {keyword.arg for keyword in call.keywords}]


@pytest.mark.parametrize("module", ["types", "errors", "text", "metric_names"])
def test_the_ground_floor_is_light(module: str) -> None:
    standard = set(sys.stdlib_module_names) | ({"numpy"} if module == "text" else set())
    file = ROOT / "cogbatch" / f"{module}.py"
    outside = {name.split(".")[0] for name in imports(file)} - standard - {"cogbatch"}
    assert outside <= {"PIL"}  # for type checkers only


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import cogbatch.cli", {"torch", "ray", "transformers", "pyarrow"}),
        ("import cogbatch.dataset, cogbatch.eval", {"torch", "ray"}),
    ],
)
def test_light_imports_stay_light(statement: str, absent: set[str]) -> None:
    code = f"import sys; {statement}; print(*(set(sys.modules) & {absent!r}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
