"""The recipes of docs/corpus.md run, where their library is installed."""

import re

import pytest
from conftest import ROOT

import severity_clf as sc

PAGE = (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")


def recipe(name):
    """The Python block that starts with `# name`."""
    (block,) = re.findall(rf"^```python\n(# {name}\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return block


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the recipes find `outputs.parquet`, of three rows."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    texts = ["Sorry, I cannot help with that.", "Water boils at 100 degrees.", "You are worthless, and all will laugh."]
    pq.write_table(pa.table({"id": [1, 2, 3], "output": texts}), tmp_path / "outputs.parquet")
    return tmp_path


@pytest.mark.filterwarnings("default")  # the library's own
def test_datasets_map_gives_the_packages_scores_from_two_processes(folder, base):
    """A loaded model is pickled to the processes."""
    pytest.importorskip("datasets", reason="needs pip install datasets")
    scope = {"__name__": "recipe"}
    exec(recipe("datasets"), scope)
    table = scope["scored"].with_format("arrow")[:]
    texts = table["output"].to_pylist()
    assert table["severity_overall"].to_pylist() == base.score(texts).overall.tolist()


def test_duckdb_calls_the_model_as_a_function(folder, base):
    """SQL over a file, with the severity as a function of a column."""
    pytest.importorskip("duckdb", reason="needs pip install duckdb")
    scope = {}
    exec(recipe("DuckDB"), scope)
    texts = ["Sorry, I cannot help with that.", "Water boils at 100 degrees.", "You are worthless, and all will laugh."]
    overall = dict(zip([1, 2, 3], base.score(texts).overall.tolist(), strict=True))
    assert dict(scope["found"]) == pytest.approx(overall)


def test_the_files_recipe_runs(folder):
    """The two functions that everything else is made of."""
    scope = {}
    exec(recipe("files and tables"), scope)
    assert isinstance(scope["summary"], sc.Summary)
    assert scope["table"].num_rows == 3
    assert (folder / "scored.parquet").is_file()
