"""What the CPU renderer costs before it is fast: compiling on the first call, loading on later ones, memory: benchmarks/results/render_start.json.

    python benchmarks/render_start.py [--size 512] [--n 100000]

Every row is measured in processes of its own. Memory is the peak of the resident set during one forward and backward pass, over what the process held
before it, after a warm-up on a small scene; Linux only."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from report import keep, where

ROOT = Path(__file__).resolve().parent.parent

SCENE = """
import json, sys, time
import torch
from talkinglab.core.camera import orbit
from talkinglab.gs.gaussians import Gaussians
from talkinglab.gs.render import render

def scene(n, size, sigma=(1, 3)):
    "n Gaussians of 1 to 3 px all over the image."
    g = torch.Generator().manual_seed(0)
    rand, pixel = lambda *s: torch.rand(*s, generator=g), 0.38/size
    return [x.requires_grad_() for x in ((rand(n, 3)-0.5)*0.38, torch.randn(n, 4, generator=g), pixel*(1+2*rand(n, 3)), 0.3+0.69*rand(n), rand(n, 3))]

def step(leaves, size, depth):
    r = render(Gaussians(*leaves), orbit(20, width=size, height=size), backend="cpu", depth=depth)
    (r.rgb.sum()+(r.depth.sum() if depth else 0)).backward()
"""
START = SCENE+"""
leaves, clocks = scene(1000, 128), (time.perf_counter, time.process_time)
t = [c() for c in clocks]
step(leaves, 128, depth={depth})
print(json.dumps([c()-before for c, before in zip(clocks, t)]))
"""
MEMORY = SCENE+"""
def kib(name): return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1])
for _ in range(3): step(scene(1000, 64), 64, {depth})
leaves = scene({n}, {size})
open("/proc/self/clear_refs", "w").write("5") # the peak starts anew
before = kib("VmRSS")
step(leaves, {size}, {depth})
print(json.dumps((kib("VmHWM")-before)/1024))
"""


def run(code, cache=None):
    "What a fresh process prints."
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE", **({"NUMBA_CACHE_DIR": str(cache)} if cache else {})}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    if done.returncode: sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def start_times(depth=False, repeats=3):
    "Seconds of the first forward and backward pass, also of processor time: compiling, and from the cache (the best of some). `import numba` is in both."
    with tempfile.TemporaryDirectory() as cache:
        cold = run(START.format(depth=depth), cache)
        warm = min(run(START.format(depth=depth), cache) for _ in range(repeats))
        size = sum(p.stat().st_size for p in Path(cache).rglob("*") if p.is_file())/2**20
    return dict(what="first pass, seconds", depth=depth, compiling=round(cold[0], 2), compiling_cpu=round(cold[1], 2),
                cached=round(warm[0], 2), cached_cpu=round(warm[1], 2), cache_mib=round(size, 1))


def peak_memory(n=100_000, size=512, depth=False, repeats=3):
    "MiB that one forward and backward pass needs on top of the scene: the median of some."
    found = sorted(run(MEMORY.format(n=n, size=size, depth=depth)) for _ in range(repeats))
    return dict(what="extra peak memory, MiB", n=n, size=size, depth=depth, peak=round(found[len(found)//2], 1), all=[round(x, 1) for x in found])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", type=int, default=512)
    p.add_argument("--n", type=int, default=100_000)
    a = p.parse_args()
    here, rows = where(), []
    for depth in (False, True):
        for measure in (lambda: start_times(depth), lambda: peak_memory(a.n, a.size, depth)):
            rows.append(measure())
            print(rows[-1], flush=True)
    keep("render_start", dict(**here, seeds=[0], rows=rows))


if __name__ == "__main__": main()
