"What cannot be drawn is refused, with the number and the remedy; whatever is drawn, however odd, is finite. Nothing crashes."
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from talkinglab.core.camera import Camera, orbit
from talkinglab.gs.gaussians import Gaussians
from talkinglab.gs.render import render
from torch.testing import assert_close

SMALL = orbit(width=20, height=12)
NAMES = "means", "quats", "scales", "opacities", "colors"
WIDTHS = dict(means=3, quats=4, scales=3, opacities=0, colors=3)


def cloud(n, channels=3, seed=0):
    "A random ball of Gaussians some 0.1 m across."
    g = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=g)
    return Gaussians(randn(n, 3)*0.05, randn(n, 4), 0.004*randn(n, 3).mul(0.5).exp(), randn(n).sigmoid(), randn(n, channels).sigmoid())

def learnable(g): return Gaussians(*(getattr(g, k).detach().clone().requires_grad_() for k in NAMES))

def draw(g, camera=SMALL, **kw):
    "A picture and its gradients: finite, all of them."
    g = learnable(g)
    r = render(g, camera, backend="cpu", **kw)
    seen = [x for x in (r.rgb, r.alpha, r.depth) if x is not None]
    for x in seen: assert x.isfinite().all(), "picture"
    assert (r.alpha>=0).all() and (r.alpha<=1).all()
    grads = torch.autograd.grad(sum(x.sum() for x in seen), [getattr(g, k) for k in NAMES], allow_unused=True)
    for k, v in zip(NAMES, grads): assert v is None or v.isfinite().all(), f"gradient of {k}"
    return r


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NAMES)
def test_each_value_that_is_not_finite_is_counted(name, bad):
    g = cloud(40)
    x = getattr(g, name).clone()
    x.view(40, -1)[[3, 17, 39], -1] = bad # also in the last block of sixteen
    with pytest.raises(ValueError, match=f"{name} of 3 of 40 Gaussians are not finite"): render(replace(g, **{name: x}), SMALL, backend="cpu")


@pytest.mark.parametrize("n", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("name", NAMES)
def test_one_bad_value_is_found_wherever_it_is(name, n):
    for i in range(n):
        g = cloud(n)
        x = getattr(g, name).clone()
        x.view(n, -1)[i, 0] = math.nan
        with pytest.raises(ValueError, match=f"{name} of 1 of {n}"): render(replace(g, **{name: x}), SMALL, backend="cpu")


def test_a_bad_value_out_of_sight_is_found_too():
    g = cloud(20)
    means, scales = g.means.clone(), g.scales.clone()
    means[4] = torch.tensor([0, 0, 50.]) # behind the camera
    scales[4, 1] = math.nan
    with pytest.raises(ValueError, match="scales of 1 of 20"): render(replace(g, means=means, scales=scales), SMALL, backend="cpu")


def test_bad_values_that_cancel_in_a_sum_are_found():
    g = cloud(20)
    colors = g.colors.clone()
    colors[2, 0], colors[5, 0] = math.inf, -math.inf
    with pytest.raises(ValueError, match="colors of 2 of 20"): render(replace(g, colors=colors), SMALL, backend="cpu")


def test_large_colours_whose_sum_overflows_are_drawn():
    g = cloud(20)
    assert render(replace(g, colors=torch.full((20, 3), 1e38)), SMALL, backend="cpu").alpha.isfinite().all()


@pytest.mark.parametrize("outside", [-1e-6, 1.0001, 40., -3.])
def test_opacities_outside_0_1_are_counted(outside):
    g = cloud(20)
    o = g.opacities.clone()
    o[[0, 19]] = outside
    with pytest.raises(ValueError, match=r"2 of 20 opacities lie outside \[0,1\].*Splats"): render(replace(g, opacities=o), SMALL, backend="cpu")


def test_opacities_of_exactly_0_and_1_are_fine():
    g = cloud(20)
    r = draw(replace(g, opacities=torch.zeros(20)))
    assert (r.alpha==0).all() and (r.depth==0).all()
    assert draw(replace(g, opacities=torch.ones(20))).alpha.max() > 0.9


def test_quaternions_of_length_zero_are_counted():
    g = cloud(20)
    q = g.quats.clone()
    q[[1, 16]] = 0
    with pytest.raises(ValueError, match=r"2 of 20 quaternions are zero.*\(1,0,0,0\)"): render(replace(g, quats=q), SMALL, backend="cpu")


@pytest.mark.parametrize("length", [1e-18, 1e-22, 1e-30, 1e18, 1e30])
def test_very_short_and_very_long_quaternions_are_drawn_or_refused(length):
    "Their squares leave float32: the same picture, or a message; never a NaN."
    g = cloud(40)
    short = replace(g, quats=g.quats/g.quats.norm(dim=1, keepdim=True)*length)
    try: r = draw(short)
    except ValueError: return
    assert_close(r.alpha, draw(g).alpha, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_refused(name):
    g = cloud(10)
    x = getattr(g, name)
    for wrong in (x[:9], x[..., None] if x.ndim==1 else x[:, :-1] if name!="colors" else x[:, 0]):
        with pytest.raises(Exception, match="(?i)shape|type|rows|dimension|size"): render(replace(g, **{name: wrong}), SMALL, backend="cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_are_refused_with_the_remedy(dtype):
    with pytest.raises(ValueError, match="float32.*backend='torch'"): render(cloud(10).to(dtype), SMALL, backend="cpu")
    for name in NAMES[:4]:
        g = cloud(10)
        with pytest.raises(ValueError, match="float32"): render(replace(g, **{name: getattr(g, name).to(dtype)}), SMALL, backend="cpu")


def test_whole_numbers_are_refused():
    g = cloud(10)
    with pytest.raises(Exception, match="(?i)float"): render(replace(g, means=torch.zeros(10, 3, dtype=torch.int64)), SMALL, backend="cpu")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("focal", [0., -200., math.nan, math.inf])
def test_a_camera_needs_a_focal_length(axis, focal):
    K = SMALL.K.clone()
    K[axis, axis] = focal
    with pytest.raises(ValueError, match="focal|finite"): render(cloud(10), replace(SMALL, K=K), backend="cpu")

@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("focal", [0., -200., math.nan, math.inf])
def test_a_camera_changed_behind_its_back_is_checked_again(axis, focal):
    "The tensors of a record can be written to; `render` looks once more."
    camera = replace(SMALL, K=SMALL.K.clone())
    camera.K[axis, axis] = focal
    with pytest.raises(ValueError, match="focal|finite"): render(cloud(10), camera, backend="cpu")
    camera = replace(SMALL, viewmat=SMALL.viewmat.clone())
    camera.viewmat[1, 3] = math.nan
    with pytest.raises(ValueError, match="finite|rigid"): render(cloud(10), camera, backend="cpu")


def test_cameras_that_do_not_fit_are_refused():
    g = cloud(10)
    with pytest.raises(ValueError, match="no camera"): render(g, [], backend="cpu")
    with pytest.raises(ValueError, match="camera 1 is 10 x 12 px, the first one 20 x 12"): render(g, [SMALL, orbit(width=10, height=12)], backend="cpu")
    for size in ((0, 12), (20, 0), (-4, 12)):
        with pytest.raises(ValueError, match="at least"): render(g, replace(SMALL, width=size[0], height=size[1]), backend="cpu")


@pytest.mark.parametrize("shape", [(1,), (2,), (4,), (20, 12, 3), (12, 20), (12, 20, 1), (2, 12, 20, 3), ()])
def test_a_background_that_does_not_fit_is_refused(shape):
    with pytest.raises(Exception, match="(?i)background|type"): render(cloud(10), SMALL, background=torch.zeros(shape), backend="cpu")
    if len(shape)==4: return # it does fit two cameras
    with pytest.raises(Exception, match="(?i)background|type"): render(cloud(10), [SMALL, SMALL], background=torch.zeros(shape), backend="cpu")


@pytest.mark.parametrize("mode", ["classic", "antialiased"])
@pytest.mark.parametrize("name, value", [(k, v) for k in ("means", "scales") for v in (1e10, 1e18, 1e30, 3e38, 1e-30, 1e-45)]+[("colors", 1e30), ("scales", 0.)])
def test_values_of_any_size_are_drawn(name, value, mode):
    "All of them, and some of them."
    for which in (slice(None), slice(0, None, 3)):
        g = cloud(50)
        x = getattr(g, name).clone()
        x[which] = x[which].sign()*value if value!=0 else 0.
        draw(replace(g, **{name: x}), mode=mode)


@pytest.mark.parametrize("eps2d", [0., 1e-30, 1e4, 1e30])
def test_any_dilation_is_drawn(eps2d):
    for mode in ("classic", "antialiased"):
        draw(cloud(50), eps2d=eps2d, mode=mode)
        draw(replace(cloud(50), scales=torch.zeros(50, 3)), eps2d=eps2d, mode=mode)


@pytest.mark.parametrize("near, far", [(0., 1e10), (-5., 5.), (1e-30, 1e30), (2., 1.), (0.01, math.inf)])
def test_any_cut_is_drawn(near, far):
    g = cloud(200)
    z = torch.cat([torch.linspace(-0.1, 0.1, 100), torch.zeros(100)]) # distances, also exactly 0
    means = torch.cat([0.01*g.means[:, :2], 1.2-z[:, None]], 1)
    draw(replace(g, means=means), near=near, far=far)


@pytest.mark.parametrize("width, height", [(4000, 3), (3, 4000), (4000, 1), (1, 4000), (1, 1), (2049, 17)])
@pytest.mark.parametrize("channels", [3, 6])
def test_long_and_thin_pictures(width, height, channels):
    "In the middle, what a small picture of the same pixels shows."
    f, c = 3e3, (width/2, height/2)
    camera = Camera(torch.tensor([[f, 0, c[0]], [0, f, c[1]], [0, 0, 1]]), SMALL.viewmat, width, height)
    g = replace(cloud(100, channels), scales=torch.full((100, 3), 0.02))
    r = draw(g, camera)
    cut = (width-1)//2, (height-1)//2
    small = replace(camera, K=torch.tensor([[f, 0, c[0]-cut[0]], [0, f, c[1]-cut[1]], [0, 0, 1]]), width=1, height=1)
    if max(width, height)<3000: assert_close(r.rgb[cut[1], cut[0]], draw(g, small).rgb[0, 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("width", [256, 257, 383, 1000])
def test_splats_wider_than_a_tile_in_wide_pictures(width):
    "Every row of every entry is sixteen windows of a tile's 128 columns."
    f = float(width)
    camera = Camera(torch.tensor([[f, 0, width/2], [0, f, 8], [0, 0, 1]]), SMALL.viewmat, width, 16)
    for channels in (1, 3, 4, 9):
        g = replace(cloud(100, channels), scales=torch.full((100, 3), 0.3), opacities=torch.full((100,), 0.05))
        for depth in (True, False): assert (draw(g, camera, depth=depth).alpha>0.1).all()


def number():
    "float32 of any bits, ordinary ones more often."
    bits = st.integers(0, 2**32-1).map(lambda i: float(np.uint32(i).view(np.float32)))
    return st.one_of(st.floats(-2, 2, width=32), st.floats(0, 1, width=32), st.sampled_from([0., -0., 1., 1e-45, 1e-38, 1e-20, 1e20, 3e38, 1/255]), bits)

@st.composite
def anything(draw):
    n = draw(st.integers(0, 20))
    columns = {k: draw(st.lists(number(), min_size=n*max(w, 1), max_size=n*max(w, 1))) for k, w in WIDTHS.items()}
    if draw(st.booleans()): columns["opacities"] = [abs(o)%1 if math.isfinite(o) else 0.5 for o in columns["opacities"]]
    with np.errstate(over="ignore"):
        return Gaussians(*(torch.from_numpy(np.array(columns[k], np.float32)).reshape(n, *([w] if w else [])) for k, w in WIDTHS.items()))

@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(anything(), st.sampled_from(["classic", "antialiased"]), st.sampled_from([0., 0.3]), st.booleans())
def test_any_bits_are_drawn_or_refused(g, mode, eps2d, two):
    "Random bytes as numbers: our `ValueError`, or a finite picture with finite gradients."
    if g.colors.isfinite().all() and g.colors.numel() and g.colors.abs().max()>1e30: return # colours may overflow: they are the caller's
    try: draw(g, [SMALL, orbit(40, width=20, height=12)] if two else SMALL, mode=mode, eps2d=eps2d)
    except ValueError as error: assert "Gaussians are not finite" in str(error) or "opacities lie outside" in str(error) or "quaternions" in str(error), error
