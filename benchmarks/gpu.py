"""Everything that wants a CUDA device, in one go: the tests marked `cuda`, and the speed of every backend.

    make gpu   or   python benchmarks/gpu.py [--out benchmarks/results/gpu.json]

Writes one JSON file, anew after each stage, so that a run that is cut short leaves what it had. Exits with 0 if no test failed, 1 if one did, and 2,
with one line and nothing written, where there is no CUDA device or a package is missing.
"""
import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE") # before torch is imported: see render.py

ROOT = Path(__file__).resolve().parent.parent
NEEDED = "torch numpy jaxtyping gsplat packaging pytest beartype nbformat accelerate tqdm matplotlib".split()


class Recorder:
    "A pytest plugin: a line of JSON when a test starts and when it ends, so that a crash loses one test and no more."
    def __init__(self, path): self.path = path

    def say(self, **row):
        with open(self.path, "a") as f: f.write(json.dumps(row)+"\n")

    def pytest_runtest_logstart(self, nodeid, location): self.say(name=nodeid, outcome="crashed", seconds=None)

    def pytest_runtest_logreport(self, report):
        if report.when!="call" and report.passed: return
        outcome = report.outcome if report.when=="call" or report.skipped else "error"
        why = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr or ""))
        self.say(name=report.nodeid, outcome=outcome, seconds=round(report.duration, 3), **({"reason": why[:400]} if why else {}))

    def pytest_collectreport(self, report):
        if report.failed: self.say(name=report.nodeid, outcome="error", seconds=None, reason=str(report.longrepr)[-400:])


def record(path, args):
    "In a process of its own: run pytest and write what happens."
    import pytest
    return pytest.main(args, plugins=[Recorder(path)])


def marked(word):
    "Test files that use a marker: the others need not even be importable here."
    return sorted(p for p in (ROOT/"tests").glob("test_*.py") if re.search(rf"mark\.{word}\b", p.read_text(encoding="utf-8")))


def run_tests(files, *args):
    "Tests in another process: [{name, outcome, seconds, reason}]. One that takes the process down is \"crashed\"."
    with tempfile.TemporaryDirectory() as tmp:
        lines, rows = Path(tmp)/"lines", {}
        lines.touch()
        plain = "-p", "no:cacheprovider", "--continue-on-collection-errors"
        subprocess.run([sys.executable, __file__, "--record", str(lines), *plain, *args, *map(str, files)], cwd=ROOT)
        for row in map(json.loads, lines.read_text().splitlines()): # later lines of a test replace earlier ones
            rows[row["name"]] = row
        return list(rows.values())


def build_gsplat():
    "gsplat compiles its CUDA kernels on first use, for minutes: do it before any clock runs. Returns what it took, or why it failed."
    import torch
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "%d.%d" % torch.cuda.get_device_capability())
    os.environ.setdefault("MAX_JOBS", str(os.cpu_count()))
    start = time.time()
    try:
        from gsplat.cuda._backend import _C
        error = "no CUDA toolkit (nvcc) found" if _C is None else None
    except Exception as e: error = f"{type(e).__name__}: {e}"[-2000:]
    return dict(seconds=round(time.time()-start, 1), error=error)


def versions():
    "What everything ran with; a package that is missing or cannot be imported says so."
    import torch
    import render
    out = dict(python=platform.python_version(), cuda=torch.version.cuda)
    for name in ("torch", "numpy", "gsplat", "numba"):
        try: out[name] = version(name)
        except PackageNotFoundError: out[name] = None
    if render.no_numba(): out["numba"] = f"{out['numba']}: {render.no_numba()}"
    try: out["driver"] = subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"], capture_output=True, text=True).stdout.strip() or None
    except OSError: out["driver"] = None
    return out


def write(path, result):
    "All or nothing."
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.json")
    part.write_text(json.dumps(result, indent=1)+"\n")
    part.replace(path)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=ROOT/"benchmarks"/"results"/"gpu.json")
    p.add_argument("--quick", action="store_true", help="two cases of the benchmark instead of all")
    p.add_argument("--rehearse", metavar="EXPRESSION", help=argparse.SUPPRESS) # the same machinery without CUDA, on the tests that match
    a = p.parse_args()
    missing = [m for m in NEEDED if importlib.util.find_spec(m) is None]
    if missing:
        print(f"{sys.executable} lacks {', '.join(missing)}: `make gpu` without PYTHON= sets up an environment that has everything", file=sys.stderr)
        return 2
    import torch
    if not (a.rehearse or torch.cuda.is_available()):
        print(f"make gpu needs a CUDA device, and torch {torch.__version__} sees none here: nothing was run", file=sys.stderr)
        return 2
    build = None if a.rehearse else build_gsplat()
    import render # beside this file
    from report import where
    draws, cannot = render.backends(torch.get_num_threads())
    result = dict(**where(), versions=versions(), seeds=[render.SEED],
                  gsplat_build=build, tests=[], rows=[], complete=False)
    result["tests"] = run_tests(marked("cuda"), *(["-m", "not slow and not cuda", "-k", a.rehearse] if a.rehearse else ["-m", "cuda"]))
    write(a.out, result)
    def done(row):
        render.tell(row)
        result["rows"].append(row)
        write(a.out, result)
    cases = render.QUICK[:1] if a.rehearse else render.QUICK if a.quick else render.CASES
    try: render.measure(cases, torch.get_num_threads(), draws, cannot, 0.1 if a.rehearse else 1, 10, done)
    except (Exception, SystemExit) as e: result["error"] = f"{type(e).__name__}: {e}"
    write(a.out, result|dict(complete="error" not in result))
    counts = {o: sum(t["outcome"]==o for t in result["tests"]) for o in sorted({t["outcome"] for t in result["tests"]})}
    print(f"{a.out}: tests {counts}, {len(result['rows'])} benchmark rows"+(f", {result['error']}" if "error" in result else ""))
    bad = not result["tests"] or set(counts)-{"passed", "skipped"} or "error" in result
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1:2]==["--record"]: sys.exit(record(sys.argv[2], sys.argv[3:]))
    sys.exit(main())
