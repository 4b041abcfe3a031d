"gsplat on CUDA, plain torch on CUDA and the CPU kernels, each against plain torch in float64: one picture, one set of gradients. `make gpu` runs this."
from dataclasses import replace

import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.gs.field import Growth, Recipe, evaluate, fit_field, points_to_gaussians, posed
from talkinglab.gs.gaussians import Gaussians, Splats, build_doll
from talkinglab.gs.render import render
from torch.testing import assert_close

pytestmark = pytest.mark.cuda
WHERE = dict(gsplat="cuda", torch="cuda", cpu="cpu")
BACKENDS = pytest.mark.parametrize("backend", WHERE)
FIELDS = "means", "quats", "scales", "opacities", "colors"


@pytest.fixture(autouse=True)
def device():
    if not torch.cuda.is_available(): pytest.skip("no CUDA device")


def need_kernels():
    "Numba may not know the newest NumPy yet."
    try: import numba  # noqa: F401
    except Exception as e: pytest.skip(f"no CPU kernels: {e}")


def cloud(n=600, channels=3, seed=0):
    "A random ball of Gaussians some 0.1 m across, in float64."
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    return Gaussians(randn(n, 3)*0.05, randn(n, 4), 0.004*randn(n, 3).mul(0.5).exp(), randn(n).sigmoid(), randn(n, channels).sigmoid())


def harmonic(degree):
    "The cloud in colours that depend on the direction."
    g, noise = cloud(), torch.Generator().manual_seed(7)
    rest = 0.2*torch.randn(len(g), (degree+1)**2-1, 3, generator=noise, dtype=torch.float64)
    return replace(g, colors=torch.cat([(g.colors-0.5)[:, None]/0.28209479, rest], 1))


def sky(*shape): return torch.rand(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def draw(g, cameras, backend, dtype, where, background=None, **kw):
    "A picture, with leaves to ask for gradients: attributes, poses, background."
    leaves = [getattr(g, k).detach().to(where, dtype).requires_grad_() for k in FIELDS]
    poses = [c.viewmat.detach().to(where, dtype).requires_grad_() for c in cameras]
    seen = [replace(c.to(where, dtype), viewmat=p) for c, p in zip(cameras, poses)]
    behind = [] if background is None else [background.detach().to(where, dtype).requires_grad_()]
    r = render(Gaussians(*leaves), seen if len(seen)>1 else seen[0], *behind, backend=backend, **kw)
    return r, dict(zip(FIELDS, leaves))|{f"pose {i}": p for i, p in enumerate(poses)}|({"background": behind[0]} if behind else {})


def layers(r):
    "All that was drawn as one b h w c picture on the CPU, in float64; depth where there is something to be far away."
    b = lambda x: x.double().cpu().reshape(-1, *r.rgb.shape[-3:-1], r.rgb.shape[-1] if x is r.rgb else 1)
    parts = [b(r.rgb), b(r.alpha)]
    if r.depth is not None: parts.append(b(r.depth)*(parts[1]>0.1))
    return torch.cat(parts, -1)


def assert_same(g, cameras, backend, **kw):
    "Picture and gradients. A pixel where a Gaussian sits on a threshold (1/255, 1e-4) may flip: few do, and they take no part in the gradients."
    if backend=="cpu": need_kernels()
    truth, raw = draw(g, cameras, "torch", torch.float64, "cpu", **kw)
    mine, leaves = draw(g, cameras, backend, torch.float32, WHERE[backend], **kw)
    a, b = layers(mine), layers(truth)
    assert mine.info["backend"]==backend and mine.rgb.device.type==WHERE[backend] and mine.rgb.shape==truth.rgb.shape
    fine = (a-b).abs().amax(-1, keepdim=True)<1e-4
    assert (~fine).sum()<=5*len(cameras), f"{(~fine).sum()} pixels differ"
    assert ((a-b)*fine).norm()<2e-5*b.norm()
    w = torch.randn(b.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)*fine
    ours, theirs = torch.autograd.grad((a*w).sum(), list(leaves.values())), torch.autograd.grad((b*w).sum(), list(raw.values()))
    for name, x, y in zip(leaves, ours, theirs):
        off = (x.double().cpu()-y).norm()/y.norm()
        assert off<1e-3, f"gradient of {name}: {off:.1e} off"


FRONT = orbit(25, 10, width=70, height=54)
CASES = {
    "classic": {}, "antialiased": dict(mode="antialiased"), "no dilation to speak of": dict(eps2d=0.01), "near and far": dict(near=1.17, far=1.23),
    "without depth": dict(depth=False), "plain background": dict(background=sky(3)), "picture behind": dict(background=sky(54, 70, 3)),
}


@BACKENDS
@pytest.mark.parametrize("case", CASES)
def test_one_picture_and_one_gradient(case, backend): assert_same(cloud(), [FRONT], backend, **CASES[case])


@BACKENDS
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_of_any_degree(degree, backend): assert_same(harmonic(degree), [FRONT], backend)


@BACKENDS
@pytest.mark.parametrize("channels", [1, 4, 16, 32])
def test_features(channels, backend): assert_same(cloud(channels=channels), [FRONT], backend)


@BACKENDS
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_several_cameras_at_once(mode, backend):
    cameras = [orbit(yaw, pitch, width=48, height=40) for yaw, pitch in ((0, 0), (-40, 20), (150, -10))]
    assert_same(harmonic(2), cameras, backend, mode=mode, background=sky(3, 40, 48, 3))


@BACKENDS
def test_large_and_off_screen_splats(backend):
    "Some fill the picture, some are beside it, some behind the camera."
    g = cloud(200)
    g = replace(g, means=g.means*torch.tensor([4., 4, 30]), scales=g.scales*5)
    assert_same(g, [orbit(10, width=64, height=48)], backend)


@pytest.mark.parametrize("backend", ["gsplat", "torch"])
def test_the_strategy_reads_the_same_from_every_backend(backend):
    "`DefaultStrategy` keeps the pull on each centre and how often it was seen."
    from gsplat.strategy import DefaultStrategy
    cameras = [orbit(yaw, width=64, height=64) for yaw in (0, 35)]
    g = cloud(400)
    g = replace(g, means=torch.cat([g.means[:390], g.means[390:]+torch.tensor([9., 0, 0])])) # ten that nobody sees
    pull = torch.randn(2, 64, 64, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    memory = []
    for which, where in (("torch", "cpu"), (backend, WHERE[backend])):
        r, leaves = draw(g, cameras, which, torch.float32, where, depth=False)
        assert r.info["means2d"].shape==r.info["radii"].shape==(2, 400, 2) and r.info["n_cameras"]==2 and r.info["gaussian_ids"] is None
        strategy = DefaultStrategy()
        state = strategy.initialize_state(1.)
        strategy.step_pre_backward(leaves, {}, state, 0, r.info)
        (r.rgb*pull.to(r.rgb)).sum().backward()
        strategy._update_state(leaves, state, r.info, packed=False)
        memory.append({k: state[k].double().cpu() for k in ("grad2d", "count")})
    truth, mine = memory
    assert (mine["count"]!=truth["count"]).sum()<=1 and (truth["count"][390:]==0).all() and (mine["count"][390:]==0).all()
    assert (mine["grad2d"]-truth["grad2d"]).norm()<5e-3*truth["grad2d"].norm() # a flipped pixel counts here


def test_gaussians_grow_where_gsplat_draws():
    "A whole step of the strategy on raw parameters: more Gaussians after it, and the optimisers follow."
    from gsplat.strategy import DefaultStrategy
    target = render(cloud(200).to("cuda", torch.float32), FRONT).rgb
    splats = Splats(cloud(200, seed=1).to("cuda", torch.float32))
    optimizers = {k: torch.optim.Adam([p], lr=0.005) for k, p in splats.params.items()}
    strategy = DefaultStrategy(refine_start_iter=2, refine_stop_iter=12, refine_every=5, grow_grad2d=1e-5)
    strategy.check_sanity(splats.params, optimizers)
    state, losses = strategy.initialize_state(0.3), []
    for it in range(80):
        r = render(splats(), FRONT)
        strategy.step_pre_backward(splats.params, optimizers, state, it, r.info)
        loss = (r.rgb-target).square().mean()
        loss.backward()
        strategy.step_post_backward(splats.params, optimizers, state, it, r.info, packed=False)
        for o in optimizers.values():
            o.step()
            o.zero_grad()
        losses.append(loss.item())
    assert losses[-1]<0.5*losses[0] and len(splats())>200 and len(splats().means)==len(splats().colors)


def test_the_device_of_the_gaussians_decides():
    "Camera and background come along; what gsplat cannot draw is said."
    g = cloud(50).to("cuda", torch.float32)
    r = render(g, FRONT, background=torch.ones(3))
    assert r.info["backend"]=="gsplat" and r.rgb.is_cuda and r.depth.is_cuda
    with pytest.raises(ValueError, match="float64.*cast"): render(g.to(torch.float64), FRONT)
    with pytest.raises(ValueError, match="backend='cpu' draws tensors on the CPU"): render(g, FRONT, backend="cpu")


@pytest.mark.parametrize("growth", [None, Growth(refine_start_iter=5, refine_stop_iter=80, refine_every=10, grow_grad2d=1e-4, max_count=900)], ids=["fixed", "growing"])
def test_a_field_on_cuda_is_as_good_as_one_on_the_cpu(growth):
    need_kernels()
    doll, wall = build_doll(), torch.tensor([0.5, 0.6, 0.7])
    def film(yaws, where):
        cameras = [orbit(y, 5, 1.2, target=(0, -0.04, 0), fov=16, width=48, height=48) for y in yaws]
        return posed([render(doll, c, wall).rgb.clamp(0, 1).to(where) for c in cameras], [c.to(where) for c in cameras], wall.to(where))
    start = points_to_gaussians(doll.means[torch.randperm(len(doll), generator=torch.Generator().manual_seed(0))[:600]])
    score = {}
    for where in ("cpu", "cuda"):
        run = fit_field(film(range(-60, 61, 30), where), start.to(where), Recipe(steps=100, growth=growth))
        assert run.system().means.device.type==where and (len(run.system())==600 if growth is None else 600<len(run.system())<=900)
        score[where] = evaluate(run.system(), film((-45, 15, 45), where))["psnr"].cpu()
        assert (score[where]>evaluate(start.to(where), film((-45, 15, 45), where))["psnr"].cpu()+5).all()
    assert_close(score["cuda"], score["cpu"], atol=0.3 if growth is None else 1., rtol=0)


@BACKENDS
@pytest.mark.parametrize("n", [0, 1])
def test_next_to_nothing(n, backend):
    "Last, should a driver take offence: no Gaussian, and one behind the camera."
    if backend=="cpu": need_kernels()
    g = cloud(1)[:n].to(WHERE[backend], torch.float32)
    r = render(replace(g, means=g.means+torch.tensor([0., 0, 50]).to(g.means)), FRONT, background=torch.tensor([0.1, 0.2, 0.3]), backend=backend)
    assert_close(r.rgb.cpu(), torch.tensor([0.1, 0.2, 0.3]).expand(54, 70, 3))
    assert (r.alpha==0).all() and (r.depth==0).all()
