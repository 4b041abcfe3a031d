"The CPU kernels are the reference renderer to the last digits of float32, on any scene and any number of threads."
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from talkinglab.core.camera import orbit
from talkinglab.core.rotation import rotvec_to_quat
from talkinglab.gs import splat, tiles
from talkinglab.gs.gaussians import Gaussians
from talkinglab.gs.project import Projection, project
from talkinglab.gs.tiles import Footprints, bin_tiles, composite, footprints, load_kernels, paint, together
from torch.testing import assert_close


@pytest.fixture
def threads():
    "Set the number of threads; put back afterwards."
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


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


def painted(composite, p, values, width, height, dtype=torch.float32):
    "Picture and T, and the leaves to differentiate for."
    leaves = [x.detach().to(dtype).clone().requires_grad_() for x in (p.means2d, p.conics, p.opacities, values)]
    q = Projection(leaves[0], leaves[1], p.depths.to(dtype), leaves[2], p.radii, p.index)
    return composite(q, leaves[3], width, height), leaves


def same(p, values, width, height, tol=1e-5):
    """Picture and gradients within `tol` of float64, where no threshold (1/255, 1e-4) falls on the other side.

    Returns the number of pixels where one does."""
    (ours, T), leaves = painted(composite, p, values, width, height)
    (truth, T64), leaves64 = painted(splat.composite, p, values, width, height, torch.float64)
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


def seen(p):
    "The footprints of one camera that a projection stands for."
    A, B, C = p.conics.double().unbind(-1)
    return Footprints(p.means2d[None], torch.stack([A, B/A, C-B*B/A], -1)[None].float(), p.depths[None], p.opacities[None], p.radii[None])


SCENES = {
    "plain": dict(n=1500, width=96, height=96, channels=4),
    "odd size": dict(n=800, width=91, height=53, channels=3),
    "33 channels": dict(n=600, width=50, height=33, channels=33),
    "one channel": dict(n=600, width=48, height=48, channels=1),
    "tiny": dict(n=500, width=64, height=64, channels=4, sigma=(0.02, 0.2)),
    "huge": dict(n=120, width=64, height=64, channels=4, sigma=(20, 60)),
    "sheets over tiles 128 wide": dict(n=80, width=300, height=20, channels=3, sigma=(60, 200), opacity=(0.01, 0.1)),
    "sheets over tiles 64 wide": dict(n=80, width=300, height=20, channels=5, sigma=(60, 200), opacity=(0.01, 0.1)),
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
    (out, T), leaves = painted(composite, p, torch.ones(1, 1), 5, 5)
    grads = torch.autograd.grad(out.sum()+T.sum(), leaves)
    assert_close(grads[3], torch.full((1, 1), 25*0.999))
    for g in grads[:3]: assert (g==0).all()


@pytest.mark.parametrize("n", [0, 40])
def test_nothing_to_see_is_black_and_has_zero_gradients(n):
    p, values = scene(n, 20, 30, 3)
    p = Projection(p.means2d+1000, p.conics, p.depths, p.opacities, p.radii, p.index)
    (out, T), leaves = painted(composite, p, values, 20, 30)
    assert out.shape==(30, 20, 3) and (out==0).all() and (T==1).all()
    for g in torch.autograd.grad(out.sum()+T.sum(), leaves): assert (g==0).all()


def test_shapes_no_ellipse_has_are_skipped():
    "Degenerate conics (a zero, an infinity, no positive determinant) draw nothing and have zero gradients."
    p, values = scene(6, 16, 16, 3)
    bad = torch.tensor([[0., 0., 1.], [1., 0., 0.], [1., 2., 1.], [float("inf"), 0., 1.], [1e-38, 1e-3, 1e-38], [-1., 0., 1.]])
    p = Projection(p.means2d, bad, p.depths, p.opacities, p.radii, p.index)
    (out, T), leaves = painted(composite, p, values, 16, 16)
    assert (out==0).all() and (T==1).all()
    for g in torch.autograd.grad(out.sum()+T.sum(), leaves): assert (g==0).all()


def test_same_bits_for_any_number_of_threads(threads):
    p, values = scene(9000, 100, 77, 5) # enough to call for help
    results = []
    for n in (1, 2, 3, 7):
        threads(n)
        out, leaves = painted(composite, p, values, 100, 77)
        results.append([*out, *torch.autograd.grad([x.square().sum() for x in out], leaves)])
    for other in results[1:]: assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_ties_in_depth_keep_their_order():
    p, values = scene(300, 40, 40, 3)
    p = Projection(p.means2d, p.conics, p.depths.mul(4).round().div(4), p.opacities, p.radii, p.index)
    assert len(p.depths.unique())<10
    assert same(p, values, 40, 40) <= 1


def test_every_list_is_near_to_far_and_every_gaussian_finds_its_entries():
    p, _ = scene(700, 90, 60, 3, sigma=(0.5, 12))
    t = bin_tiles(seen(p), 90, 60)
    for a, b in zip(t.offsets[:-1], t.offsets[1:]): assert (p.depths[t.owner[a:b]].diff()>=0).all()
    assert t.offsets[-1]==len(t.owner)==t.count.sum() and (t.slot[np.argsort(t.slot)]==np.arange(len(t.slot))).all()
    for i in (0, 13, 699):
        mine = np.sort(t.slot[t.owner==i])
        assert len(mine)==t.count[i] and (mine==t.first[i]+np.arange(t.count[i])).all()


def test_rows_are_complete_and_tight():
    p, _ = scene(300, 150, 48, 3, sigma=(0.1, 20))
    t = bin_tiles(seen(p), 150, 48)
    wide, columns = 2**t.shift, -(-150//2**t.shift)
    pixels = torch.stack(torch.meshgrid(torch.arange(columns*wide), torch.arange(48), indexing="xy"), -1).flatten(0, 1)+0.5
    p64 = [x.double() for x in (pixels, p.means2d, p.conics, p.opacities)]
    need = ((splat.splat_alpha(*p64)>0) & (pixels[:, :1]<150)).unflatten(0, (48, columns, wide)).any(2)
    listed = torch.zeros_like(need)
    for tile in range(3*columns):
        for e in range(t.offsets[tile], t.offsets[tile+1]):
            y0, y1 = tile//columns*16+t.rows[e]
            listed[y0:y1+1, tile%columns, t.owner[e]] = True
    assert not (need&~listed).any()
    assert (listed&~need).sum()<0.1*need.sum() # a splat within one row of tiles keeps its rows in all its columns; painting drops what is empty


def test_several_cameras_in_one_list():
    "Each camera has tiles of its own, and each tile only rows of its camera."
    parts = [scene(400, 90, 60, 3, seed=i)[0] for i in range(3)]
    each = [seen(p) for p in parts]
    f = Footprints(*(torch.cat([getattr(x, k) for x in each]) for k in ("means2d", "shapes", "depths", "opacities", "radii")))
    t, alone = bin_tiles(f, 90, 60), [bin_tiles(x, 90, 60) for x in each]
    per = (len(t.offsets)-1)//3
    for i, one in enumerate(alone):
        mine = slice(t.offsets[i*per], t.offsets[(i+1)*per])
        assert (t.owner[mine]-400*i==one.owner).all() and (t.rows[mine]==one.rows).all()


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
def test_a_forked_worker_can_draw(threads):
    "As the workers of a data loader do, after the parent has drawn."
    threads(3)
    p, values = scene(9000, 40, 40, 4)
    want = composite(p, values, 40, 40)[0]
    child = os.fork()
    if child==0:
        code = 1
        try:
            signal.alarm(60)
            code = 0 if torch.equal(composite(p, values, 40, 40)[0], want) else 2
        finally: os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])==0


def test_a_late_helper_is_not_waited_for(threads):
    threads(2)
    p, values = scene(9000, 40, 40, 4)
    want = composite(p, values, 40, 40)[0] # compiled, and the crew exists
    asleep, wake = threading.Event(), threading.Event()
    tiles._crew(1).put((lambda: (asleep.set(), wake.wait(20)), ()))
    assert asleep.wait(10)
    start = time.perf_counter()
    got = composite(p, values, 40, 40)[0]
    took = time.perf_counter()-start
    wake.set()
    assert torch.equal(got, want) and took<10


def test_a_helper_that_stumbles_is_reported_and_replaced(threads, monkeypatch, caplog):
    threads(3)
    mine, told = threading.get_ident(), threading.Barrier(3)
    def stumble(jobs, done):
        told.wait(20) # all three are here
        if threading.get_ident()!=mine: raise ValueError("one fell")
        done.append(1)
    done = []
    monkeypatch.setattr(load_kernels("talkinglab.gs.tiles_kernels"), "stumble", stumble, raising=False)
    monkeypatch.setattr(tiles, "_met", {("stumble",)}) # helpers come from the second call on
    together("stumble", 1, done)
    for _ in range(100):
        if len(caplog.records)==2: break
        time.sleep(0.05)
    assert done==[1] and [r.exc_info[0] for r in caplog.records]==[ValueError]*2


def test_footprints_are_those_of_the_projection():
    "Also for needles and for Gaussians beside and behind the camera; a row for every one, zero where not seen."
    g = torch.Generator().manual_seed(0)
    n = 700
    scales = 0.003*torch.randn(n, 3, generator=g).mul(1.2).exp()
    splats = Gaussians(torch.randn(n, 3, generator=g)*0.1, torch.randn(n, 4, generator=g), scales, torch.rand(n, generator=g), torch.rand(n, 3, generator=g))
    cameras = [orbit(30, 10, radius=0.3, width=70, height=50), orbit(-80, width=70, height=50)]
    for mode in ("classic", "antialiased"):
        f = footprints(splats, cameras, mode=mode)
        assert f.fine and f.means2d.shape==(2, n, 2)
        for i, c in enumerate(cameras):
            p = project(splats.to(torch.float64), c.to(torch.float64), mode=mode)
            A, B, C = p.conics.unbind(-1)
            both = f.radii[i].all(-1).nonzero()[:, 0]
            assert len(both)>100 and len(set(both.tolist())^set(p.index.tolist()))<=1 # one may touch the border by rounding
            where = torch.isin(p.index, both)
            row = p.index[where]
            assert_close(f.means2d[i, row].double(), p.means2d[where], rtol=1e-5, atol=1e-4)
            for k, x in enumerate((A, B/A, C-B*B/A)): assert_close(f.shapes[i, row, k].double(), x[where], rtol=2e-5, atol=1e-5)
            assert_close(f.opacities[i, row].double(), p.opacities[where], rtol=1e-5, atol=1e-6)
            gone = ~torch.isin(torch.arange(n), both)
            assert (f.opacities[i, gone]==0).all() and (f.radii[i, gone]==0).all()


def test_hairs_thousands_of_pixels_long_are_drawn_exactly():
    "Where a c - b² of float32 is noise, |U x V|² is not."
    angles, zero = torch.linspace(0.2, 1.4, 7), torch.zeros(7)
    hairs = Gaussians(torch.stack([torch.linspace(-0.1, 0.1, 7), zero, zero], -1), rotvec_to_quat(torch.stack([zero, zero, angles], -1)),
                      torch.tensor([20., 1e-4, 1e-4]).repeat(7, 1), torch.full((7,), 0.9), torch.ones(7, 1))
    camera = orbit(width=96, height=96)
    p = project(hairs.to(torch.float64), camera.to(torch.float64))
    truth = splat.composite(p, torch.ones(7, 1).double(), 96, 96)[0]
    got = paint(footprints(hairs, [camera]), torch.ones(1, 7, 1), 96, 96)[0][0]
    assert_close(got.double(), truth, atol=5e-5, rtol=0)


def test_many_channels_are_painted_as_few_are():
    p, values = scene(600, 90, 50, 37)
    whole = composite(p, values, 90, 50)[0]
    assert torch.equal(whole, torch.cat([composite(p, x.contiguous(), 90, 50)[0] for x in values.split(3, 1)], -1))


def test_errors_name_the_remedy():
    p, values = scene(10, 16, 16, 3)
    with pytest.raises(ValueError, match="float64.*backend='torch'"): composite(p, values.double(), 16, 16)
    with pytest.raises(ValueError, match="10 rows"): composite(p, values[:9], 16, 16)
    with pytest.raises(ValueError, match="at least one channel"): composite(p, values[:, :0], 16, 16)
