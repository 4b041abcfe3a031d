"One call, three programs, one meaning."
from dataclasses import replace

import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.core.rotation import quat_to_matrix, rotvec_to_matrix
from talkinglab.gs.gaussians import Gaussians, Splats
from talkinglab.gs.render import pick_backend, render
from torch.testing import assert_close


def cloud(n=600, channels=3, seed=0, dtype=torch.float32):
    "A random ball of Gaussians some 0.1 m across."
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)
    return Gaussians(randn(n, 3)*0.05, randn(n, 4), 0.004*randn(n, 3).mul(0.5).exp(), randn(n).sigmoid(), randn(n, channels).sigmoid()).to(dtype)


def with_gradients(g, camera, backend, weights, **kw):
    "A picture, and d(weighted sum of rgb, alpha, depth) for the five attributes."
    raw = [x.detach().clone().requires_grad_() for x in (g.means, g.quats, g.scales, g.opacities, g.colors)]
    r = render(Gaussians(*raw), camera, backend=backend, **kw)
    seen = torch.cat([r.rgb, r.alpha[..., None], r.depth[..., None]], -1)
    w = weights[..., :seen.shape[-1]].to(seen)*(r.alpha>0.1)[..., None] # depth of next to nothing means nothing
    return r, torch.autograd.grad((seen*w).sum(), raw)


def flips(a, b): return int((((a.rgb-b.rgb).abs().amax(-1)>1e-4) | ((a.alpha-b.alpha).abs()>1e-4)).sum())


CASES = {
    "classic": {}, "antialiased": dict(mode="antialiased"), "no dilation to speak of": dict(eps2d=0.01), "cut near and far": dict(near=1.17, far=1.23),
    "background": dict(background=torch.tensor([0.2, 0.5, 0.9])),
}


@pytest.mark.parametrize("case", CASES)
def test_cpu_and_torch_agree(case):
    camera, w = orbit(25, 10, width=70, height=54), torch.randn(54, 70, 5, generator=torch.Generator().manual_seed(3))
    a, ga = with_gradients(cloud(), camera, "cpu", w, **CASES[case])
    b, gb = with_gradients(cloud(dtype=torch.float64), camera, "torch", w, **CASES[case])
    assert a.info["backend"]=="cpu" and b.info["backend"]=="torch"
    assert flips(a, b) <= 4
    for x, y in ((a.rgb, b.rgb), (a.alpha, b.alpha), (a.depth*(a.alpha>0.1), b.depth*(b.alpha>0.1))): assert (x-y).norm() < 3e-4*y.norm()
    for x, y in zip(ga, gb): assert (x-y).norm() < 5e-3*y.norm() # a flipped pixel counts here


def test_auto_draws_where_the_tensors_live():
    assert [pick_backend("auto", torch.device(d)) for d in ("cpu", "cuda", "mps")]==["cpu", "gsplat", "torch"]
    assert render(cloud(5), orbit(width=16, height=16)).info["backend"]=="cpu"


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_any_number_of_features(channels):
    camera = orbit(width=32, height=32)
    a, b = (render(cloud(100, channels), camera, backend=k) for k in ("cpu", "torch"))
    assert a.rgb.shape==(32, 32, channels)
    assert_close(a.rgb, b.rgb, atol=2e-4, rtol=0)


def test_a_background_is_weighted_by_the_light_left():
    camera, g = orbit(width=40, height=30), cloud()
    plain = render(g, camera)
    sky = torch.rand(30, 40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32).requires_grad_()
    r = render(g, camera, background=sky)
    assert_close(r.rgb, plain.rgb+(1-plain.alpha)[..., None]*sky)
    assert_close(torch.autograd.grad(r.rgb.sum(), sky)[0], (1-plain.alpha)[..., None].expand(-1, -1, 3))
    assert_close(render(g, camera, background=torch.zeros(3)).rgb, plain.rgb)


def test_depth_is_the_distance_of_a_solid_thing():
    g = Gaussians(torch.tensor([[0., 0., 0.1]]), torch.tensor([[1., 0, 0, 0]]), torch.full((1, 3), 0.02), torch.ones(1), torch.ones(1, 3))
    r = render(g, orbit(radius=1.2, width=33, height=33))
    assert_close(r.depth[16, 16], torch.tensor(1.1))
    assert r.depth[r.alpha==0].eq(0).all() and float(r.alpha.max())==pytest.approx(0.999)


def leaves_of(g, cameras, background=None, dtype=torch.float32, channels=None):
    "Everything a picture depends on, to differentiate for; and what `render` takes, made of it."
    raw = dict(means=g.means, quats=g.quats, scales=g.scales, opacities=g.opacities, colors=g.colors, viewmats=torch.stack([c.viewmat for c in cameras]))
    if background is not None: raw["background"] = background
    raw = {k: x.detach().to(dtype).clone().requires_grad_() for k, x in raw.items()}
    return raw, Gaussians(*list(raw.values())[:5]), [replace(c.to(dtype), viewmat=v) for c, v in zip(cameras, raw["viewmats"])]


TOUR = [orbit(25, 10, width=70, height=54), orbit(-60, -20, width=70, height=54), orbit(170, 0, radius=1.4, width=70, height=54)]


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("sh", [False, True])
def test_a_batch_is_its_cameras_one_by_one(backend, sh):
    "Bit for bit in every output; the gradients are the sums."
    g, gen = cloud(), torch.Generator().manual_seed(4)
    if sh: g = replace(g, colors=0.3*torch.randn(len(g), 9, 3, generator=gen))
    sky, w = torch.rand(3, 54, 70, 3, generator=gen), torch.randn(3, 54, 70, 5, generator=gen)
    loss = lambda r, w: (torch.cat([r.rgb, r.alpha[..., None], r.depth[..., None]], -1)*w*(r.alpha>0.1)[..., None]).sum()
    raw, splats, cameras = leaves_of(g, TOUR, sky)
    batch = render(splats, cameras, background=raw["background"], backend=backend)
    grads = torch.autograd.grad(loss(batch, w), [*raw.values(), batch.info["means2d"]])
    raw1, splats, cameras = leaves_of(g, TOUR, sky)
    singles = [render(splats, c, background=raw1["background"][i], backend=backend) for i, c in enumerate(cameras)]
    for i, one in enumerate(singles):
        for name in ("rgb", "alpha", "depth"): assert torch.equal(getattr(batch, name)[i], getattr(one, name)), name
        for name in ("means2d", "radii"): assert torch.equal(batch.info[name][i], one.info[name][0]), name
    assert batch.info["n_cameras"]==3 and singles[0].info["n_cameras"]==1
    sums = torch.autograd.grad(sum(loss(r, w[i]) for i, r in enumerate(singles)), [*raw1.values(), *(r.info["means2d"] for r in singles)])
    for name, a, b in zip(raw, grads, sums): assert (a-b).norm() <= 2e-6*b.norm(), name
    assert torch.equal(grads[-1], torch.cat(sums[len(raw):]))


def test_poses_and_backgrounds_have_the_gradients_of_float64():
    gen = torch.Generator().manual_seed(5)
    w, g = torch.randn(3, 54, 70, 5, generator=gen), replace(cloud(300), colors=0.3*torch.randn(300, 4, 3, generator=gen))
    for shape in ((3,), (54, 70, 3), (3, 54, 70, 3)):
        sky = torch.rand(shape, generator=gen)
        raw, splats, cameras = leaves_of(g, TOUR, sky)
        raw64, splats64, cameras64 = leaves_of(g, TOUR, sky, torch.float64)
        r, r64 = render(splats, cameras, raw["background"], "cpu"), render(splats64, cameras64, raw64["background"], "torch")
        flipped = (r.rgb-r64.rgb).abs().amax(-1)>1e-5
        assert flipped.sum() <= 8
        keep = w*((r64.alpha>0.1) & ~flipped)[..., None]
        mine, truth = (torch.autograd.grad((torch.cat([x.rgb, x.alpha[..., None], x.depth[..., None]], -1)*keep).sum(), list(leaves.values()))
                       for x, leaves in ((r, raw), (r64, raw64)))
        for name, a, b in zip(raw, mine, truth): assert (a-b).norm() < 1e-5*b.norm(), f"{name}: {float((a-b).norm()/b.norm()):.0e}"


@pytest.mark.parametrize("channels", [3, 4, 16, 33])
def test_the_number_of_threads_changes_no_bit(channels):
    "From attributes, poses and background to the picture, and back."
    g, gen = cloud(6000, channels), torch.Generator().manual_seed(0) # with two cameras enough Gaussians to call for help
    sky, w = torch.rand(channels, generator=gen), torch.randn(2, 54, 70, channels, generator=gen)
    before, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3, 5):
            torch.set_num_threads(n)
            raw, splats, cameras = leaves_of(g, TOUR[:2], sky)
            r = render(splats, cameras, background=raw["background"], depth=False)
            (r.rgb*w).backward(torch.ones_like(w))
            # torch adds up the background's own gradient: over pixels, in an order of its own
            results.append(dict(rgb=r.rgb, alpha=r.alpha, means2d=r.info["means2d"].grad, **{k: x.grad for k, x in raw.items() if k!="background"}))
    finally: torch.set_num_threads(before)
    for other in results[1:]:
        for name, x in results[0].items(): assert torch.equal(x, other[name]), name


def test_without_depth_the_colours_are_the_same():
    for backend in ("cpu", "torch"):
        a, b = (render(cloud(), TOUR, backend=backend, depth=d) for d in (True, False))
        assert torch.equal(a.rgb, b.rgb) and torch.equal(a.alpha, b.alpha) and b.depth is None


def test_a_strategy_reads_what_it_needs():
    "One step of gsplat's own DefaultStrategy after each backend."
    strategy = pytest.importorskip("gsplat.strategy").DefaultStrategy(refine_scale2d_stop_iter=10)
    g, w, states = cloud(), torch.randn(3, 54, 70, 3, generator=torch.Generator().manual_seed(7)), {}
    for backend in ("cpu", "torch"):
        raw, splats, cameras = leaves_of(g, TOUR)
        params = {k: torch.nn.Parameter(raw[k].detach()) for k in ("means", "quats", "scales", "opacities", "colors")}
        optimizers = {k: torch.optim.Adam([v]) for k, v in params.items()}
        strategy.check_sanity(params, optimizers)
        states[backend] = state = strategy.initialize_state()
        r = render(splats, cameras, backend=backend)
        strategy.step_pre_backward(params, optimizers, state, 0, r.info)
        (r.rgb*w).sum().backward()
        strategy.step_post_backward(params, optimizers, state, 0, r.info, packed=False)
        assert r.info["gaussian_ids"] is None and (r.info["width"], r.info["height"], r.info["n_cameras"])==(70, 54, 3)
        assert r.info["radii"].dtype==torch.int32 and r.info["radii"].shape==(3, len(g), 2)
    a, b = states["cpu"], states["torch"]
    assert torch.equal(a["count"], b["count"]) and a["count"].max()==3
    assert (a["grad2d"]-b["grad2d"]).norm() < 1e-3*b["grad2d"].norm() and (a["grad2d"]>0).any()
    assert (a["radii"]-b["radii"]).abs().max() <= 1/70


def test_what_no_camera_sees_has_no_radius():
    g = cloud(50)
    beside = replace(g, means=g.means+torch.tensor([5., 0, 0]))
    for backend in ("cpu", "torch"):
        info = render(g+beside, TOUR, backend=backend).info
        assert (info["radii"][:, 50:]==0).all() and (info["radii"][:, :50]>0).any()


def test_near_and_far_cut():
    g, camera = cloud(), orbit(width=32, height=32)
    z = -(g.means[:, 2]-1.2)
    for near, far in ((1.2, 1e10), (0.01, 1.2), (1.15, 1.25)):
        keep = (z>=near) & (z<=far)
        assert_close(render(g, camera, near=near, far=far).rgb, render(g[keep], camera).rgb, atol=1e-6, rtol=0)
    assert (render(g, camera, near=5).alpha==0).all()


def test_moving_world_and_camera_together_changes_nothing():
    g, camera = cloud(200), orbit(30, width=40, height=40)
    R, t = rotvec_to_matrix(torch.tensor([[0.3, -1.0, 0.4]]))[0], torch.tensor([0.2, -0.1, 0.5])
    M = torch.eye(4)
    M[:3, :3], M[:3, 3] = R, t
    moved = replace(camera, viewmat=camera.viewmat@torch.linalg.inv(M))
    a, b = render(g, camera), render(g.moved(R, t), moved)
    assert flips(a, b) <= 2 and (a.rgb-b.rgb).norm() < 1e-3*a.rgb.norm()


def test_quaternions_of_any_length_and_sign_draw_the_same():
    g, camera = cloud(100), orbit(width=32, height=32)
    assert_close(quat_to_matrix(-3*g.quats), quat_to_matrix(g.quats))
    assert_close(render(replace(g, quats=-3*g.quats), camera).rgb, render(g, camera).rgb, atol=1e-4, rtol=0)


def test_antialiasing_keeps_the_light_of_small_things():
    "A dot far below a pixel gives an amount of light that falls with its area; classic gives a whole dilated pixel."
    def light(size, mode):
        g = Gaussians(torch.zeros(1, 3), torch.tensor([[1., 0, 0, 0]]), torch.full((1, 3), size), torch.full((1,), 0.9), torch.ones(1, 1))
        return float(render(g, orbit(width=33, height=33), mode=mode).rgb.sum())
    px = 1.2*0.3168/33 # metres a pixel at the origin: 2 tan(9 degrees)
    assert light(px/8, "classic") > 0.75*light(px/4, "classic")
    assert light(px/8, "antialiased") < 0.4*light(px/4, "antialiased")


def test_spherical_harmonics_turn_with_the_camera():
    g = cloud(300)
    sh = torch.zeros(300, 4, 3)
    sh[:, 0], sh[:, 3, 0] = (g.colors-0.5)/0.28209479, 0.5
    a, b = (render(replace(g, colors=sh), orbit(yaw, width=32, height=32)).rgb[..., 0].mean() for yaw in (60, -60))
    assert a > 1.2*b
    assert_close(render(replace(g, colors=sh[:, :1]), orbit(width=32, height=32)).rgb, render(g, orbit(width=32, height=32)).rgb, atol=1e-5, rtol=0)


def test_gaussians_learn_a_picture_through_render():
    camera, target = orbit(width=32, height=32), render(cloud(200), orbit(width=32, height=32)).rgb
    splats = Splats(cloud(200, seed=1))
    opt = torch.optim.Adam(splats.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = (render(splats(), camera).rgb-target).square().mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3*losses[0]


def test_an_empty_scene_is_its_background():
    r = render(cloud(5)[:0], orbit(width=8, height=6), background=torch.tensor([0.1, 0.2, 0.3]))
    assert_close(r.rgb, torch.tensor([0.1, 0.2, 0.3]).expand(6, 8, 3))
    assert (r.alpha==0).all() and (r.depth==0).all()


@pytest.mark.parametrize("change, message", [
    (dict(means=torch.full((5, 3), float("nan"))), "means of 5 of 5"),
    (dict(scales=torch.full((5, 3), float("inf"))), "scales of 5 of 5"),
    (dict(opacities=torch.full((5,), 2.)), "opacities lie outside.*Splats"),
    (dict(quats=torch.zeros(5, 4)), "5 quaternions are zero"),
])
def test_what_cannot_be_drawn_is_named(change, message):
    with pytest.raises(ValueError, match=message): render(replace(cloud(5), **change), orbit(width=8, height=8))


def test_wrong_arguments_are_named():
    g, camera = cloud(5), orbit(width=8, height=6)
    with pytest.raises(ValueError, match="backend='vulkan'"): render(g, camera, backend="vulkan")
    with pytest.raises(ValueError, match="needs tensors on a CUDA device"): render(g, camera, backend="gsplat")
    with pytest.raises(ValueError, match="mode='soft'"): render(g, camera, mode="soft")
    with pytest.raises(ValueError, match=r"background is \(8, 6, 3\): needs"): render(g, camera, background=torch.zeros(8, 6, 3))
    with pytest.raises(ValueError, match="backend='torch'"): render(g.to(torch.float64), camera)
    assert render(g.to(torch.float64), camera, backend="torch").rgb.dtype==torch.float64
    with pytest.raises(ValueError, match="camera 1 is 16 x 12 px, the first one 8 x 6"): render(g, [camera, camera.scaled(2)])
    with pytest.raises(ValueError, match="no camera"): render(g, [])
    with pytest.raises(ValueError, match=r"background is \(2, 6, 8, 3\): needs \(3,\) or \(6, 8, 3\) or \(3, 6, 8, 3\)"): render(g, [camera]*3, background=torch.zeros(2, 6, 8, 3))
