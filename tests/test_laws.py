"""Laws of the house: light imports, one way in, no code in a bundle."""

import ast
import json
import subprocess
import sys

import pytest
from conftest import ROOT

import severity_clf

PACKAGE = ROOT / "severity_clf"
HEAVY = ("torch", "sklearn", "scipy", "onnx", "joblib", "safetensors", "sentence_transformers", "transformers")
FILES_AND_CLUSTERS = ("pyarrow", "zstandard", "ray", "pandas", "duckdb", "datasets")  # only where they are asked for
ENGINES = {"onnxruntime", "tokenizers"}
UNPICKLERS = {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}
LOADED = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr)); "
SCORE = "sys.argv = ['sevclf', 'score', '-m', {!r}]; from severity_clf.cli import main; main()"


def heavy_modules_of(code, stdin=b""):
    """Which of the heavy packages a fresh process has loaded when it ends; and its standard output."""
    done = subprocess.run([sys.executable, "-c", LOADED + code], input=stdin, capture_output=True, check=True)
    modules = {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}
    assert "sys" in modules
    return modules.intersection(HEAVY + FILES_AND_CLUSTERS), done.stdout


def test_importing_the_package_is_light():
    """Whoever scores in a loop, a worker or a lambda does not pay for training."""
    assert heavy_modules_of("import severity_clf") == (set(), b"")


def test_scoring_is_light(tiny_bundle):
    """From the first import to the last line written."""
    heavy, stdout = heavy_modules_of(SCORE.format(str(tiny_bundle)), b'{"output": "the cat"}\n')
    assert heavy == set()
    assert json.loads(stdout)["severity"]["level"] >= 0


@pytest.mark.parametrize("heavy", ["scipy", "sklearn", "onnx", "joblib", "safetensors", "pyarrow", "zstandard"])
def test_the_check_for_light_imports_can_fail(heavy):
    """A check that cannot fail proves nothing."""
    pytest.importorskip(heavy)
    found, _ = heavy_modules_of(f"import severity_clf, {heavy}")
    assert heavy in found


def test_the_check_sees_what_scoring_itself_would_load(tiny_bundle):
    """Also what is imported inside a function, long after the start."""
    lazy = "import severity_clf.scores as s; rows = s.Scores.rows; "
    lazy += "s.Scores.rows = lambda *arguments: (__import__('scipy'), rows(*arguments))[1]; "
    heavy, _ = heavy_modules_of(lazy + SCORE.format(str(tiny_bundle)), b'{"output": "the cat"}\n')
    assert "scipy" in heavy


def test_the_public_names_are_these():
    """A new name is a promise; `import *` gives all that is promised, and it is there."""
    assert sorted(severity_clf.__all__) == severity_clf.__all__
    exported = {}
    exec("from severity_clf import *", exported)
    assert set(exported) - {"__builtins__"} == set(severity_clf.__all__)
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    others = {name for name in vars(severity_clf) if not name.startswith("_")} - set(severity_clf.__all__)
    assert others <= modules


def imports_of(path):
    """Every module that a file names in an import, wherever in the file, with the names taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import, which this scan would miss"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [path.relative_to(PACKAGE).as_posix() for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_only_the_model_names_the_engines(path):
    """One way in: there is no second tokenisation and no second session that could drift from the first."""
    found = {name.partition(".")[0] for name in imports_of(path)} & ENGINES
    assert found == (ENGINES if path == PACKAGE / "model.py" else set())


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_in_the_package_unpickles(path):
    """A bundle holds weights and words, never code; joblib may cache inside training, and loads nothing."""
    allowed = {"joblib"} if path.parent == PACKAGE / "fit" else set()
    assert {name.partition(".")[0] for name in imports_of(path)} & UNPICKLERS <= allowed
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    for call in calls:
        named = ast.unparse(call.func)
        assert named not in {"joblib.load", "eval", "exec", "compile", "__import__"}, f"line {call.lineno}"
        unsafe = [keyword for keyword in call.keywords if keyword.arg == "allow_pickle"]
        assert not unsafe, f"line {call.lineno}"


# Lower numbers are further down; a file may import what is strictly below it.
STOREYS = {
    "taxonomy": 0, "chat": 0, "metrics": 0, "conformal": 0, "page": 0, "plain": 0, "cpus": 0,
    "lines": 1, "decode": 1, "bundle": 1, "scores": 1, "report": 1,
    "records": 2, "model": 2, "jsonl": 2,
    "formats": 3, "fit": 3, "evaluate": 3, "reward": 3,
    "reading": 4, "writing": 5, "sinks": 6, "corpus": 7, "integrations": 8,
    "cli": 9,
}  # fmt: skip


def storey_of(path):
    """The storey of a file or, for a folder, of all that is in it."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", [path for path in FILES if path.parent != PACKAGE or path.stem != "__init__"], ids=str)
def test_imports_point_one_way(path):
    """cli -> {fit, corpus} -> model -> {bundle, scores} -> taxonomy; within a folder, anything but a circle."""
    here = storey_of(path)
    assert here in STOREYS, f"{here} has no storey: give it one above"
    for module in imports_of(path):
        package, _, rest = module.partition(".")
        there = rest.partition(".")[0]
        if package == "severity_clf" and there in STOREYS and there != here:
            assert STOREYS[there] < STOREYS[here], f"{here} imports {there}"


def test_the_package_itself_is_imported_whole_by_the_command_alone():
    """`import severity_clf` inside a module is every storey at once."""
    users = [name for path, name in zip(FILES, NAMES, strict=True) if "severity_clf" in imports_of(path)]
    assert users == ["cli.py"]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_only_the_fitting_folder_names_heavy_packages(path):
    """The extras are named where they are needed and nowhere else."""
    found = {name.partition(".")[0] for name in imports_of(path)} & set(HEAVY)
    if path == PACKAGE / "integrations" / "trl.py":  # a callback of a trainer, which is heavy itself
        assert found == {"transformers"}
        return
    assert not found or path.parent == PACKAGE / "fit", found
    assert not found & {"torch", "sentence_transformers", "transformers"} or path.stem in {"finetune", "static"}, found


def test_rewarding_is_light(tiny_bundle):
    """Also with the hosts' files, but for the one whose host is heavy."""
    code = "from severity_clf import SafetyReward; "
    code += "from severity_clf.integrations import ms_swift, openrlhf, verifiers, verl; "
    code += f"print(SafetyReward({str(tiny_bundle)!r}, combine='safety')(['the cat']))"
    heavy, stdout = heavy_modules_of(code)
    assert heavy == set()
    assert 0 < json.loads(stdout)[0] < 1


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_libraries_of_files_and_clusters_are_named_where_they_are_used(path):
    """pyarrow and zstandard come through one door, which says what to install; a cluster's is its integration's."""
    found = {name.partition(".")[0] for name in imports_of(path)} & set(FILES_AND_CLUSTERS)
    assert not found or path.parent == PACKAGE / "integrations", found


def test_without_the_extra_the_fit_says_what_to_install():
    """One clear error at the door, not one from the depths."""
    code = "import sys; sys.modules['onnx'] = None\nimport importlib.util as u\nfind = u.find_spec\n"
    code += "u.find_spec = lambda name: None if name == 'onnx' else find(name)\nimport severity_clf.fit"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "severity_clf.fit needs onnx; install it with: pip install 'severity-clf[train]'" in run.stderr
