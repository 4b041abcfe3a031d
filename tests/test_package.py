"What importing costs, what the core needs, and what must never be pulled in."
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

from project import ROOT

HEAVY = ("numba", "matplotlib", "librosa", "av", "plotly", "accelerate")


def python(code, *args):
    p = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr[-3000:]
    return p.stdout.strip()


def test_import_talkinglab_is_light():
    code = f"import sys, talkinglab; print([m for m in {HEAVY} if m in sys.modules])"
    assert python(code) == "[]"


def test_import_talkinglab_is_quick():
    code = "import time, torch; t = time.perf_counter(); import talkinglab; print(time.perf_counter()-t)"
    assert any(float(python(code)) < 0.5 for _ in range(3)) # the first, unless the machine is busy


# Everything else is refused by the finder below; what torch and jaxtyping themselves need was loaded before, or belongs to them.
BLOCK = """
import sys, torch, numpy, jaxtyping
theirs = {'torch', 'numpy', 'jaxtyping', 'talkinglab', 'sympy', 'mpmath', 'networkx', 'filelock', 'fsspec', 'jinja2', 'markupsafe', 'typing_extensions', 'wadler_lindig', 'functorch'}
allowed = theirs | set(sys.stdlib_module_names) | {m.split('.')[0] for m in sys.modules}
class Fence:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] not in allowed: raise ModuleNotFoundError(f"No module named '{name}' (fenced off)", name=name)
sys.meta_path.insert(0, Fence())
"""


def test_gaussians_render_with_torch_numpy_and_jaxtyping_alone():
    python(BLOCK+"""
for name in ('numba', 'safetensors'): # the fence holds
    try: __import__(name)
    except ModuleNotFoundError: pass
    else: raise SystemExit(name+' was let through')
from talkinglab.gs import gaussians, project, splat, render
from talkinglab.core.camera import orbit
g = torch.Generator().manual_seed(0)
n = 20
blobs = gaussians.Gaussians(means=0.05*torch.randn(n, 3, generator=g), quats=torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=-1),
                            scales=torch.full((n, 3), 0.01), opacities=torch.full((n,), 0.8), colors=torch.rand(n, 3, generator=g))
picture = render.render(blobs, orbit(0., width=32, height=24), backend="torch")
assert picture.rgb.shape == (24, 32, 3) and picture.alpha.max() > 0.5
""")


def test_no_dependency_pulls_what_breaks_cpu_installs():
    "Of all installed distributions that talkinglab or one of its extras leads to, none asks for torchvision, torchaudio or lpips."
    from packaging.requirements import Requirement
    seen, todo = {}, [("talkinglab", extra, "") for extra in ("", "lab", "dev", "docs", "face", "gpu", "speech")]
    while todo:
        name, extra, by = todo.pop()
        if (name, extra) in seen: continue
        seen[name, extra] = by
        try: requires = distribution(name).requires or []
        except PackageNotFoundError: continue  # an extra that is not installed here
        for r in map(Requirement, requires):
            if r.marker and not r.marker.evaluate({"extra": extra}): continue
            todo += [(r.name.lower().replace("_", "-"), e, name) for e in ("", *r.extras)]
    names = {n: by for (n, _), by in seen.items()}
    assert len(names) > 40 and "torch" in names
    for bad in ("torchvision", "torchaudio", "lpips"): assert bad not in names, f"{bad} is asked for by {names[bad]}"
