"A static field: it learns, grows, resumes bit for bit while it grows, and says what is wrong with its input."
from dataclasses import replace

import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.core.fit import EMA, Preview
from talkinglab.core.rotation import quat_to_matrix
from talkinglab.gs.field import (Densify, Growth, Recipe, View, colors_to_sh, evaluate, field_loss, field_stage, fit_field, mesh_to_gaussians,
                                 points_to_gaussians, posed, scene_size, view_batches)
from talkinglab.gs.gaussians import Splats, build_doll
from talkinglab.gs.project import sh_to_rgb
from talkinglab.gs.render import render
from torch.testing import assert_close

WALL = torch.tensor([0.5, 0.6, 0.7])
doll = build_doll()


def camera(yaw, pitch=5., size=48): return orbit(yaw, pitch, 1.2, target=(0, -0.04, 0), fov=16, width=size, height=size)


def film(yaws, **kw):
    shots = [render(doll, camera(y), WALL) for y in yaws]
    return posed([s.rgb.clamp(0, 1) for s in shots], [camera(y) for y in yaws], WALL, **{k: [f(s) for s in shots] for k, f in kw.items()})


@pytest.fixture(scope="module")
def views(): return film(range(-60, 61, 30))


def rough(n=300, seed=0):
    g = torch.Generator().manual_seed(seed)
    return points_to_gaussians(doll.means[torch.randperm(len(doll), generator=g)[:n]])


FAST = Recipe(steps=60, growth=Growth(refine_start_iter=5, refine_stop_iter=50, refine_every=10, grow_grad2d=1e-4, max_count=420))


def assert_same_bits(a, b): assert_close(a, b, rtol=0, atol=0)


@pytest.fixture(scope="module")
def whole(views): return fit_field(views, rough(), FAST)


def test_a_field_learns_what_it_has_not_seen(views):
    unseen = film((-45, 15, 45))
    before = evaluate(rough(), unseen)["psnr"]
    run = fit_field(views, rough(1000), replace(FAST, steps=150, growth=None))
    after = evaluate(run.system(), unseen)
    assert (after["psnr"] > before+8).all() and after["psnr"].shape == (3,) and (after["ssim"] > 0.7).all()
    assert len(run.system()) == 1000


def test_the_truth_is_a_fixed_point_of_the_loss(views):
    terms, drawn = field_loss(Splats(doll), views[0], 0)
    assert terms["l1"] < 1e-5 and terms["dssim"] < 1e-5 and terms["mse"] < 1e-9 and not terms["mse"].requires_grad
    assert drawn.rgb.shape == (48, 48, 3)


def test_it_grows_and_stays_under_its_bound(whole):
    counts = whole.stage.hooks[0].counts
    n = [c for _, c in counts]
    assert n[0] == 300 < max(n) <= 420 and n[-1] == len(whole.system()) and all(it % 10 == 0 and it < 50 for it, _ in counts)
    shapes = {k: (len(p), len(whole.optimizer.state[p]["exp_avg"])) for k, p in whole.system.params.items()}
    assert set(shapes.values()) == {(n[-1], n[-1])}


def test_the_optimiser_learns_what_the_system_shows(whole):
    "gsplat replaces parameters: the loop's Adam and the module must hold the same ones."
    held = {g["part"]: g["params"] for g in whole.optimizer.param_groups}
    assert {f"params.{k}" for k in whole.system.params} == set(held)
    for k, p in whole.system.params.items(): assert len(held[f"params.{k}"]) == 1 and held[f"params.{k}"][0] is p
    assert len(whole.optimizer.state) == len(held)


def test_faint_gaussians_go(views):
    start = rough()
    faint = replace(start, opacities=torch.where(torch.arange(300) < 50, 0.001, start.opacities))
    run = fit_field(views, faint, replace(FAST, steps=12, growth=replace(FAST.growth, grow_grad2d=1.)))
    assert len(run.system()) == 250


@pytest.mark.parametrize("cut", [9, 10, 25, 41, 55])
@pytest.mark.parametrize("sh", [False, True])
def test_a_field_killed_at_any_step_ends_in_the_same_bits(views, whole, tmp_path, monkeypatch, cut, sh):
    from talkinglab.gs import field
    start = colors_to_sh(rough(), 1) if sh else rough()
    recipe = replace(FAST, degree_every=20)
    hooks = lambda: (EMA(0.9), Preview(20, lambda run: run.system().means.sum()))
    calm = fit_field(views, start, recipe, hooks())
    real = field.field_loss
    def dying(system, view, it, degree):
        if it == cut: raise KeyboardInterrupt
        return real(system, view, it, degree)
    monkeypatch.setattr(field, "field_loss", dying)
    with pytest.raises(KeyboardInterrupt): fit_field(views, start, recipe, hooks(), checkpoint=tmp_path/"field.pt", every=3)
    monkeypatch.undo()
    torch.manual_seed(cut)  # whatever the next process begins with
    torch.randn(7)
    back = fit_field(views, start, recipe, hooks(), checkpoint=tmp_path/"field.pt", every=3)
    assert len(back.system()) != 300 and back.history == calm.history
    assert_same_bits(back.system.state_dict(), calm.system.state_dict())
    assert_same_bits(back.optimizer.state_dict()["state"], calm.optimizer.state_dict()["state"])
    assert_same_bits(back.stage.hooks[2].shadow, calm.stage.hooks[2].shadow)
    assert back.stage.hooks[0].counts == calm.stage.hooks[0].counts
    if not sh: assert_same_bits(calm.system.state_dict(), whole.system.state_dict())


def test_the_global_random_state_neither_matters_nor_changes(views, whole):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = fit_field(views, rough(), FAST)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_bits(again.system.state_dict(), whole.system.state_dict())
    other = fit_field(views, rough(), replace(FAST, seed=1))
    assert other.history != whole.history


def test_gsplat_itself_never_resets_opacities(views):
    "`step % n == 0 & step > 0` is never true. When this fails, `Densify` resets twice: take ours out."
    from gsplat.strategy import DefaultStrategy
    s = Splats(rough())
    before = s.params["opacities"].clone()
    adams = {k: torch.optim.Adam([p]) for k, p in s.params.items()}
    strategy = DefaultStrategy(reset_every=10, refine_start_iter=10**6)
    memory = strategy.initialize_state(1.)
    _, drawn = field_loss(s, views[0], 0)
    drawn.rgb.sum().backward()
    for step in (10, 20, 30): strategy.step_post_backward(s.params, adams, memory, step, drawn.info)
    assert torch.equal(s.params["opacities"], before)


def test_a_reset_makes_all_faint(views):
    growth = replace(FAST.growth, refine_start_iter=10**6, refine_stop_iter=10**6, reset_every=7, prune_opa=0.01)
    run = fit_field(views, replace(rough(), opacities=torch.full((300,), 0.5)), replace(FAST, steps=7, growth=growth))
    assert_close(run.system().opacities.max(), torch.tensor(0.02))
    state = run.optimizer.state[run.system.params["opacities"]]
    assert not state["exp_avg"].any() and run.optimizer.state[run.system.params["means"]]["exp_avg"].any()


def test_harmonics_join_degree_by_degree(views):
    start = colors_to_sh(rough(100), 2)
    run = fit_field(views, start, replace(FAST, steps=12, growth=None, degree_every=5))
    now = run.system().colors
    assert now[:, :9].abs().amax((0, 2)).gt(0).all()
    early = fit_field(views, start, replace(FAST, steps=10, growth=None, degree_every=5)).system().colors
    assert early[:, 1:4].any() and not early[:, 4:].any()


def test_plain_colours_and_their_harmonics_look_the_same():
    g = rough(20)
    g = replace(g, colors=torch.rand(20, 3, generator=torch.Generator().manual_seed(0)))
    for degree in range(4):
        sh = colors_to_sh(g, degree)
        assert sh.colors.shape == (20, (degree+1)**2, 3)
        assert_close(sh_to_rgb(sh.colors, g.means), g.colors)
    with pytest.raises(ValueError, match="degree=4"): colors_to_sh(g, 4)
    with pytest.raises(ValueError, match="plain colours"): colors_to_sh(colors_to_sh(g, 1), 1)


def test_points_become_as_wide_as_their_neighbours_are_far():
    grid = torch.stack(torch.meshgrid(*[torch.arange(6.)]*3, indexing="ij"), -1).reshape(-1, 3)*0.01
    g = points_to_gaussians(grid)
    assert_close(g.scales, torch.full((216, 3), 0.01), rtol=1e-3, atol=0)
    assert_close(g.means, grid)
    assert_close(points_to_gaussians(5*grid).scales, 5*g.scales, rtol=1e-3, atol=1e-6)
    far_off = points_to_gaussians(grid*0.01+5)  # a tenth of a millimetre apart, metres from the origin
    assert_close(far_off.scales, 0.01*g.scales, rtol=0.02, atol=0)
    twice = points_to_gaussians(torch.cat([grid]*5))  # five points in one place have no distance, but need a size
    assert (twice.scales > 0).all() and Splats(twice)().scales.isfinite().all()
    assert points_to_gaussians(grid[:2]).scales.shape == (2, 3)


def test_a_mesh_is_covered_by_its_area_and_along_its_surface():
    v = torch.tensor([[0., 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, -1]])  # a large face in z = 0, a small one in x = 0
    f = torch.tensor([[0, 1, 2], [0, 2, 3]])
    g = mesh_to_gaussians(v, f, 4000, torch.Generator().manual_seed(0), colors=v.abs()/3)
    large = g.means[:, 2].abs() < 1e-6
    assert_close(large.float().mean(), torch.tensor(0.75), atol=2e-3, rtol=0)
    assert_close(g.colors, g.means.abs()/3)
    assert_close(g.means[large].mean(0), v[f[0]].mean(0), atol=0.03, rtol=0)
    thin = quat_to_matrix(g.quats)[:, :, 2]
    assert_close(thin[large].abs(), torch.tensor([[0., 0, 1]]).expand(int(large.sum()), 3))
    assert_close(thin[~large].abs(), torch.tensor([[1., 0, 0]]).expand(int((~large).sum()), 3), atol=1e-6, rtol=0)
    assert_close((g.scales[:, 0]*g.scales[:, 1]).sum(), torch.tensor(0.65**2*2))
    again = mesh_to_gaussians(v, f, 4000, torch.Generator().manual_seed(0))
    assert torch.equal(again.means, g.means) and (again.colors == 0.5).all()


def test_every_view_once_an_epoch(views):
    batch = view_batches(views, 3)
    name = {id(v): i for i, v in enumerate(views)}
    order = [name[id(batch(i))] for i in range(50)]
    assert all(sorted(order[k:k+5]) == list(range(5)) for k in range(0, 50, 5))
    assert len({tuple(order[k:k+5]) for k in range(0, 50, 5)}) > 3
    assert order == [name[id(view_batches(views, 3)(i))] for i in range(50)] != [name[id(view_batches(views, 4)(i))] for i in range(50)]


def test_a_view_with_alpha_stands_before_any_colour():
    v = film((20,), alphas=lambda s: s.alpha)[0]
    red = torch.tensor([0.9, 0.1, 0.2])
    assert_close(v.before(red).image, render(doll, v.camera, red).rgb, atol=1e-5, rtol=0)
    assert_close(v.before(red).before(WALL).image, v.image, atol=1e-6, rtol=0)
    batch = view_batches([v])
    assert not torch.equal(batch(0).background, batch(1).background) and torch.equal(batch(1).image, batch(1).image)
    with pytest.raises(ValueError, match="no alpha"): replace(v, alpha=None).before(red)


def test_what_a_mask_leaves_out_is_not_learned(views):
    spoiled = views[0].image.clone()
    spoiled[:, :10] = torch.tensor([1., 0, 1])
    mask = torch.ones(48, 48)
    mask[:, :16] = 0  # the windows of D-SSIM reach five pixels further
    g = Splats(rough())
    a, b = (field_loss(g, replace(views[0], image=x, mask=mask), 0)[0] for x in (views[0].image, spoiled))
    for k in a: assert_close(a[k], b[k])


def test_the_scene_is_what_a_picture_shows():
    c = orbit(20, 5, 2., fov=30)
    assert scene_size([c], torch.zeros(1, 3)) == pytest.approx(2*2*torch.tensor(15.).deg2rad().tan().item(), rel=1e-4)
    assert scene_size([c, c.scaled(2)], torch.zeros(4, 3)) == pytest.approx(scene_size([c], torch.zeros(1, 3)), rel=1e-4)
    with pytest.raises(ValueError, match="camera 1 has the thing 1.00 m behind it"): scene_size([orbit(180, 0, 2.), orbit(0, 0, 2.)], torch.tensor([[0., 0, 3.]]))


def test_bad_views_are_named(views, unchecked):
    image, cam = views[0].image, views[0].camera
    pair = [image, image], [cam, cam]
    for x, says in [(image[:40], r"image is \(40, 48, 3\), its camera sees \(48, 48, 3\)"), ((255*image).byte(), "divide by 255"), (255*image, "outside"),
                    (torch.where(image > 0.7, torch.nan, image), "NaN or outside")]:
        with pytest.raises(ValueError, match=says): View(x, cam)
        with pytest.raises(ValueError, match=says): posed([image, x], pair[1])
    with pytest.raises(ValueError, match=r"alpha is \(4, 4\)"): View(image, cam, alpha=torch.ones(4, 4))
    with pytest.raises(ValueError, match="no pictures"): posed([], [])
    with pytest.raises(ValueError, match="2 pictures and 1 cameras"): posed(pair[0], [cam])
    with pytest.raises(ValueError, match="2 pictures and 3 masks"): posed(*pair, masks=[image[..., 0]]*3)
    with pytest.raises(ValueError, match="no views"): fit_field([], rough())


def test_bad_beginnings_are_named(views, tmp_path, unchecked):
    v, f = torch.rand(5, 3), torch.tensor([[0, 1, 2]])
    g = torch.Generator()
    with pytest.raises(ValueError, match="1 points: at least 2"): points_to_gaussians(torch.zeros(1, 3))
    with pytest.raises(ValueError, match="1 of 2 points are not finite"): points_to_gaussians(torch.tensor([[0., 0, 0], [0, torch.nan, 0]]))
    with pytest.raises(ValueError, match="on 0 faces"): mesh_to_gaussians(v, f[:0], 10, g)
    with pytest.raises(ValueError, match="n=0"): mesh_to_gaussians(v, f, 0, g)
    with pytest.raises(ValueError, match="0 to 5, there are 5"): mesh_to_gaussians(v, torch.tensor([[0, 1, 5]]), 10, g)
    with pytest.raises(ValueError, match="area of 0"): mesh_to_gaussians(v*0, f, 10, g)
    with pytest.raises(ValueError, match="no such folder"): fit_field(views, rough(), FAST, checkpoint=tmp_path/"nowhere"/"field.pt")


def test_densify_wants_splats_with_rates_of_their_own(views):
    from talkinglab.core.fit import fit
    stage = field_stage(rough(), views, FAST)
    with pytest.raises(ValueError, match="share a learning rate"): fit(Splats(rough()), replace(stage, lrs={"params": 1e-3}), view_batches(views))
    with pytest.raises(ValueError, match="hand on its Render"):
        fit(Splats(rough()), replace(stage, loss=lambda s, v, it: (field_loss(s, v, it)[0], None)), view_batches(views))
    with pytest.raises(ValueError, match="ParameterDict"):
        fit(Splats(rough()), replace(stage, hooks=(Densify(Growth(), 0.3, at="params"),)), view_batches(views))


def test_frozen_parts_grow_with_the_others(views):
    from talkinglab.core.fit import fit
    stage = field_stage(rough(), views, FAST)
    s = Splats(rough())
    fit(s, replace(stage, lrs={k: v for k, v in stage.lrs.items() if "quats" not in k}), view_batches(views))
    assert len(s()) > 300 and not s.params["quats"].requires_grad


def test_splats_inside_a_larger_system_grow(views):
    from talkinglab.core.fit import fit
    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.paint = Splats(rough())
        def forward(self): return self.paint()
    stage, head = field_stage(rough(), views, FAST), Head()
    stage = replace(stage, lrs={f"paint.{k}": v for k, v in stage.lrs.items()}, hooks=(Densify(FAST.growth, 0.3, at="paint"),))
    fit(head, stage, view_batches(views))
    assert len(head()) > 300


class Two(torch.nn.Module):
    "Two clouds, drawn together."
    def __init__(self):
        super().__init__()
        self.face, self.mouth = Splats(rough(200)), Splats(rough(80, 1))

    def forward(self): return self.face()+self.mouth()


def two_grown(views, hooks):
    from talkinglab.core.fit import fit
    stage, both = field_stage(rough(), views, replace(FAST, steps=40)), Two()
    torch.manual_seed(3)  # for the splits
    fit(both, replace(stage, lrs={f"{part}.{k}": v for part in ("face", "mouth") for k, v in stage.lrs.items()}, hooks=hooks), view_batches(views))
    return both


def test_two_clouds_that_are_drawn_together_grow_as_each_would_alone(views):
    class Own(Densify):
        "Sees only its own rows of the drawing."
        def __init__(self, growth, at, rows):
            super().__init__(growth, 0.3, at)
            self.rows = rows
        def step(self, run):
            drawn, info = run.aux, run.aux.info
            pulled, n = info["means2d"], len(run.system.get_submodule(self.at[0]).params["means"])
            some = slice(0, n) if self.rows == "first" else slice(pulled.shape[1]-n, None)
            own = pulled[:, some].detach().clone()
            own.grad = pulled.grad[:, some].clone()
            run.aux = replace(drawn, info=info|dict(means2d=own, radii=info["radii"][:, some]))
            super().step(run)
            run.aux = drawn
    growth, together = replace(FAST.growth, max_count=260), Densify(replace(FAST.growth, max_count=260), 0.3, ("face", "mouth"))
    a = two_grown(views, (together,))
    b = two_grown(views, (Own(growth, "face", "first"), Own(growth, "mouth", "last")))
    assert len(a.face()) > 200 and len(a.mouth()) > 80 and max(len(a.face()), len(a.mouth())) <= 260
    assert_same_bits(dict(a.state_dict()), dict(b.state_dict()))
    assert together.counts[0] == [0, 280] and together.counts[-1][1] == len(a())


def test_clouds_that_were_not_all_named_are_refused(views):
    for at, says in ((("face",), "280 Gaussians were drawn, face has 200"), (("mouth",), "280 Gaussians were drawn, mouth has 80"),
                     (("face", "face"), "280 Gaussians were drawn, face, face has 400"), (("face", "mouth.params"), "'mouth.params' is a ParameterDict")):
        with pytest.raises(ValueError, match=says): two_grown(views, (Densify(FAST.growth, 0.3, at),))


def test_several_processes_are_refused(monkeypatch, views):
    "Each would split its own Gaussians."
    from talkinglab.core.fit import Run
    monkeypatch.setattr(Run, "world", 2)
    splats = Splats(rough())
    run = Run(splats, field_stage(rough(), views, FAST), torch.optim.Adam(splats.parameters()))
    with pytest.raises(ValueError, match="2 processes would grow apart"): Densify(Growth(), 0.3).start(run)
