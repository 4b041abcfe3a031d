"""How fast is a render? Every backend that this machine has, side by side, and how far the CPU kernels are from what the machine could do at most.

    python benchmarks/render.py [--quick] [--threads 2] [--opponent FOLDER]     writes benchmarks/results/render.json and render.png

The backends take turns, so that a busy moment of the machine meets all of them; forward is without gradients, "both" is forward and backward
into all five attributes. Slow backends run fewer times: `runs` says how often. The scene is a head-like shell whose splats are 1 to 3 px wide
in every picture, so the same number of Gaussians covers the same number of pixels in a small picture and in a large one.
"""
import argparse
import math
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE") # torch's idle threads sleep: on a machine with anything else to do, spinning ones cost it a factor of ten
import numpy as np  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from report import keep, where  # noqa: E402
from talkinglab.core.camera import orbit, project_points  # noqa: E402
from talkinglab.gs.gaussians import Gaussians  # noqa: E402
from talkinglab.gs.project import project  # noqa: E402
from talkinglab.gs.render import render  # noqa: E402
from talkinglab.gs.splat import MAX_ALPHA, MIN_ALPHA, MIN_T  # noqa: E402

CASES = [(n, size, 3) for size in (128, 256, 512) for n in (5_000, 20_000, 100_000)]+[(20_000, 256, c) for c in (16, 32)] # Gaussians, px, channels
QUICK = [(5_000, 128, 3), (20_000, 256, 3)]
SEED, TILE = 0, 16
FIELDS = "means", "quats", "scales", "opacities", "colors"


def scene(n, size, channels=3, seed=SEED):
    "A head's shell filling 85 % of the picture's height: 1 to 3 px (log-uniform) along each axis, opacities 0.3 to 0.99; and its camera."
    g = torch.Generator().manual_seed(seed)
    camera = orbit(11, -6, radius=0.6, fov=math.degrees(2*math.atan(0.1/0.6/0.85)), width=size, height=size)
    way = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    means = way*torch.tensor([0.075, 0.1, 0.085])*(1+0.01*torch.randn(n, 1, generator=g))
    px = project_points(camera, means)[1][:, None]/camera.K[1, 1] # a pixel's width there, m
    return Gaussians(means, torch.randn(n, 4, generator=g), 3**torch.rand(n, 3, generator=g)*px, 0.3+0.69*torch.rand(n, generator=g),
                     torch.rand(n, channels, generator=g)), camera


# The opponents: plain torch, and gsplat's torch code

@torch.no_grad()
def tile_lists(means, radii, depths, width, height):
    "Which splats' boxes touch which tile, nearest first: row numbers, and where each tile's begin."
    grid = torch.tensor([-(-width//TILE), -(-height//TILE)])
    low, high = (x.long().clamp(min=0).minimum(grid) for x in (((means-radii)/TILE).floor(), ((means+radii)/TILE).ceil()))
    order = depths.argsort(stable=True)
    across, count = (high-low)[:, 0], ((high-low).prod(1)*(radii>0).all(1))[order]
    who = order.repeat_interleave(count)
    k = torch.arange(len(who))-(count.cumsum(0)-count).repeat_interleave(count)
    tile, place = ((low[who, 1]+k//across[who])*grid[0]+low[who, 0]+k%across[who]).sort(stable=True)
    return who[place], torch.searchsorted(tile, torch.arange(int(grid.prod())+1)).tolist()


@cache
def tile_pixels(width, t):
    "The pixels of tile t: x and y of their centres."
    row, column = divmod(t, -(-width//TILE))
    y, x = torch.meshgrid(torch.arange(TILE), torch.arange(TILE), indexing="ij")
    return (x.flatten()+column*TILE+0.5)[:, None], (y.flatten()+row*TILE+0.5)[:, None]


def tile_alpha(width, t, means, conics, opacities):
    "How much of each pixel of a tile (rows) each of these splats (columns) covers."
    x, y = tile_pixels(width, t)
    dx, dy = x-means[:, 0], y-means[:, 1]
    sigma = 0.5*(conics[:, 0]*dx*dx+conics[:, 2]*dy*dy)+conics[:, 1]*dx*dy
    alpha = (opacities*torch.exp(-sigma)).clamp(max=MAX_ALPHA)
    return torch.where((alpha>=MIN_ALPHA) & (sigma>=0), alpha, 0)


def plain_torch(g, camera):
    "What one would write first: a loop over tiles, in each a dense block of pixels by splats, and autograd."
    w, h = camera.width, camera.height
    p, tiles = project(g, camera), []
    who, start = tile_lists(p.means2d, p.radii, p.depths, w, h)
    colors = g.colors[p.index]
    for t in range(len(start)-1):
        i = who[start[t]:start[t+1]]
        if not len(i):
            tiles.append(colors.new_zeros(TILE*TILE, colors.shape[1]+1))
            continue
        alpha = tile_alpha(w, t, p.means2d[i], p.conics[i], p.opacities[i])
        after = torch.cumprod(1-alpha, 1)
        before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
        share = torch.where(after>MIN_T, alpha*before, 0)
        tiles.append(torch.cat([share@colors[i], share.sum(1, keepdim=True)], 1))
    image = torch.stack(tiles).view(-(-h//TILE), -(-w//TILE), TILE, TILE, -1).transpose(1, 2).flatten(2, 3).flatten(0, 1)[:h, :w]
    return image[..., :-1], image[..., -1]


def gsplat_torch(g, camera):
    "gsplat's own torch functions. Which splat shows in which pixel is found tile by tile: its helper for that needs CUDA, as does the other one."
    from gsplat.cuda import _torch_impl as ti
    from oracle import NERFACC
    w, h = camera.width, camera.height
    covariances, _ = ti._quat_scale_to_covar_preci(g.quats, g.scales, compute_preci=False)
    radii, means, depths, conics, _ = ti._fully_fused_projection(g.means, covariances, camera.viewmat[None], camera.K[None], w, h)
    with torch.no_grad():
        who, start = tile_lists(means[0], radii[0], depths[0], w, h)
        splats, pixels = [], []
        for t in range(len(start)-1):
            i = who[start[t]:start[t+1]]
            if not len(i): continue
            alpha = tile_alpha(w, t, means[0, i], conics[0, i], g.opacities[i])
            pixel, place = ((alpha>0) & (torch.cumprod(1-alpha, 1)>MIN_T)).nonzero(as_tuple=True)
            x, y = tile_pixels(w, t)
            splats.append(i[place])
            pixels.append((y.long()*w+x.long())[pixel, 0])
        splats, pixels = torch.cat(splats), torch.cat(pixels)
    with patch.dict(sys.modules, nerfacc=NERFACC):
        image, alpha = ti.accumulate(means, conics, g.opacities[None], g.colors[None], splats, pixels, torch.zeros_like(splats), w, h)
    return image[0], alpha[0, ..., 0]


def opponent(folder, threads):
    "Another renderer on the CPU: `folder` has a module `splat` with gsplat's `rasterization`, under the name `rasterize`."
    sys.path.insert(0, str(Path(folder).resolve()))
    import splat
    splat.NT = threads
    def draw(g, camera):
        image, alpha = splat.rasterize(*(getattr(g, k) for k in FIELDS), camera.viewmat[None], camera.K[None], camera.width, camera.height)
        return image[0], alpha[0, ..., 0]
    return draw


def ours(backend):
    def draw(g, camera):
        r = render(g, camera, backend=backend, depth=False)
        return r.rgb, r.alpha
    return draw


def no_numba():
    "Why the CPU kernels cannot run; None if they can. Numba refuses a NumPy that is newer than it knows."
    try: import numba  # noqa: F401
    except Exception as e: return f"numba cannot be imported: {e}"


def backends(threads, folder=None):
    "What can run here: {name: how to draw}; and what cannot: {name: why}."
    can, cannot = dict(cpu=ours("cpu"), gsplat=ours("gsplat"), torch=ours("torch"), plain_torch=plain_torch, gsplat_torch=gsplat_torch), {}
    if no_numba(): cannot["cpu"] = no_numba()
    if not torch.cuda.is_available(): cannot["gsplat"] = "no CUDA device"
    else:
        try:
            from gsplat.cuda._backend import _C
            if _C is None: cannot["gsplat"] = "its kernels are not built: no CUDA toolkit (nvcc) found"
        except Exception as e: cannot["gsplat"] = f"its kernels cannot be built: {str(e).splitlines()[0]}"
    sys.path.insert(0, str(ROOT/"tests"))
    try: import gsplat.cuda._torch_impl, oracle  # noqa: E401, F401
    except Exception as e: cannot["gsplat_torch"] = f"cannot be imported: {e}"
    if folder: can["opponent"] = opponent(folder, threads)
    return {k: f for k, f in can.items() if k not in cannot}, cannot


# The clock

def once(draw, g, camera, pulls, backward, on_cuda):
    "Seconds of one pass, and its picture."
    leaves = [getattr(g, k).detach().requires_grad_(backward) for k in FIELDS]
    if on_cuda: torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.set_grad_enabled(backward):
        rgb, alpha = draw(Gaussians(*leaves), camera)
        if backward: torch.autograd.backward((rgb, alpha), pulls)
    if on_cuda: torch.cuda.synchronize()
    return time.perf_counter()-start, rgb.detach()


def race(draws, g, camera, seconds=2., least=3, most=40, rounds=5):
    """Times of all backends, taking turns: {name: {forward, both: [min, median] in ms, runs}}.

    Each gets about `seconds`, at most `most` runs, and at least `least` where one takes under 4 s. Raises `SystemExit` if two of them do not draw the same."""
    w = torch.Generator().manual_seed(1)
    pulls = torch.randn(camera.height, camera.width, g.colors.shape[1], generator=w), torch.randn(camera.height, camera.width, generator=w)
    runs, truth, took = {}, None, {k: ([], []) for k in draws}
    def run(name):
        on = "cuda" if name=="gsplat" else "cpu"
        for i, backward in enumerate((False, True)):
            s, image = once(draws[name], g.to(on), camera.to(on), [p.to(on) for p in pulls], backward, on=="cuda")
            took[name][i].append(s)
        return image.cpu()
    for name in draws:
        image = run(name)
        truth = image if truth is None else truth
        if (image-truth).norm()>1e-3*truth.norm(): raise SystemExit(f"{name} draws another picture: {(image-truth).norm()/truth.norm():.1e} off")
        one = sum(t[0] for t in took[name])
        runs[name] = max(least if one<4 else 1, min(most, int(seconds/one)))
        if one<0.5: # the first pass of a fast one is its warm-up
            for t in took[name]: t.clear()
        else: runs[name] -= 1
    for r in range(rounds):
        for name in draws:
            for _ in range(runs[name]*(r+1)//rounds-runs[name]*r//rounds): run(name)
    ms = lambda t: [round(1e3*min(t), 3), round(1e3*sorted(t)[len(t)//2], 3)]
    return {k: dict(forward=ms(f), both=ms(b), runs=len(f)) for k, (f, b) in took.items()}


# The limit: what must be computed, and how fast this machine could do it

@cache
def counter():
    """A renderer that only counts: pairs of a splat and a pixel that it covers, those that are drawn because the pixel is still open, and the
    windows of 16 pixels of a row that are needed to look at the latter."""
    from numba import njit
    @njit
    def count(means, conics, opacities, T):
        h, w = T.shape
        covered = drawn = windows = 0
        for i in range(len(means)):
            (x0, y0), (A, B, C), o = means[i], conics[i], opacities[i]
            level, det = 2*math.log(max(o*255, 1.)), A*C-B*B # of the ellipse: A dx^2 + 2 B dx dy + C dy^2 = level
            tall = math.sqrt(level*A/det)
            for y in range(max(0, math.ceil(y0-tall-0.5)), min(h, math.floor(y0+tall-0.5)+1)):
                dy = y+0.5-y0
                middle, half, end = x0-B/A*dy, math.sqrt(max(level/A-det/A**2*dy**2, 0.)), 0
                for x in range(max(0, math.ceil(middle-half-0.5)), min(w, math.floor(middle+half-0.5)+1)):
                    covered += 1
                    if T[y, x]<0: continue # stopped
                    if x>=end:
                        windows += 1
                        end = x+16
                    dx = x+0.5-x0
                    after = T[y, x]*(1-min(MAX_ALPHA, o*math.exp(-0.5*(A*dx*dx+C*dy*dy)-B*dx*dy)))
                    drawn += after>MIN_T
                    T[y, x] = after if after>MIN_T else -1
        return covered, drawn, windows
    return count


def count_pairs(g, camera):
    p = project(g.to(torch.float64), camera.to(torch.float64))
    order = p.depths.argsort(stable=True)
    arrays = (x[order].numpy() for x in (p.means2d, p.conics, p.opacities))
    return dict(zip(("covered_pairs", "drawn_pairs", "windows"), map(int, counter()(*arrays, np.ones((camera.height, camera.width))))))


def vector_rate(threads, n=2_000_000):
    "Measured: multiply-adds of 16 floats a second, all threads together, when nothing else is to be done."
    from numba import njit
    from talkinglab.gs.tiles_simd import fill, fma, load, store
    @njit(nogil=True)
    def churn(out, n):
        x, y = fill(np.float32(0.999)), load(out, 0)
        a = b = c = d = e = f = p = q = r = s = t = u = y # twelve chains: more than enough to hide the latency
        for _ in range(n):
            a, b, c, d, e, f = fma(a, x, y), fma(b, y, x), fma(c, x, x), fma(d, y, y), fma(e, x, a), fma(f, y, b)
            p, q, r, s, t, u = fma(p, x, y), fma(q, y, x), fma(r, x, x), fma(s, y, y), fma(t, x, p), fma(u, y, q)
        store(out, 0, a+b+c+d+e+f+p+q+r+s+t+u)
    churn(np.full(16, 0.1, np.float32), 1)
    best = 0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(8):
            start = time.perf_counter()
            list(pool.map(lambda _: churn(np.full(16, 0.1, np.float32), n), range(threads)))
            best = max(best, 12*n*threads/(time.perf_counter()-start))
    return best


def limits(counts, channels, rate):
    """The least time for compositing alone, ms. `issue`: the arithmetic vector instructions of a window, counted in the loops of `paint` and
    `unpaint` (from five channels on a pixel's channels are vectors of their own); `flops`: the arithmetic of the drawn pairs, had all lanes work."""
    many = -(-channels//16) if channels>4 else 0
    few = 0 if many else channels
    windows, pairs = counts["windows"], counts["drawn_pairs"]
    forward, backward = windows*(20+2*few)+pairs*many, windows*(38+2*few)+pairs*2*many
    out = dict(issue=[forward, forward+backward], flops=[pairs*(25+2*channels)/32, pairs*(62+6*channels)/32])
    return {k: [round(1e3*x/rate, 4) for x in v] for k, v in out.items()}


# The report

def measure(cases, threads, draws, cannot, seconds=2., most=math.inf, done=lambda row: None):
    """One row a case: counts, limits, times (ms: [min, median]) and how many times as long as `cpu` the others take (the fastest runs, which were disturbed least).

    `most`: slow backends sit out cases that would take them longer than this, s."""
    torch.set_num_threads(threads)
    rate = None if "cpu" in cannot else vector_rate(threads)
    for c in sorted({c for _, _, c in cases}): race(draws, *scene(500, 64, c), seconds=0, least=1) # compile, wake up
    rows, pace = [], {}
    for n, size, channels in cases:
        g, camera = scene(n, size, channels)
        row = dict(gaussians=n, size=size, channels=channels)
        if rate:
            row |= count_pairs(g, camera)
            row["limit_ms"] = limits(row, channels, rate)
        late = {k: f"left out: some {pace[k]*n:.0f} s a pass" for k in draws if pace.get(k, 0)*n>most}
        row["times"] = race({k: f for k, f in draws.items() if k not in late}, g, camera, seconds)
        pace = {k: (t["forward"][0]+t["both"][0])/1e3/n for k, t in row["times"].items()}
        if "cpu" in row["times"]:
            cpu = row["times"]["cpu"]
            row["ratio_to_cpu"] = {k: [round(t[w][0]/cpu[w][0], 2) for w in ("forward", "both")] for k, t in row["times"].items() if k!="cpu"}
        row["left_out"] = late|cannot
        rows.append(row)
        done(row)
    return rows, rate


def tell(row):
    "A row in words, on the terminal."
    print(f"{row['gaussians']:>7,} Gaussians, {row['size']} px, {row['channels']} channels"+(f"; {row['drawn_pairs']/1e6:.2f} M of {row['covered_pairs']/1e6:.2f} M covered pairs drawn, "
          f"{row['windows']/1e3:.0f} k windows; compositing takes at least {row['limit_ms']['issue'][0]:.2f} / {row['limit_ms']['issue'][1]:.2f} ms" if "windows" in row else ""))
    for k, t in row["times"].items():
        f, b = t["forward"], t["both"]
        ratio = row.get("ratio_to_cpu", {}).get(k)
        print(f"    {k:<13} forward {f[0]:9.2f} min {f[1]:9.2f} median   both {b[0]:9.2f} min {b[1]:9.2f} median ms   {t['runs']:2} runs"+(f"   x{ratio[0]:.3g} / x{ratio[1]:.3g}" if ratio else ""))
    for k, why in row["left_out"].items(): print(f"    {k:<13} {why}")
    sys.stdout.flush()


def plot(result, path):
    "Time against covered pairs: sixteen times the pixels (dotted to solid) change little, more Gaussians do."
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    rows = [r for r in result["rows"] if r["channels"]==3 and "covered_pairs" in r]
    names = dict(torch=("torch, the reference", "0.55"), gsplat_torch=("gsplat's torch code", "C3"), plain_torch=("plain torch tiles", "C1"), opponent=("opponent", "C4"),
                 cpu=("cpu", "C0"), gsplat=("gsplat, CUDA", "C2"), limit=("cpu, if only the\narithmetic took time", "k"))
    names = {k: v for k, v in names.items() if k=="limit" or any(k in r["times"] for r in rows)}
    styles = {128: ("o", ":"), 256: ("s", "--"), 512: ("^", "-")}
    fig, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True, layout="constrained")
    for i, (ax, title) in enumerate(zip(axes, ("forward", "forward and backward"))):
        for name, (_, color) in names.items():
            for size, (marker, line) in styles.items():
                own = sorted((r["covered_pairs"]/1e6, r["limit_ms"]["issue"][i] if name=="limit" else r["times"][name][("forward", "both")[i]][0])
                             for r in rows if r["size"]==size and (name=="limit" or name in r["times"]))
                if own: ax.plot(*zip(*own), line, marker=None if name=="limit" else marker, color=color, lw=1, ms=5, alpha=0.85)
        ax.set(xscale="log", yscale="log", title=title, xlabel="covered pairs of Gaussian and pixel, million", xticks=[1, 10], xticklabels=["1", "10"])
        ax.grid(alpha=0.25, lw=0.5)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("fastest run, ms")
    keys = [Line2D([], [], color=c, lw=3, label=label) for label, c in names.values()]
    keys += [Line2D([], [], color="0.3", marker=m, ls=line, ms=5, lw=1, label=f"{size} x {size} px") for size, (m, line) in styles.items()]
    fig.legend(handles=keys, loc="outside right center", frameon=False, fontsize=9)
    fig.savefig(path, dpi=80)
    plt.close(fig)
    from PIL import Image
    Image.open(path).convert("RGB").quantize(64).save(path, optimize=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="two cases, under a minute; writes nothing")
    p.add_argument("--threads", type=int, default=torch.get_num_threads())
    p.add_argument("--opponent", metavar="FOLDER", help="race another renderer too; see `opponent`")
    p.add_argument("--backends", help="only these, by comma")
    p.add_argument("--out", type=Path, default=ROOT/"benchmarks"/"results", help="folder for render.json and render.png")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    draws, cannot = backends(a.threads, a.opponent)
    if a.backends: draws = {k: draws[k] for k in a.backends.split(",")}
    load, start = os.getloadavg(), time.time()
    rows, rate = measure(QUICK if a.quick else CASES, a.threads, draws, cannot, 0.5 if a.quick else 2, 30, tell)
    result = dict(**where(a.threads), versions=dict(python=platform.python_version(), torch=torch.__version__, numpy=np.__version__),
                  seeds=[SEED], load_before=[round(x, 2) for x in load], load_after=[round(x, 2) for x in os.getloadavg()], seconds=round(time.time()-start),
                  omp_wait_policy=os.environ["OMP_WAIT_POLICY"], gflops=rate and round(rate*32/1e9), note="ms: [min, median]; both: forward and backward; limit_ms: compositing alone, [forward, both]; ratio_to_cpu: of the fastest runs", rows=rows)
    print({k: v for k, v in result.items() if k!="rows"})
    if a.quick: return
    keep("render", result, a.out)
    if rate: plot(result, a.out/"render.png")


if __name__ == "__main__": main()
