"Every notebook runs, the package is what they export, and each reads as the house style says."
import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from project import CHAPTERS, NBS, ROOT, read

sys.path.insert(0, str(ROOT/"tools"))
from run_nbs import tidy  # noqa: E402

BIN = Path(sys.executable).parent
ids = lambda p: p.stem


@pytest.mark.parametrize("path", NBS, ids=ids)
def test_notebook_runs(path, tmp_path):
    "In a process of its own; cells flagged slow, gpu or notest are left out."
    env = dict(os.environ, MPLBACKEND="agg", OMP_NUM_THREADS="1", TALKINGLAB_OUT=str(tmp_path))
    p = subprocess.run([BIN/"nbdev_test", "--path", path, "--n_workers", "0"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout[-3000:]+p.stderr[-3000:]


def test_package_is_a_fresh_export(tmp_path):
    for name in ("nbs", "talkinglab"): shutil.copytree(ROOT/name, tmp_path/name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT/"settings.ini", tmp_path)
    subprocess.run([BIN/"nbdev_export"], cwd=tmp_path, check=True, capture_output=True)
    files = lambda root: {p.relative_to(root): p.read_text(encoding="utf-8") for p in sorted((root/"talkinglab").rglob("*.py"))}
    ours, fresh = files(ROOT), files(tmp_path)
    assert ours.keys() == fresh.keys()
    stale = [str(k) for k in ours if ours[k] != fresh[k]]
    assert not stale, f"differ from what the notebooks export: {stale}: run nbdev_export"


@pytest.mark.parametrize("path", NBS, ids=ids)
def test_notebook_is_clean(path):
    assert nbformat.writes(tidy(read(path)))+"\n" == path.read_text(encoding="utf-8"), f"run: python tools/run_nbs.py {path.relative_to(ROOT)}"


@pytest.mark.parametrize("path", NBS, ids=ids)
def test_notebook_is_light(path):
    assert path.stat().st_size < 1_000_000
    for i, c in enumerate(read(path).cells):
        for o in c.get("outputs", []): assert len(nbformat.writes(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[o])]))) < 140_000, f"cell {i}: output over 100 kB (140,000 characters in the notebook)"


# Each of these says the cell before it was checked.
CHECK = re.compile(r"\bassert\b|assert_close|raises|\btest_\w+\(|fails\(")


@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
def test_notebook_reads_as_a_chapter(path):
    cells = read(path).cells
    first = cells[0].source.strip().splitlines()
    assert first[0].startswith("# ") and any(line.startswith("> ") for line in first), "open with a claim and one line"
    pictures = [i for i, c in enumerate(cells) if any("image/png" in o.get("data", {}) for o in c.get("outputs", [])) or "![" in (c.source if c.cell_type == "markdown" else "")]
    visible = [i for i, c in enumerate(cells) if c.cell_type == "markdown" or not re.match(r"#\|\s*(default_exp|hide|export\b)", c.source)]
    assert pictures and visible.index(pictures[0]) < 4, "a picture among the first four cells that a reader sees"
    headings = [line for c in cells if c.cell_type == "markdown" for line in c.source.splitlines() if line.startswith("## ")]
    for want in ("What breaks", "Summary", "Exercises"): assert any(want in h for h in headings), f"no section '{want}'"
    for i, c in enumerate(cells):
        if c.cell_type == "code": assert len(c.source.splitlines()) <= 40 or "#| long" in c.source, f"cell {i} has {len(c.source.splitlines())} lines: 40 at most"


def _defines(source):
    try: tree = ast.parse(source)
    except SyntaxError: return False
    return any(isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_") for n in tree.body)


@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
def test_every_export_is_followed_by_a_lesson(path):
    "Between one exported definition and the next stands a cell that checks the first."
    pending = None
    for i, c in enumerate(read(path).cells):
        if c.cell_type != "code": continue
        if re.search(r"^#\|\s*exports?\b", c.source, re.M) and _defines(c.source):
            assert pending is None, f"cell {pending} is exported, and no lesson checks it before cell {i}"
            pending = i
        elif pending is not None and CHECK.search(c.source): pending = None
    assert pending is None, f"cell {pending} is exported, and no lesson checks it"


@pytest.mark.parametrize("path", CHAPTERS, ids=ids)
def test_exported_code_is_documented(path):
    "Every public function and class says what it does, and every parameter of a function has a type."
    for c in read(path).cells:
        if c.cell_type != "code" or not re.search(r"^#\|\s*exports?\b", c.source, re.M): continue
        assert "import *" not in c.source
        for n in ast.parse(c.source).body:
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_"):
                assert ast.get_docstring(n), f"{n.name} has no docstring"
                if isinstance(n, ast.FunctionDef):
                    bare = [a.arg for a in n.args.args+n.args.kwonlyargs if a.annotation is None and a.arg not in ("self", "cls", "frames")]
                    assert not bare, f"{n.name}: no annotation on {bare}"
