"""What the tutorial says to type works, in its order, in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from severity_clf.model import SeverityModel

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("bash") is None, reason="its commands are for a shell")
def test_every_block_of_the_tutorial_runs_and_leaves_a_bundle_that_scores(tmp_path):
    """A page that has gone stale sends people away."""
    blocks = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    assert {"sevclf " + verb for verb in ("train", "info", "score", "calibrate")} <= {
        " ".join(line.split()[:2]) for kind, code in blocks for line in code.splitlines() if kind == "sh"
    }
    tools, folder = tmp_path / "bin", tmp_path / "empty"
    tools.mkdir()
    folder.mkdir()
    command = tools / "sevclf"
    command.write_text(f"#!{sys.executable}\nfrom severity_clf.cli import main\n\nmain()\n")
    command.chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for kind, code in blocks:
        run = [sys.executable, "-W", "error", "-c", code] if kind == "python" else ["bash", "-euc", code]
        env = {**os.environ, "PATH": path, "PYTHONPATH": search}
        done = subprocess.run(run, cwd=folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    fine, bad = (json.loads(line)["severity"] for line in (folder / "scored.jsonl").read_text().splitlines())
    assert (fine["flagged"], bad["flagged"]) == (False, True)
    domains = SeverityModel(folder / "tone", threads=1).taxonomy.domains
    assert [domain.evidence for domain in domains] == ["graded", "graded", "binary"]
