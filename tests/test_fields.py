"Fields: grids read as written, offsets that start at zero, kept places equal to fresh ones, and deltas that add."
import math

import pytest
import torch
from talkinglab.gs.gaussians import Gaussians, build_doll, deform
from talkinglab.nn.fields import (SIZES, DeformField, Region, TriPlane, as_delta, hash_corners, hook, read_dense, read_hashed, resolutions)
from torch.testing import assert_close

SMALL = dict(levels=3, base=3, finest=7)
doll = build_doll()


def dice(seed=0): return torch.Generator().manual_seed(seed)


def points(n=40, seed=0, spread=.36): return (torch.rand(n, 3, generator=dice(seed), dtype=torch.float64)-.5)*spread


def wild(encoder, seed=0):
    "Tables of ordinary size, in double precision."
    torch.nn.init.normal_(encoder.tables, generator=dice(seed))
    return encoder.double()


def oracle(encoder, place):
    "Plain Python floats, one corner at a time."
    out, start = [], 0
    values = encoder.tables.tolist()
    low, high = encoder.box.tolist()
    unit = [min(1., max(0., (x-a)/(b-a))) for x, a, b in zip(place, low, high)]
    for r, rows in zip(encoder.cells, encoder.rows):
        for first, second in ((0, 1), (1, 2), (0, 2)):
            x, y = unit[first]*r, unit[second]*r
            i, j = min(int(x), r-1), min(int(y), r-1)
            for k in range(encoder.features):
                total = 0.
                for di, wx in ((0, 1-(x-i)), (1, x-i)):
                    for dj, wy in ((0, 1-(y-j)), (1, y-j)):
                        dense = (j+dj)*(r+1)+i+di
                        row = dense if rows == (r+1)**2 else ((i+di) ^ ((j+dj)*2654435761)) % rows
                        total += wx*wy*values[start+k*rows+row]
                out.append(total)
            start += rows*encoder.features
    return out


@pytest.mark.parametrize("kw", [dict(), dict(features=2), dict(table=16), dict(table=32, features=3), dict(bound=torch.tensor([[-.1, -.2, 0.], [.2, .1, .1]]))], ids=str)
def test_the_encoder_reads_what_plain_python_reads(kw):
    encoder, p = wild(TriPlane(**(SMALL | kw))), points()
    assert_close(encoder(p), torch.tensor([oracle(encoder, x) for x in p.tolist()], dtype=torch.float64), rtol=1e-10, atol=1e-10)
    single = TriPlane(**(SMALL | kw))
    single.load_state_dict(encoder.state_dict())
    assert_close(single(p.float()).double(), encoder(p), rtol=0, atol=2e-5)


@pytest.mark.parametrize("table", [2**17, 16])
def test_gradients_of_tables_and_points_are_those_of_differences(table):
    encoder = wild(TriPlane(levels=2, base=3, finest=4, table=table))
    p = points(3, spread=.25).requires_grad_()
    run = lambda p, tables: torch.func.functional_call(encoder, dict(tables=tables), (p,))
    assert torch.autograd.gradcheck(run, (p, encoder.tables.detach().requires_grad_()))


def test_a_table_that_nobody_shares_reads_as_the_grid():
    r, at = 6, torch.rand(3, 50, 2, generator=dice())
    grid = torch.randn(3, 2, r+1, r+1, generator=dice(1))
    j, i = torch.meshgrid(torch.arange(r+1), torch.arange(r+1), indexing="ij")
    row = hash_corners(torch.stack([i, j], -1), 2**18).flatten()
    assert len(row.unique()) == (r+1)**2
    table = torch.zeros(3, 2, 2**18).index_copy(2, row, grid.flatten(2))
    assert_close(read_hashed(table, at, r), read_dense(grid, at), rtol=0, atol=1e-5)


def test_resolutions_are_the_published_ones():
    assert sum((r+1)**2 for r in resolutions()) == 9407
    assert sum(math.ceil((r+1)**2/8)*8 for r in resolutions()) == 9464      # what InsTaG allocates, rows in eights
    assert resolutions(1) == (16,) and resolutions(3, 5, 5) == (5, 5, 5)
    assert len(TriPlane().tables) == 3*9407 and TriPlane().width == 36
    er_nerf = TriPlane(base=64, finest=512, table=2**14)
    assert max(er_nerf.rows) == 2**14 and er_nerf(points().float()).shape == (40, 36)


def test_outside_the_box_the_nearest_place_answers():
    encoder = wild(TriPlane(**SMALL))
    p = points(spread=2.)
    assert_close(encoder(p), encoder(p.clamp(-.15, .15)), rtol=0, atol=1e-4)


def test_tables_start_small_and_by_the_generator():
    a, b = (TriPlane(generator=dice(7)) for _ in range(2))
    assert torch.equal(a.tables, b.tables) and 0 < a.tables.abs().max() <= 1e-4


@pytest.mark.parametrize("kw, word", [(dict(table=1000), "1024"), (dict(levels=0), "at least 1"), (dict(bound=-.1), "volume"), (dict(bound=torch.zeros(2, 3)), "volume")])
def test_an_impossible_encoder_is_refused(kw, word):
    with pytest.raises(ValueError, match=word): TriPlane(**kw)


def test_no_points_no_features(): assert TriPlane()(torch.zeros(0, 3)).shape == (0, 36)


def test_attention_is_homogeneous_and_signed():
    region, x = Region(36, 5), torch.randn(50, 36, generator=dice())
    assert_close(region(2*x), 2*region(x))
    assert not region(0*x).any() and (region(x) < 0).any() and region(x).shape == (50, 5)


def field(trained=True, seed=0, **kw):
    torch.manual_seed(seed)
    f = DeformField(**(dict(signal=4, hidden=16) | kw))
    if trained:
        for p in f.parameters(): torch.nn.init.normal_(p, std=.5, generator=dice(seed))
    return f


everything = dict(attributes=tuple(SIZES), upper=3, extra=2)
heard = torch.tensor([1., -2., .5, 0.]), torch.tensor([.3, 0., 1.]), torch.tensor([.7, -.2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_new_field_moves_nothing(dtype):
    f, p = field(False, **everything).to(dtype), points().to(dtype)
    parts = f(f.locate(p), *(x.to(dtype) for x in heard))
    assert set(parts) == set(SIZES) and all(not x.any() and x.dtype == dtype for x in parts.values())
    assert parts["logits"].shape == (40,) and parts["colors"].shape == (40, 3)
    delta = as_delta({k: x.float()[:1].expand(len(doll), *x.shape[1:]) for k, x in parts.items()}, doll)
    assert torch.equal(deform(doll, delta).means, doll.means)


def test_the_field_is_features_attention_and_three_layers():
    "Written out as in the papers: one matrix for features and attended signal side by side."
    f, p = field(**everything).double(), points()
    signal, upper, extra = (x.double() for x in heard)
    x = f.encoder(p)
    first = torch.cat([f.here.weight, f.heard.weight, f.alike.weight], 1)
    row = torch.cat([x, f.region(x)*signal, f.lids(x)*upper, extra.expand(40, 2)], 1)
    y = ((row@first.T).relu()@f.then[0].weight.T).relu()@f.then[2].weight.T
    parts = f(f.locate(p), signal, upper, extra)
    assert_close(parts["means"], .01*y[:, :3])
    assert_close(torch.cat([parts[a].reshape(40, -1) for a in list(SIZES)[1:]], 1), y[:, 3:])


def test_a_kept_place_gives_what_a_fresh_one_gives():
    f, p = field(**everything), points().float()
    with torch.no_grad(): kept = f.locate(p)
    for scale in (0., 1., -3.):
        signal, upper, extra = (scale*x for x in heard)
        for a, b in zip(f(kept, signal, upper, extra).values(), f(f.locate(p), signal, upper, extra).values()): assert_close(a, b)
    assert len(kept) == 40


def test_each_gaussian_is_moved_for_itself():
    f, p = field(), points().float()
    order = torch.randperm(40, generator=dice())
    assert_close(f(f.locate(p), heard[0])["means"][order], f(f.locate(p[order]), heard[0])["means"])


def test_what_is_not_given_is_zero():
    f = field(**everything)
    place = f.locate(points().float())
    for a, b in zip(f(place, heard[0]).values(), f(place, heard[0], torch.zeros(3), torch.zeros(2)).values()): assert_close(a, b)


def test_gradients_reach_every_part_and_the_points():
    f, p = field(**everything), points(spread=.2).float().requires_grad_()
    drive = [x.clone().requires_grad_() for x in heard]
    sum(x.square().sum() for x in f(f.locate(p), *drive).values()).backward()
    for name, q in [*f.named_parameters(), ("points", p), *zip(("signal", "upper", "extra"), drive)]:
        assert q.grad is not None and q.grad.isfinite().all() and q.grad.any(), name


def test_gains_and_axes_scale_what_comes_out():
    plain, changed = field(), field(gains=dict(means=1., rotvecs=3.), axes=(.2, 1., .2))
    p = points().float()
    a, b = (f(f.locate(p), heard[0]) for f in (plain, changed))
    assert_close(b["means"], 100*a["means"]*torch.tensor([.2, 1., .2]))
    assert_close(b["rotvecs"], 3*a["rotvecs"])
    assert_close(b["log_scales"], a["log_scales"])


def test_a_field_is_saved_and_loaded(tmp_path):
    f, other = field(**everything), field(seed=1, **everything)
    other.load_state_dict(f.state_dict())
    p = points().float()
    assert torch.equal(f(f.locate(p), *heard)["means"], other(other.locate(p), *heard)["means"])


def test_a_few_steps_teach_a_motion():
    f = field(False, signal=1, hidden=32, attributes=("means",))
    p = points(100, spread=.2).float()
    target = torch.where(p[:, 1:2] < 0, .01, 0.)*torch.tensor([0., -1., 0.])
    optimizer = torch.optim.Adam(f.parameters(), 1e-2)
    for _ in range(40):
        loss = (1000*(f(f.locate(p), torch.ones(1))["means"]-target)).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    assert loss < .5*(1000*target).square().mean()


def test_deltas_of_two_fields_add():
    p = doll.means
    with torch.no_grad(): a, b = (.05*as_delta(f(f.locate(p), heard[0]), doll) for f in (field(), field(seed=1)))
    assert_close(deform(doll, a+b).means, doll.means+a.means+b.means)
    assert_close(deform(doll, a+b).scales, deform(deform(doll, a), b).scales)
    assert_close((a+b).means, (b+a).means)
    assert not a.logits.any() and not a.colors.any()


def test_a_colour_moves_the_harmonic_that_is_alike_everywhere():
    g = Gaussians(doll.means, doll.quats, doll.scales, doll.opacities, doll.colors[:, None].repeat(1, 4, 1))
    delta = as_delta(dict(colors=torch.ones(len(doll), 3)), g)
    assert delta.colors.shape == g.colors.shape and (delta.colors[:, 0] == 1).all() and not delta.colors[:, 1:].any()


def test_the_hook_reads_outliers_and_carries_no_gradient():
    dy = torch.arange(100.)[torch.randperm(100, generator=dice())].requires_grad_()
    out = hook(.01*dy, 10)
    assert_close(out, torch.tensor([90., 9., 81.]))
    assert not out.requires_grad
    assert_close(hook(torch.zeros(10)), torch.zeros(3))
    assert_close(hook(.01*dy+.5, 10)[2], out[2])                            # a nod is no opening


@pytest.mark.parametrize("call, word", [(lambda: hook(torch.zeros(5)), "k=10 of 5"), (lambda: DeformField(attributes=("means", "hair")), "hair"), (lambda: DeformField(gains=dict(mean=1.)), "mean"),
                                        (lambda: as_delta(dict(means=torch.zeros(3, 3)), doll), "3 rows"), (lambda: as_delta(dict(hair=torch.zeros(len(doll), 3)), doll), "hair")])
def test_what_cannot_be_is_said(call, word):
    with pytest.raises(ValueError, match=word): call()
