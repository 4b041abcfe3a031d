"The CPU kernels are the reference renderer to the last digits of float32, on any scene and any number of threads."
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from talkinglab.gs import splat
from talkinglab.gs.project import Projection
from talkinglab.gs.tiles import bin_tiles, composite, side_by_side
from torch.testing import assert_close


def scene(n, width, height, channels, sigma=(1, 3), opacity=(0.3, 0.99), spread=1.2, seed=0):
    "Random ellipses: standard deviations log-uniform in `sigma` px, centres over `spread` times the image."
    g = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=g, dtype=torch.float64)
    s, angle = sigma[0]*(sigma[1]/sigma[0])**rand(n, 2), rand(n)*torch.pi
    R = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(n, 2, 2)
    cov = R@torch.diag_embed(s**2)@R.mT+0.3*torch.eye(2, dtype=torch.float64)
    inv = torch.linalg.inv(cov)
    means = (0.5+(rand(n, 2)-0.5)*spread)*torch.tensor([width, height])
    radii = (3.33*cov.diagonal(dim1=1, dim2=2).sqrt()).ceil().int()
    conics = torch.stack([inv[:, 0, 0], inv[:, 0, 1], inv[:, 1, 1]], -1)
    o = opacity[0]+(opacity[1]-opacity[0])*rand(n)
    return Projection(means.float(), conics.float(), (1+rand(n)).float(), o.clamp(min=0).float(), radii, torch.arange(n)), rand(n, channels).float()


def paint(composite, p, values, width, height, dtype=torch.float32):
    "Picture and T, and the leaves to differentiate for."
    leaves = [x.detach().to(dtype).clone().requires_grad_() for x in (p.means2d, p.conics, p.opacities, values)]
    q = Projection(leaves[0], leaves[1], p.depths.to(dtype), leaves[2], p.radii, p.index)
    return composite(q, leaves[3], width, height), leaves


def same(p, values, width, height, tol=1e-5):
    """Picture and gradients within `tol` of float64, where no threshold (1/255, 1e-4) falls on the other side.

    Returns the number of pixels where one does."""
    (ours, T), leaves = paint(composite, p, values, width, height)
    (truth, T64), leaves64 = paint(splat.composite, p, values, width, height, torch.float64)
    flipped = ((ours-truth).abs().amax(-1)>1e-5*max(1, float(values.abs().max()))) | ((T-T64).abs()>1e-5)
    keep = ~flipped
    assert_close(ours[keep].double(), truth[keep], rtol=0, atol=tol*max(1, float(values.abs().max())))
    assert ours[keep].sub(truth[keep]).norm() <= tol*truth[keep].norm()
    g = torch.Generator().manual_seed(1)
    v, v_T = torch.randn(ours.shape, generator=g)*keep[..., None], torch.randn(T.shape, generator=g)*keep
    grads = torch.autograd.grad([ours, T], leaves, [v, v_T])
    truths = torch.autograd.grad([truth, T64], leaves64, [v.double(), v_T.double()])
    for name, a, b in zip(("means2d", "conics", "opacities", "values"), grads, truths):
        assert a.isfinite().all(), name
        assert (a-b).norm() <= tol*b.norm()+1e-12, f"{name}: {float((a-b).norm()/b.norm()):.1e}"
    return int(flipped.sum())


SCENES = {
    "plain": dict(n=1500, width=96, height=96, channels=4),
    "odd size": dict(n=800, width=91, height=53, channels=3),
    "33 channels": dict(n=600, width=50, height=33, channels=33),
    "one channel": dict(n=600, width=48, height=48, channels=1),
    "tiny": dict(n=500, width=64, height=64, channels=4, sigma=(0.02, 0.2)),
    "huge": dict(n=120, width=64, height=64, channels=4, sigma=(20, 60)),
    "needles": dict(n=300, width=64, height=64, channels=4, sigma=(0.05, 60)),
    "mostly off screen": dict(n=600, width=64, height=40, channels=3, spread=4),
    "faint": dict(n=1500, width=64, height=64, channels=4, opacity=(0, 0.02)),
    "many of opacity zero": dict(n=1500, width=64, height=64, channels=4, opacity=(-0.5, 0.5)),
    "one pixel": dict(n=5, width=1, height=1, channels=2, sigma=(0.5, 2)),
    "one row": dict(n=60, width=70, height=1, channels=5),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("seed", [0, 1])
def test_picture_and_gradients_are_those_of_float64(name, seed):
    kw = SCENES[name]
    flips = same(*scene(**kw, seed=seed), kw["width"], kw["height"])
    assert flips <= 1+kw["width"]*kw["height"]//1000


def test_thousands_in_one_pixel():
    "Deep behind many others R is a small difference of large numbers: a few digits fewer."
    p, values = scene(3000, 17, 17, 4, sigma=(0.3, 0.6), spread=0.05, opacity=(0.005, 0.1))
    assert same(p, values, 17, 17, tol=5e-5) <= 1


def test_values_of_any_sign_and_size():
    p, values = scene(500, 48, 48, 6)
    assert same(p, (values-0.5)*100, 48, 48) <= 3


def test_opaque_splats_have_colour_gradients_but_no_others():
    "Where alpha is held at 0.999 its derivative is zero."
    p = Projection(torch.tensor([[2.5, 2.5]]), torch.tensor([[1e-6, 0., 1e-6]]), torch.ones(1), torch.ones(1), torch.full((1, 2), 999, dtype=torch.int32), torch.zeros(1, dtype=torch.int64))
    (out, T), leaves = paint(composite, p, torch.ones(1, 1), 5, 5)
    grads = torch.autograd.grad(out.sum()+T.sum(), leaves)
    assert_close(grads[3], torch.full((1, 1), 25*0.999))
    for g in grads[:3]: assert (g==0).all()


@pytest.mark.parametrize("n", [0, 40])
def test_nothing_to_see_is_black_and_has_zero_gradients(n):
    p, values = scene(n, 20, 30, 3)
    p = Projection(p.means2d+1000, p.conics, p.depths, p.opacities, p.radii, p.index)
    (out, T), leaves = paint(composite, p, values, 20, 30)
    assert out.shape==(30, 20, 3) and (out==0).all() and (T==1).all()
    for g in torch.autograd.grad(out.sum()+T.sum(), leaves): assert (g==0).all()


def test_shapes_no_ellipse_has_are_skipped():
    "Degenerate conics (a zero, an infinity, no positive determinant) draw nothing and have zero gradients."
    p, values = scene(6, 16, 16, 3)
    bad = torch.tensor([[0., 0., 1.], [1., 0., 0.], [1., 2., 1.], [float("inf"), 0., 1.], [1e-38, 1e-3, 1e-38], [-1., 0., 1.]])
    p = Projection(p.means2d, bad, p.depths, p.opacities, p.radii, p.index)
    (out, T), leaves = paint(composite, p, values, 16, 16)
    assert (out==0).all() and (T==1).all()
    for g in torch.autograd.grad(out.sum()+T.sum(), leaves): assert (g==0).all()


def test_same_bits_for_any_number_of_threads():
    p, values = scene(2000, 100, 77, 5)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            out, leaves = paint(composite, p, values, 100, 77)
            results.append([*out, *torch.autograd.grad([x.square().sum() for x in out], leaves)])
    finally: torch.set_num_threads(before)
    for other in results[1:]: assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_ties_in_depth_keep_their_order():
    p, values = scene(300, 40, 40, 3)
    p = Projection(p.means2d, p.conics, p.depths.mul(4).round().div(4), p.opacities, p.radii, p.index)
    assert len(p.depths.unique())<10
    assert same(p, values, 40, 40) <= 1


def test_every_list_is_near_to_far_and_every_gaussian_finds_its_entries():
    p, values = scene(700, 90, 60, 3, sigma=(0.5, 12))
    t = bin_tiles(p, 90, 60)
    for a, b in zip(t.offsets[:-1], t.offsets[1:]): assert (p.depths[t.who[a:b]].diff()>=0).all()
    for i in (0, 13, 699):
        mine = t.slots[t.first[i]:t.first[i]+t.count[i]]
        assert (t.who[mine]==i).all() and t.count[i]==(t.who==i).sum()


def test_rows_are_complete_and_tight():
    p, _ = scene(300, 64, 48, 3, sigma=(0.1, 20))
    t = bin_tiles(p, 64, 48)
    pixels = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(48), indexing="xy"), -1).flatten(0, 1)+0.5
    p64 = [x.double() for x in (pixels, p.means2d, p.conics, p.opacities)]
    need = (splat.splat_alpha(*p64)>0).unflatten(0, (48, 4, 16)).any(2)
    listed = torch.zeros_like(need)
    for tile in range(12):
        for e in range(t.offsets[tile], t.offsets[tile+1]):
            y0, y1 = tile//4*16+(t.rows[e]&255), tile//4*16+(t.rows[e]>>8)
            listed[y0:y1+1, tile%4, t.who[e]] = True
    assert not (need&~listed).any()
    assert (listed&~need).sum()<0.03*need.sum()


def test_strided_and_expanded_inputs():
    p, values = scene(200, 32, 32, 4)
    want, _ = composite(p, values, 32, 32)
    q = Projection(p.means2d.T.contiguous().T, p.conics.T.contiguous().T, p.depths, p.opacities, p.radii, p.index)
    assert torch.equal(composite(q, values.T.contiguous().T, 32, 32)[0], want)
    one = torch.ones(1, 4, requires_grad=True)
    composite(p, one.expand(200, 4), 32, 32)[0].sum().backward()
    assert one.grad.isfinite().all() and (one.grad>0).all()


def test_many_threads_may_draw_at_once():
    p, values = scene(500, 64, 64, 4)
    want = composite(p, values, 64, 64)[0]
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: composite(p, values, 64, 64)[0], range(12)): assert torch.equal(got, want)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_worker_can_draw():
    "As the workers of a data loader do, after the parent has drawn."
    p, values = scene(300, 40, 40, 4)
    want = composite(p, values, 40, 40)[0]
    side_by_side(lambda i: None, 3)
    child = os.fork()
    if child==0:
        code = 1
        try:
            signal.alarm(60)
            hits = []
            side_by_side(hits.append, 3)
            code = 0 if sorted(hits)==[0, 1, 2] and torch.equal(composite(p, values, 40, 40)[0], want) else 2
        finally: os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])==0


def test_an_error_in_any_worker_is_raised():
    def work(i):
        if i==1: raise ValueError("one fell")
    with pytest.raises(ValueError, match="one fell"): side_by_side(work, 3)


def test_errors_name_the_remedy():
    p, values = scene(10, 16, 16, 3)
    with pytest.raises(ValueError, match="float64.*backend='torch'"): composite(p, values.double(), 16, 16)
    with pytest.raises(ValueError, match="10 rows"): composite(p, values[:9], 16, 16)
    with pytest.raises(ValueError, match="at least one channel"): composite(p, values[:, :0], 16, 16)
