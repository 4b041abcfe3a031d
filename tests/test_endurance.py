"The CPU renderer works wherever Python runs it: beside threads and forks, on a read-only disk, interrupted, for days; always the same bits."
import gc
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue

import pytest
import torch
from project import ROOT
from talkinglab.core.camera import orbit
from talkinglab.gs import tiles
from talkinglab.gs.gaussians import Gaussians
from talkinglab.gs.render import render
from torch.utils.data import DataLoader, Dataset


@cache
def inputs(seed, n, channels):
    "Made once: the last digit of torch's own sigmoid depends on the number of threads."
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    return randn(n, 3)*0.05, randn(n, 4), 0.004*randn(n, 3).mul(0.5).exp(), randn(n).sigmoid(), randn(n, channels).sigmoid()

def step(seed=0, n=1500, size=64, channels=3):
    "Half a training step: a picture, and the gradient of everything."
    leaves = [x.clone().requires_grad_() for x in inputs(seed, n, channels)]
    r = render(Gaussians(*leaves), orbit(20*seed, width=size, height=size), backend="cpu")
    loss = r.rgb.square().sum()+r.alpha.sum()+r.depth.sum()
    return [x.detach() for x in (r.rgb, r.alpha, r.depth, *torch.autograd.grad(loss, leaves))]

def same(a, b): return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class Pictures(Dataset):
    "Rendered where they are asked for, with gradients."
    def __len__(self): return 4
    def __getitem__(self, i): return step(i, n=400, size=32)


def run(code, timeout=240, **env):
    "A fresh process; it ends with `ok`."
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT/"tests", capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "PYTHONPATH": str(ROOT), **env})
    assert done.returncode==0 and done.stdout.strip().endswith("ok"), f"exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_several_python_threads_get_the_same_bits():
    "Forward and backward, of scenes of several sizes at once."
    jobs = [dict(seed=i%4, n=(300, 1500, 20000)[i%3], size=(32, 64, 300)[i%3], channels=(3, 3, 7)[i%3]) for i in range(12)]
    want = [step(**job) for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            for a, b in zip(pool.map(lambda job: step(**job), jobs), want): assert same(a, b)


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_workers_of_a_data_loader_draw_and_differentiate(start):
    "After the parent has drawn, and with its helper threads waiting; twice. A fork is free, a new process loads everything again: of those, one."
    import multiprocessing
    if start not in multiprocessing.get_all_start_methods(): pytest.skip(f"no {start} on this system")
    want = [Pictures()[i] for i in range(4)]
    loader = DataLoader(Pictures(), batch_size=None, num_workers=2 if start=="fork" else 1, multiprocessing_context=start, timeout=120, persistent_workers=True)
    for _ in range(2):
        for a, b in zip(loader, want, strict=True): assert same(a, b)
    assert same(step(), step())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_fork_in_the_middle_of_a_render():
    "Children forked while other threads draw: each has a crew of its own, and waits for no lock that nobody will open."
    want = step()
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(lambda: [step(n=20000, size=256) for _ in range(5)]) for _ in range(2)]
        children = []
        for _ in range(4):
            child = os.fork()
            if child==0:
                code = 1
                try:
                    signal.alarm(60)
                    code = 0 if same(step(), want) else 2
                finally: os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
        for b in busy: b.result()
    assert codes==[0]*4


def test_a_training_run_has_the_same_bits_for_any_number_of_threads():
    "Only the renderer runs on several: torch's own functions may differ in the last digit."
    threads_before, results = torch.get_num_threads(), []
    cameras = [orbit(10, width=300, height=70), orbit(-40, width=300, height=70)]
    target = torch.rand(2, 70, 300, 3, generator=torch.Generator().manual_seed(0))
    try:
        for threads in (1, 2, 3, 5):
            x = list(inputs(0, 30000, 3))
            for _ in range(4):
                x = [v.clone().requires_grad_() for v in x]
                torch.set_num_threads(threads)
                r = render(Gaussians(*x), cameras, backend="cpu")
                v = [torch.autograd.grad((r.rgb*(r.rgb.detach()-target)).sum(), x)]
                torch.set_num_threads(1)
                x = [(a.detach()-1e-6*b).clamp(*(0, 1) if a.ndim==1 else (None, 9)) for a, b in zip(x, v[0])]
            results.append(x)
    finally: torch.set_num_threads(threads_before)
    for other in results[1:]: assert same(other, results[0])
    assert not same(results[0], inputs(0, 30000, 3))


# A picture needs three large kernels, the normal of a triangle one small one.
USES = {"unset": """
        from talkinglab.core.camera import orbit
        from talkinglab.gs.gaussians import Gaussians
        from talkinglab.gs.render import render
        g = Gaussians(torch.zeros(1, 3), torch.tensor([[1., 0, 0, 0]]), torch.full((1, 3), 0.05), torch.ones(1), torch.ones(1, 1))
        assert render(g, orbit(width=8, height=8), depth=False).rgb.max()>0.5""", "a file": """
        import numpy as np
        from talkinglab.gs.tiles import load_kernels
        normals = load_kernels("talkinglab.face.mesh_kernels").vertex_normals(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32))
        assert abs(normals-3**-.5).max()<1e-6"""}

@pytest.mark.parametrize("cache_dir", USES)
def test_a_read_only_install(tmp_path, cache_dir):
    """A copy of the package whose folder, home and cache cannot be written. Root may write anywhere, so the refusal is simulated: numba is told that the
    disk is read-only, and home and caches are paths through a plain file."""
    package, wall = tmp_path/"site"/"talkinglab", tmp_path/"wall"
    shutil.copytree(ROOT/"talkinglab", package, ignore=shutil.ignore_patterns("__pycache__"))
    wall.write_text("a file, no folder")
    for folder in (package/"gs", package): folder.chmod(0o555)
    run(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(package.parent)!r})
        import numba.core.caching as caching
        ensure = caching._CacheLocator.ensure_cache_path
        def refuse(self):
            path = self.get_cache_path()
            if path.startswith({str(package)!r}): raise OSError(30, "Read-only file system", path)
            return ensure(self)
        caching._CacheLocator.ensure_cache_path = refuse
        import talkinglab, torch
        assert talkinglab.__file__.startswith({str(package)!r}), talkinglab.__file__
        {USES[cache_dir]}
        assert not list(Path({str(package)!r}).rglob("*.nb?")), "written into the package"
        assert list(Path({str(tmp_path)!r}).glob("talkinglab-*/**/*.nbc")), "cached nowhere"
        print("ok")
    """, PYTHONPATH=str(package.parent), PYTHONDONTWRITEBYTECODE="1", TMPDIR=str(tmp_path), HOME=str(wall/"home"), XDG_CACHE_HOME=str(wall/"cache"),
        NUMBA_CACHE_DIR="" if cache_dir=="unset" else str(wall/"numba"))


def test_ctrl_c_leaves_everything_usable():
    "A signal in the middle of forward and backward passes, at many moments."
    run("""
        import os, signal, threading
        from test_endurance import same, step
        signal.signal(signal.SIGINT, signal.default_int_handler) # a shell in the background hands down that it is ignored
        big = dict(n=60000, size=400)
        want, caught = step(), 0
        step(**big)
        for i in range(25):
            timer = threading.Timer(0.004+0.006*i, os.kill, [os.getpid(), signal.SIGINT])
            try:
                timer.start()
                while True: step(**big)
            except KeyboardInterrupt: caught += 1
            timer.join()
            assert same(step(), want), i
        assert caught==25
        print("ok")
    """)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc to read the memory from")
def test_three_hundred_steps_need_no_more_memory_than_sixty():
    run("""
        from test_endurance import step
        def resident(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1])/1024
        for i in range(60): step(i%5, n=1500, size=64)
        before = resident()
        for i in range(300): step(i%5, n=1500, size=64)
        assert resident()-before<3, f"{resident()-before:.1f} MiB more"
        print("ok")
    """)


def test_no_cycle_keeps_a_picture_alive():
    "With the collector off, dropping the last name frees the picture, its graph and its lists."
    gc.collect()
    gc.disable()
    try:
        for backward in (False, True):
            leaves = [x.clone().requires_grad_() for x in inputs(0, 20, 3)]
            r = render(Gaussians(*leaves), orbit(width=32, height=32), backend="cpu")
            nodes, kept = [r.rgb.grad_fn], [r, r.rgb, r.alpha, r.depth, r.info["means2d"]]
            while nodes: # and what our own functions remember
                node = nodes.pop()
                kept += [x for x in vars(node).values() if hasattr(x, "__weakref__")] if isinstance(node, torch.autograd.function.BackwardCFunction) else []
                nodes += [f for f, _ in node.next_functions if f is not None]
            assert any(type(x).__name__=="Tiles" for x in kept)
            kept = [weakref.ref(x) for x in kept]
            if backward: (r.rgb.sum()+r.depth.sum()).backward()
            del r, node
            step(n=40, size=16) # helpers have let go of the last call's arrays by then
            assert not [type(x()).__name__ for x in kept if x() is not None]
    finally: gc.enable()


def test_first_call_goes_alone(monkeypatch):
    # a helper that loads a kernel while Ctrl-C arrives leaves Numba half-way, and the process aborts on its way out
    asked = []
    monkeypatch.setattr(tiles, "_met", set())
    monkeypatch.setattr(tiles, "_crew", lambda helpers: asked.append(helpers) or SimpleQueue())
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first = step(n=10000)
        assert not asked
        assert same(step(n=10000), first) and set(asked) == {2}
    finally: torch.set_num_threads(threads)


def test_helpers_go_before_the_interpreter():
    code = """if True:
        import atexit, threading
        from talkinglab.gs import tiles
        helpers = lambda: sum(t.name.startswith("talkinglab") for t in threading.enumerate())
        atexit.register(lambda: print(helpers())) # runs after what is registered later
        tiles._crew(2)
        print(helpers())"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert said.split() == ["2", "0"]
