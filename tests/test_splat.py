"Laws of compositing, and the reference renderer as an oracle: conservation, order, tiles, gradients."
import math
from dataclasses import fields, replace

import pytest
import torch
from torch.testing import assert_close

from talkinglab.core.camera import orbit
from talkinglab.gs.gaussians import Gaussians, build_doll
from talkinglab.gs.project import Projection, project
from talkinglab.gs.splat import MAX_ALPHA, MIN_ALPHA, MIN_T, composite, over, splat_alpha


def grid(w, h): return torch.stack(torch.meshgrid(torch.arange(w)+0.5, torch.arange(h)+0.5, indexing="xy"), -1).flatten(0, 1).double()


def some(n=150, seed=0, size=0.02):
    gen = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.randn(*shape, generator=gen, dtype=torch.float64)
    return Gaussians(r(n, 3)*0.05, r(n, 4), r(n, 3).exp()*size, r(n).sigmoid(), r(n, 3).sigmoid())


def draw(g, camera, tile=16, **kw):
    p = project(g, camera, **kw)
    return composite(p, g.colors[p.index], camera.width, camera.height, tile)


def by_the_book(alpha, values):
    "One pixel after the other, one splat after the other, as a GPU thread does it."
    out, left = torch.zeros(len(alpha), values.shape[1], dtype=values.dtype), torch.ones(len(alpha), dtype=values.dtype)
    for i, row in enumerate(alpha):
        for a, v in zip(row, values):
            if left[i]*(1-a) <= MIN_T: break
            out[i] += a*left[i]*v
            left[i] *= 1-a
    return out, left


VIEW = orbit(15., 5., 1.2, fov=16., width=40, height=27).to(torch.float64)


@pytest.mark.parametrize("opacity", [0.02, 0.3, 0.95])
def test_light_of_one_splat_has_a_closed_form(opacity):
    conic = torch.tensor([[0.012, 0.006, 0.015]], dtype=torch.float64)
    alpha = splat_alpha(grid(160, 160), torch.tensor([[80.3, 79.1]], dtype=torch.float64), conic, torch.tensor([opacity], dtype=torch.float64))
    root = (conic[0, 0]*conic[0, 2]-conic[0, 1]**2).rsqrt()
    assert_close(alpha.sum(), 2*math.pi*(opacity-MIN_ALPHA)*root, rtol=5e-3, atol=0)
    assert_close((alpha > 0).sum().double(), 2*math.pi*math.log(opacity/MIN_ALPHA)*root, rtol=2e-2, atol=0)


def test_alpha_is_zero_or_between_its_limits():
    g = some()
    p = project(replace(g, opacities=torch.ones_like(g.opacities)), VIEW)
    alpha = splat_alpha(grid(40, 27), p.means2d, p.conics, p.opacities)
    assert ((alpha == 0) | ((alpha >= MIN_ALPHA) & (alpha <= MAX_ALPHA))).all() and (alpha == 0).any() and (alpha > 0.9).any()


def test_over_is_the_sequential_rule_with_its_early_stop():
    gen = torch.Generator().manual_seed(0)
    alpha = torch.rand(40, 25, generator=gen, dtype=torch.float64)*0.999*(torch.rand(40, 25, generator=gen) > 0.3)
    values = torch.randn(25, 5, generator=gen, dtype=torch.float64)
    for got, want in zip(over(alpha, values), by_the_book(alpha, values)): assert_close(got, want)
    assert by_the_book(alpha, values)[1].min() > MIN_T


def test_light_is_conserved():
    taken, T = draw(replace(some(), colors=torch.ones(150, 1, dtype=torch.float64)), VIEW)
    assert_close(taken[..., 0]+T, torch.ones(27, 40, dtype=torch.float64))


def test_stacks_nest():
    gen = torch.Generator().manual_seed(1)
    alpha, values = torch.rand(30, 10, generator=gen, dtype=torch.float64)*0.4, torch.rand(10, 3, generator=gen, dtype=torch.float64)
    (a, Ta), (b, Tb), (v, T) = over(alpha[:, :4], values[:4]), over(alpha[:, 4:], values[4:]), over(alpha, values)
    assert_close(a+Ta[:, None]*b, v)
    assert_close(Ta*Tb, T)


def test_values_are_linear():
    g = some()
    p, gen = project(g, VIEW), torch.Generator().manual_seed(0)
    a, b = torch.randn(2, len(p.index), 4, generator=gen, dtype=torch.float64)
    paint = lambda v: composite(p, v, 40, 27)[0]
    assert_close(paint(2*a-b), 2*paint(a)-paint(b))


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_tile_size_changes_nothing(tile):
    camera = VIEW if tile > 1 else VIEW.scaled(0.25)
    for a, b in zip(draw(some(), camera, tile), draw(some(), camera)): assert_close(a, b)


def test_input_order_changes_nothing_but_ties():
    g = some()
    shuffle = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    for a, b in zip(draw(g[shuffle], VIEW), draw(g, VIEW)): assert_close(a, b)
    two = Gaussians(*(getattr(g, f.name)[[0, 0]] for f in fields(g)))
    first = replace(two, colors=torch.tensor([[1., 0, 0], [0, 1, 0]], dtype=torch.float64))
    picture = draw(first, VIEW)[0]
    assert picture[..., 0].sum() > picture[..., 1].sum() # a tie goes to the one that came first


def test_nearer_covers_farther():
    wall = lambda z, color: Gaussians(torch.tensor([[0., 0, z]]), torch.tensor([[1., 0, 0, 0]]), torch.tensor([[0.2, 0.2, 0.001]]), torch.tensor([0.99]), torch.tensor([color]))
    red, blue = wall(0.1, [1., 0, 0]), wall(0., [0, 0, 1.])
    camera = orbit(0., 0., 1.2, width=20, height=20)
    assert_close(draw(red+blue, camera)[0], draw(blue+red, camera)[0])
    assert draw(red+blue, camera)[0][10, 10, 0] > 0.95
    assert draw(red+blue, orbit(180., 0., 1.2, width=20, height=20))[0][10, 10, 2] > 0.95


def test_empty_scene_is_transparent():
    nothing = project(some(), VIEW, near=50.)
    values, T = composite(nothing, torch.zeros(0, 3, dtype=torch.float64), 40, 27)
    assert values.shape == (27, 40, 3) and (values == 0).all() and (T == 1).all()


def test_a_splat_sits_where_its_mean_projects():
    g = replace(some(1, size=0.001), means=torch.tensor([[0.02, -0.03, 0.01]], dtype=torch.float64))
    p = project(g, VIEW)
    alpha = 1-draw(g, VIEW)[1]
    at = (alpha.flatten()[:, None]*grid(40, 27)).sum(0)/alpha.sum()
    assert_close(at, p.means2d[0], atol=0.05, rtol=0)


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_gradients_agree_with_differences_where_the_picture_is_smooth(mode):
    gen = torch.Generator().manual_seed(0)
    camera = orbit(10., 5., 1.2, fov=4., width=6, height=5).to(torch.float64)
    g = Gaussians(torch.randn(3, 3, generator=gen)*0.01, torch.randn(3, 4, generator=gen), torch.rand(3, 3, generator=gen)*0.03+0.05,
                  torch.rand(3, generator=gen)*0.5+0.2, torch.rand(3, 3, generator=gen)).to(torch.float64)
    inputs = [getattr(g, f.name).requires_grad_() for f in fields(g)]+[camera.viewmat[:3].clone().requires_grad_()]
    assert torch.autograd.gradcheck(lambda *a: draw(Gaussians(*a[:5]), replace(camera, viewmat=torch.cat([a[5], camera.viewmat[3:]])), mode=mode), inputs)


def test_gradients_are_finite_on_a_head_in_float32():
    g = build_doll()
    inputs = [getattr(g, f.name).requires_grad_() for f in fields(g)]
    values, T = draw(g, orbit(20., 5., 1.2, target=(0., -0.04, 0.), fov=16., width=48, height=48))
    for grad in torch.autograd.grad(values.square().sum()+T.sum(), inputs): assert grad.isfinite().all() and (grad != 0).any()


def test_projection_record_can_be_made_by_hand():
    p = Projection(torch.tensor([[8., 8.]]), torch.tensor([[0.1, 0., 0.1]]), torch.tensor([1.]), torch.tensor([0.5]), torch.tensor([[10, 10]]), torch.tensor([0]))
    values, T = composite(p, torch.ones(1, 1), 16, 16)
    assert_close(values[..., 0], values[..., 0].T)
    assert_close(1-T, values[..., 0])
