"Measures of motion and of codes: closed forms, pooling, invariances, known answers, and what is refused."
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from talkinglab.measure.disentangle import DCI, dci, disentangle, forest, lasso, mig, motion_features, mutual_information, probe, sap
from talkinglab.measure.motion import (MotionMeter, Masks, dynamics_error, eve, fdd, gap_concordance, gap_correlation, gap_lag, lip_max, lve, mod, mve, table)
from torch.testing import assert_close

quick = settings(max_examples=20, deadline=None)
few = settings(max_examples=5, deadline=None)
seeded = lambda seed: torch.Generator().manual_seed(seed)
ALL = torch.arange(40)
MASKS = Masks("test", face=ALL, lips=ALL[:12], upper=ALL[20:], eyes=ALL[25:], inner=(3, 8), v=40)


def clip(frames=60, seed=0, dtype=torch.float32):
    "Prediction, truth and rest of a cloud that wobbles; some centimetres large."
    g = seeded(seed)
    rest = .1*torch.randn(40, 3, generator=g)
    walk = lambda: (.003*torch.randn(frames, 40, 3, generator=g)).cumsum(0)*.3
    shared = walk()
    return tuple(x.to(dtype) for x in (rest+shared+.3*walk(), rest+shared, rest))


def by_definition(pred, truth, rest):
    "As the published scripts compute them, in numpy, from millimetres."
    p, t, r = (x.double().numpy()*1000 for x in (pred, truth, rest))
    worst = lambda i: np.max([np.sum((p[:, v]-t[:, v])**2, 1) for v in i], 0)
    spread = lambda x: np.mean([np.std(np.sum((x[:, v]-r[v])**2, 1)) for v in MASKS.upper])
    return dict(lve_mm2=worst(MASKS.lips).mean(), lip_max_mm=np.sqrt(worst(MASKS.lips)).mean(), mve_mm=np.linalg.norm(p-t, axis=2).mean(), eve_mm2=worst(MASKS.eyes).mean(),
        fdd_mm2=spread(t)-spread(p))


@pytest.mark.parametrize("seed", range(3))
def test_measures_are_their_published_definitions(seed):
    pred, truth, rest = clip(seed=seed)
    ours = dict(lve_mm2=lve(pred, truth, MASKS.lips), lip_max_mm=lip_max(pred, truth, MASKS.lips), mve_mm=mve(pred, truth, MASKS.face), eve_mm2=eve(pred, truth, MASKS.eyes),
        fdd_mm2=fdd(pred, truth, rest, MASKS.upper))
    for k, v in by_definition(pred, truth, rest).items(): assert_close(float(ours[k]), float(v), rtol=1e-4, atol=1e-5)


@quick
@given(st.floats(.1, 10), st.integers(0, 99))
def test_squared_measures_scale_by_the_square(k, seed):
    pred, truth, rest = clip(20, seed, torch.float64)
    for f, power in ((lambda s: lve(s*pred, s*truth, MASKS.lips), 2), (lambda s: eve(s*pred, s*truth, MASKS.eyes), 2), (lambda s: fdd(s*pred, s*truth, s*rest, MASKS.upper), 2),
                     (lambda s: lip_max(s*pred, s*truth, MASKS.lips), 1), (lambda s: mve(s*pred, s*truth, MASKS.face), 1), (lambda s: dynamics_error(s*pred, s*truth, MASKS.upper), 1)):
        assert_close(f(k), k**power*f(1.), rtol=1e-9, atol=1e-12)


@quick
@given(st.integers(0, 99))
def test_the_truth_has_no_error_and_lip_max_obeys_jensen(seed):
    pred, truth, rest = clip(20, seed, torch.float64)
    for x in (lve(truth, truth, ALL), lip_max(truth, truth, ALL), mve(truth, truth, ALL), eve(truth, truth, ALL), fdd(truth, truth, rest, ALL), dynamics_error(truth, truth, ALL)): assert x == 0
    assert lip_max(pred, truth, ALL)**2 <= lve(pred, truth, ALL)*(1+1e-12)
    assert mve(pred, truth, ALL) <= lip_max(pred, truth, ALL)
    assert_close(fdd(pred, truth, rest, ALL), -fdd(truth, pred, rest, ALL))


def test_a_mask_is_flags_or_indices_and_the_rest_does_not_count():
    pred, truth, _ = clip()
    flags = torch.zeros(40, dtype=torch.bool)
    flags[MASKS.lips] = True
    assert lve(pred, truth, flags) == lve(pred, truth, MASKS.lips) == lve(pred, truth, MASKS.lips.flip(0))
    other = pred.clone()
    other[:, ~flags] += 1
    assert lve(other, truth, flags) == lve(pred, truth, flags)


def test_fdd_cancels_where_the_dynamics_error_does_not():
    _, truth, rest = clip(dtype=torch.float64)
    moved = truth-rest
    signs = torch.tensor([1.2, math.sqrt(2-1.2**2)], dtype=torch.float64).repeat(20)[:, None]
    same = moved[:, :1].expand_as(moved)                     # every vertex moves alike, so over- and understatement cancel
    assert fdd(rest+signs*same, rest+same, rest, ALL).abs() < 1e-9
    assert dynamics_error(rest+signs*same, rest+same, ALL) > .1*dynamics_error(rest.expand_as(same), rest+same, ALL)
    assert_close(dynamics_error(truth+.02, truth, ALL).item(), 0., atol=1e-9, rtol=0)


@quick
@given(st.floats(.1, 5), st.floats(-.1, .1), st.integers(0, 99))
def test_correlation_is_blind_to_size_and_offset_and_concordance_is_not(k, offset, seed):
    x = torch.randn(50, generator=seeded(seed), dtype=torch.float64)
    assert_close(gap_correlation(k*x+offset, x).item(), 1., rtol=1e-9, atol=0)
    var, mean = x.var(correction=0), x.mean()
    assert_close(gap_concordance(k*x+offset, x), 2*k*var/((1+k*k)*var+((k-1)*mean+offset)**2), rtol=1e-9, atol=0)


def test_correlation_is_numpys():
    a, b = torch.randn(2, 80, generator=seeded(0), dtype=torch.float64)
    assert_close(gap_correlation(a, b).item(), float(np.corrcoef(a, b)[0, 1]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("late", [-7, -1, 0, 3, 9])
def test_lag_finds_a_whole_shift_exactly_and_changes_sign(late):
    g = seeded(1)
    long = torch.nn.functional.avg_pool1d(torch.randn(1, 1, 140, generator=g, dtype=torch.float64), 5, 1)[0, 0]
    pred, truth = long[20-late:120-late], long[20:120]
    lag = gap_lag(pred, truth, 25)
    assert int(lag.shifts[lag.curve.argmax()]) == late and lag.correlation > .999999
    assert abs(lag.frames-late) < .3 and lag.ms == 40*lag.frames
    assert_close(gap_lag(truth, pred, 25).frames, -lag.frames, rtol=0, atol=1e-9)
    assert_close(gap_lag(3*pred-1, truth, 25).frames, lag.frames, rtol=0, atol=1e-6)


@pytest.mark.parametrize("late", [-2.5, -.4, .25, 1.5])
def test_lag_reads_between_frames(late):
    t = torch.arange(200, dtype=torch.float64)
    wave = lambda s: sum(torch.sin(2*torch.pi*f*(t-s)+f) for f in (.031, .057, .083))
    assert abs(gap_lag(wave(late), wave(0.), 25).frames-late) < .08


def test_a_rhythm_without_end_is_given_its_smallest_shift():
    t = torch.arange(100, dtype=torch.float64)
    assert abs(gap_lag(torch.sin(2*torch.pi*t/5), torch.sin(2*torch.pi*t/5), 25).frames) < 1e-6


@few
@given(st.lists(st.integers(25, 60), min_size=2, max_size=5), st.integers(0, 9))
def test_the_meter_pools_frames_and_does_not_care_how_the_set_is_cut(lengths, seed):
    clips = [clip(n, seed+i) for i, n in enumerate(lengths)]
    whole = MotionMeter(MASKS, 25)
    parts = []
    for c in clips:
        whole.add(*c)
        parts.append(MotionMeter(MASKS, 25).add(*c))
    joined = parts[0]
    for p in parts[1:]: joined = joined+p
    a, b = whole.scores(), joined.scores()
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        assert_close(x, y, rtol=1e-9, atol=1e-12) if isinstance(x, float) else x == y
    n = sum(lengths)
    assert a.frames == n and a.clips == len(lengths)
    assert_close(a.lve_mm2, sum(len(p)*float(lve(p, t, MASKS.lips)) for p, t, _ in clips)/n, rtol=1e-5, atol=0)
    single = [float(fdd(p, t, r, MASKS.upper)) for p, t, r in clips]
    assert_close(a.fdd_mm2, sum(single)/len(single), rtol=1e-5, atol=1e-9)
    assert_close(a.fdd_abs_mm2, sum(map(abs, single))/len(single), rtol=1e-5, atol=1e-9)
    assert abs(a.fdd_mm2) <= a.fdd_abs_mm2+1e-12


def test_one_clip_through_the_meter_is_the_functions():
    pred, truth, rest = clip(80)
    s = MotionMeter(MASKS, 25).add(pred, truth, rest).scores()
    a, b = ((x[:, 3]-x[:, 8]).norm(dim=-1) for x in (pred, truth))
    for ours, theirs in ((s.mod_mm, mod(a, b)), (s.gap_correlation, gap_correlation(a, b)), (s.gap_concordance, gap_concordance(a, b)), (s.gap_gain, a.std()/b.std()),
                         (s.dynamics_mm, dynamics_error(pred, truth, MASKS.upper))): assert_close(float(ours), float(theirs), rtol=1e-4, atol=1e-6)


def test_correlation_is_pooled_within_clips():
    "Clips that are open by different amounts: to know which is which is no timing."
    meter, openings = MotionMeter(MASKS, 25), []
    for i in range(6):
        _, _, rest = clip()
        pred, truth = (rest.repeat(60, 1, 1) for _ in range(2))
        for j, x in enumerate((pred, truth)): x[:, 3] = x[:, 8]+torch.tensor([0., .02*i+.05, 0])+.002*torch.randn(60, 1, generator=seeded(2*i+j))*torch.tensor([0., 1, 0])
        openings.append(torch.stack([(x[:, 3]-x[:, 8]).norm(dim=-1) for x in (pred, truth)]))
        meter.add(pred, truth, rest)
    assert gap_correlation(*torch.cat(openings, 1)) > .99 and abs(meter.scores().gap_correlation) < .25


def test_a_frozen_talker_has_no_correlation_and_the_table_says_so():
    _, truth, rest = clip()
    s = MotionMeter(MASKS, 25).add(truth[:1].expand_as(truth), truth, rest).scores()
    assert s.gap_correlation is None and s.gap_lag_ms is None and s.gap_concordance == 0 and s.gap_gain == 0
    text = s.table()
    assert "| gap correlation | – |" in text and "| masks | test |" in text and text._repr_markdown_() == text
    still = MotionMeter(MASKS, 25).add(truth, truth[:1].expand_as(truth), rest).scores()
    assert still.gap_gain is None and still.gap_concordance is None


def test_motion_measures_refuse_with_numbers_and_remedies(unchecked):
    pred, truth, rest = clip()
    for f in (lve, lip_max, mve, eve, dynamics_error, lambda p, t, m: fdd(p, t, rest, m)):
        with pytest.raises(ValueError, match=r"prediction is \(59, 40, 3\), truth \(60, 40, 3\): cut both"): f(pred[1:], truth, ALL)
        with pytest.raises(ValueError, match=r"nothing to measure in \(0, 40, 3\)"): f(pred[:0], truth[:0], ALL)
        with pytest.raises(ValueError, match="none of 40 vertices"): f(pred, truth, ALL[:0])
        with pytest.raises(ValueError, match="none of 40 vertices"): f(pred, truth, ALL < 0)
        with pytest.raises(ValueError, match="vertex 40, the mesh has 40"): f(pred, truth, ALL+1)
        with pytest.raises(ValueError, match="39 flags for 40 vertices"): f(pred, truth, ALL[1:] > 0)
        with pytest.raises(ValueError, match="holds floats"): f(pred, truth, torch.ones(40))
    x, still = torch.randn(60), torch.ones(60)
    for f in (mod, gap_correlation, gap_concordance, lambda a, b: gap_lag(a, b, 25)):
        with pytest.raises(ValueError, match="60 frames, truth 59"): f(x, x[1:])
    for a, b, who in ((still, x, "the prediction never moves"), (x, still, "the truth never moves"), (still, still, "the prediction and the truth never moves")):
        for f in (gap_correlation, lambda a, b: gap_lag(a, b, 25)):
            with pytest.raises(ValueError, match=who): f(a, b)
    with pytest.raises(ValueError, match="nothing to agree with"): gap_concordance(x, still)
    with pytest.raises(ValueError, match="21 frames are too few to try shifts of 10: give at least 22"): gap_lag(x[:21], x[:21], 25)
    ramp = torch.arange(60.)**2
    with pytest.raises(ValueError, match="the largest shift tried: widen"): gap_lag(ramp, -ramp, 25)
    with pytest.raises(ValueError, match="inner is empty|vertex 41"): replace(MASKS, inner=(0, 41))
    with pytest.raises(ValueError, match="no clip was added"): MotionMeter(MASKS, 25).scores()
    with pytest.raises(ValueError, match="39 vertices, masks 'test' are for 40"): MotionMeter(MASKS, 25).add(pred[:, 1:], truth[:, 1:], rest[1:])
    with pytest.raises(ValueError, match="cannot be added"): MotionMeter(MASKS, 25)+MotionMeter(MASKS, 30)
    s = MotionMeter(MASKS, 25).add(pred, truth, rest).scores()
    with pytest.raises(ValueError, match="masks differ"): s.table(a=s, b=replace(s, masks="another"))


def test_a_refused_clip_leaves_the_meter_as_it_was():
    pred, truth, rest = clip()
    meter = MotionMeter(MASKS, 25).add(pred, truth, rest)
    before = meter.scores()
    with pytest.raises(ValueError, match="too few"): meter.add(pred[:10], truth[:10], rest)
    assert meter.scores() == before


@pytest.mark.parametrize("slope", [1., -1., .1, 1e-3])
def test_straight_lines_have_no_lag(slope):
    "Every shift of a line agrees as well as any other."
    ramp = torch.arange(64.)
    with pytest.raises(ValueError, match="all 21 shifts agree alike .*: straight lines have no lag; give curves that open and close"): gap_lag(slope*ramp, slope*ramp+1, 25)
    rest = clip()[2]
    opens = rest.repeat(64, 1, 1)
    opens[:, 3] = opens[:, 8]+.001*ramp[:, None]*torch.tensor([0., 1., 0.])
    s = MotionMeter(MASKS, 25).add(opens, opens, rest).scores()
    assert s.gap_lag_ms is None and abs(s.gap_correlation-1) < 1e-6


def test_rates_and_reaches_are_positive(unchecked):
    x = torch.randn(64, generator=seeded(0))
    for f in (lambda fps, reach: gap_lag(x, x, fps, reach), lambda fps, reach: MotionMeter(MASKS, fps, reach)):
        for fps in (0, 0., -25., math.nan, math.inf):
            with pytest.raises(ValueError, match=f"fps={fps:g}: give the frame rate in Hz, above 0"): f(fps, .4)
        for reach in (0., -.4, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"reach={reach:g}: give the largest shift in seconds, above 0"): f(25, reach)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_curve_with_holes_is_not_called_still(bad):
    x = torch.randn(64, generator=seeded(0))
    y = x.clone()
    y[5] = y[9] = bad
    for f in (mod, gap_correlation, gap_concordance, lambda a, b: gap_lag(a, b, 25)):
        with pytest.raises(ValueError, match=f"the prediction has 2 of 64 values that are not finite, the first {bad:g} at frame 5: leave those frames out of both"): f(y, x)
        with pytest.raises(ValueError, match="the truth has 2 of 64 values"): f(x, y)


@pytest.mark.parametrize("vertex", [3, 5, 30])
def test_one_broken_value_does_not_spoil_a_test_set(vertex):
    pred, truth, rest = clip()
    meter = MotionMeter(MASKS, 25).add(pred, truth, rest)
    before = meter.scores()
    for k, who in enumerate(("prediction", "truth", "rest")):
        broken = [x.clone() for x in (pred, truth, rest)]
        broken[k][..., vertex, 1] = math.nan
        many = 1 if who == "rest" else 60
        if who == "rest" and vertex < 20: continue           # the rest counts under the upper mask only
        said = f"the {who} has 60 of 60 values that are not finite.*leave" if vertex in MASKS.inner else f"mve.* would not be finite: {many} values of the {who} are not; leave"
        if who == "rest": said = "^fdd, fdd_abs would not be finite: 1 values of the rest are not; leave"
        with pytest.raises(ValueError, match=said): meter.add(*broken)
    assert meter.scores() == before


def test_masks_come_from_a_rig():
    from talkinglab.face.sculpt import sculpt_head
    rig = sculpt_head()
    m = Masks.of(rig, "sculpt")
    assert set(m.eyes.tolist()) <= set(m.upper.tolist()) <= set(m.face.tolist()) and not set(m.upper.tolist()) & set(m.lips.tolist())
    assert m.inner == tuple(rig.landmarks[[62, 66]].tolist()) and m.v == len(rig.vertices)
    with pytest.raises(ValueError, match="no landmarks"): Masks.of(replace(rig, landmarks=None), "x")
    with pytest.raises(ValueError, match=r"no region \['lips'\]"): Masks.of(replace(rig, regions={k: v for k, v in rig.regions.items() if k != "lips"}), "x")


def test_measures_have_gradients_and_a_meter_keeps_none():
    pred, truth, rest = clip()
    pred.requires_grad_()
    (lve(pred, truth, MASKS.lips)+mve(pred, truth, MASKS.face)+dynamics_error(pred, truth, MASKS.upper)).backward()
    assert pred.grad.isfinite().all() and pred.grad.abs().sum() > 0
    assert not MotionMeter(MASKS, 25).add(pred, truth, rest).shares.requires_grad


def test_table_is_markdown():
    assert table([["a", 1.5, None, 2], ["b|c", 1e-9, float("nan"), "x"]], ["", "p", "q", "r"]).splitlines() == [
        "|  | p | q | r |", "| --- | ---: | ---: | ---: |", "| a | 1.5 | – | 2 |", "| b\\|c | 0.000 | nan | x |"]


# ---- codes ----

def world(n=900, seed=0):
    g = seeded(seed)
    causes = {"jaw": torch.rand(n, generator=g), "size": torch.randn(n, generator=g), "mood": torch.randint(3, (n,), generator=g)}
    pure = torch.stack([c.float() for c in causes.values()], 1)
    pure = (pure-pure.mean(0))/pure.std(0)
    return causes, pure, torch.randn(n, 3, generator=g)


@pytest.fixture(scope="module")
def scores():
    causes, pure, noise = world()
    spin = torch.linalg.qr(torch.randn(3, 3, generator=seeded(7))).Q
    codes = dict(perfect=torch.cat([pure, noise], 1), rotated=torch.cat([pure@spin, noise], 1), twice=torch.cat([pure, -2*pure+1], 1), noise=torch.cat([noise, noise.flip(0)], 1))
    return {k: disentangle(z, causes) for k, z in codes.items()}


def test_a_perfect_code_is_perfect(scores):
    s = scores["perfect"]
    assert s.dci.disentanglement > .98 and s.dci.completeness > .98 and s.dci.informativeness > .99
    assert s.mig.best == s.sap.best == {"jaw": 0, "size": 1, "mood": 2}
    assert s.mig.score > .8 and s.sap.factors["jaw"] > .98 and abs(s.sap.factors["mood"]-2/3) < .06 # a blind guess is one third


def test_a_rotated_code_knows_everything_and_keeps_nothing_apart(scores):
    s = scores["rotated"]
    assert s.dci.informativeness > .85 and s.dci.disentanglement < .6 and s.mig.score < .3 and s.sap.score < .6


def test_a_duplicated_code_has_no_gap_and_full_disentanglement(scores):
    s = scores["twice"]
    assert s.mig.score < 1e-6 and s.sap.score < .02 and s.dci.disentanglement > .98 and .55 < s.dci.completeness < .9


def test_noise_scores_nothing(scores):
    s = scores["noise"]
    assert all(x < .12 for x in (s.mig.score, s.sap.score, s.dci.disentanglement, s.dci.informativeness))


def test_scores_lie_between_nought_and_one_and_the_table_holds_them(scores):
    for s in scores.values(): assert all(0 <= x <= 1 for x in s.row().values())
    assert scores["noise"].table(twice=scores["twice"]).startswith("|  | this | twice |")
    text = scores["noise"].table(**scores)
    assert text.splitlines()[0] == "|  | perfect | rotated | twice | noise |" and len(text.splitlines()) == 7


def test_the_same_generator_gives_the_same_scores():
    causes, pure, noise = world(120)
    z = torch.cat([pure, noise], 1)
    rows = [disentangle(z, causes, generator=seeded(s)).row() for s in (3, 3, 4)]
    assert rows[0] == rows[1] and disentangle(z, causes).row() == disentangle(z, causes).row()
    assert rows[2]["MIG"] == rows[0]["MIG"]                   # nothing random in it


@few
@given(st.integers(0, 999))
def test_mig_is_blind_to_order_and_to_rising_distortions(seed):
    causes, pure, noise = world(200, seed)
    z = torch.cat([pure, noise], 1).double()
    turn = torch.randperm(6, generator=seeded(seed))
    a = mig(z, causes)
    assert_close(mig(z[:, turn], causes).score, a.score, rtol=1e-6, atol=1e-9)
    assert_close(mig(z.tanh()*5+2, causes).score, a.score, rtol=1e-6, atol=1e-9)
    assert_close(mig(-z, {k: v for k, v in causes.items() if k == "mood"}).score, mig(z, {"mood": causes["mood"]}).score, rtol=0, atol=.06)


def test_mutual_information_of_a_full_design_is_exact():
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(3))
    bits = mutual_information(grid.double(), {"a": grid[:, 0], "b": grid[:, 1]})
    assert_close(bits, torch.tensor([[2., 0], [0, math.log2(3)]]).to(bits), atol=1e-6, rtol=0)


@pytest.mark.parametrize("people", [2, 20, 21, 40, 300])
def test_classes_are_never_binned(people):
    "Bins are for amounts: who of 40 people it was is 5.32 bits, with 20 bins too."
    who = torch.arange(20*people) % people
    codes = torch.stack([who, torch.zeros_like(who)], 1)
    assert_close(mutual_information(codes, {"who": who})[:, 0], torch.tensor([math.log2(people), 0.]), rtol=1e-5, atol=1e-5)
    gap = mig(codes, {"who": who})
    assert abs(gap.score-1) < 1e-6 and gap.best == {"who": 0}
    assert_close(mutual_information(codes.double(), {"who": who})[0, 0].item(), math.log2(min(people, 20)), rtol=2e-2, atol=0) # a code of floats is an amount
    assert abs(mig(codes.double(), {"who": who}).score-math.log2(min(people, 20))/math.log2(people)) < 2e-2


def test_mutual_information_of_gaussians_has_its_closed_form():
    g = seeded(0)
    x, e = torch.randn(2, 40000, generator=g)
    bits = mutual_information((.8*x+.6*e)[:, None], {"x": x}, bins=40)
    assert_close(bits[0, 0].item(), -.5*math.log2(1-.64), rtol=.06, atol=0)


@quick
@given(st.integers(2, 7), st.integers(2, 6), st.integers(0, 999))
def test_dci_of_a_matrix_is_its_entropies(d, k, seed):
    r = torch.rand(d, k, generator=seeded(seed), dtype=torch.float64)
    m = DCI(r, dict.fromkeys(map(str, range(k)), 1.))
    p, q = (r/r.sum(1, keepdim=True)).numpy(), (r/r.sum(0)).numpy()
    rows, columns = 1+(p*np.log(p)).sum(1)/math.log(k), 1+(q*np.log(q)).sum(0)/math.log(d)
    use = (r.sum(1)/r.sum()).numpy()
    assert abs(m.disentanglement-(rows*use).sum()) < 1e-9 and abs(m.completeness-columns.mean()) < 1e-9
    turn = torch.randperm(d, generator=seeded(seed))
    assert abs(DCI(r[turn], m.told).disentanglement-m.disentanglement) < 1e-12


def test_dead_numbers_do_no_harm():
    m = DCI(torch.eye(3), dict.fromkeys("abc", 1.))
    padded = DCI(torch.cat([torch.eye(3), torch.zeros(4, 3)]), m.told)
    assert m.disentanglement == padded.disentanglement == 1 and padded.completeness == 1
    causes, pure, _ = world(300)
    z = torch.cat([pure, torch.full((300, 2), 7.)], 1)
    s = disentangle(z, causes)
    assert s.dci.disentanglement > .95 and torch.equal(s.sap.matrix[3:], torch.zeros(2, 3)) and torch.isfinite(s.mig.matrix).all()


def test_lasso_reads_straight_relations_only():
    causes, pure, noise = world(600)
    bent = torch.cat([pure[:, :2]**2, noise[:, :1]], 1)
    two = {k: causes[k] for k in ("jaw", "size")}
    assert dci(bent, {"jaw": (causes["jaw"]-.5)**2, "size": causes["size"]**2}, lasso).informativeness > .95
    assert dci(bent, two, lasso).informativeness < .1 and dci(bent, two, forest).told["size"] < .2 # the sign is gone for anybody


def test_sap_of_mixed_noise_is_the_squared_correlation():
    x, e, f = torch.randn(3, 20000, generator=seeded(5))
    assert abs(sap(torch.stack([x+e, f], 1), {"x": x}).score-.5) < .015


def test_scores_refuse_with_numbers_and_remedies(unchecked):
    causes, pure, noise = world(60)
    for f in (mig, sap, dci):
        with pytest.raises(ValueError, match="factor 'jaw' has 60 samples, the codes 59"): f(pure[1:], causes)
        with pytest.raises(ValueError, match="factor 'x' is always 3"): f(pure, {**causes, "x": torch.full((60,), 3)})
        with pytest.raises(ValueError, match="1 code: a gap needs a runner-up"): f(pure[:, :1], causes)
        with pytest.raises(ValueError, match="2 code values are not finite"): f(torch.cat([pure, torch.tensor([[math.nan, math.inf, 0.]])]), {k: torch.cat([v, v[:1]]) for k, v in causes.items()})
        with pytest.raises(ValueError, match="no factors"): f(pure, {})
    with pytest.raises(ValueError, match="only the factor 'jaw'"): dci(pure, {"jaw": causes["jaw"]})


def test_too_few_samples_are_refused_with_counts(unchecked):
    causes, pure, _ = world(60)
    for f, least in ((mig, 2), (sap, 4), (dci, 8), (lambda z, v: dci(z, v, lasso), 8), (disentangle, 2)):
        for n in range(least):
            with pytest.raises(ValueError, match=f"{n} samples are too few: give at least {least}"): f(pure[:n], {"jaw": causes["jaw"][:n], "mood": torch.arange(n) % 2})
    for n in (8, 9, 20): # the least is enough
        for expert in (forest, lasso): assert all(0 <= x <= 1 for x in disentangle(pure[:n], {"jaw": causes["jaw"][:n], "mood": torch.arange(n) % 2}, expert=expert).row().values())


def test_a_class_that_cannot_both_teach_and_be_tried_is_refused():
    causes, pure, _ = world(60)
    lonely = torch.zeros(60, dtype=torch.long)
    lonely[7] = 5
    with pytest.raises(ValueError, match="factor 'who': class 5 has 1 of 60 samples, which cannot both teach and be tried: leave it out, or give at least 2"): sap(pure, {"jaw": causes["jaw"], "who": lonely})
    for seed in range(20):
        for expert in (forest, lasso):
            try: dci(pure, {"jaw": causes["jaw"], "who": lonely}, expert, seeded(seed))
            except ValueError as e: assert "factor 'who': 59 of 60 samples are class 0, and all 45 that teach: give more of the others" in str(e)


@few
@given(st.integers(3, 30), st.integers(2, 3), st.integers(0, 99))
def test_every_class_teaches_and_is_tried(classes, each, seed):
    "With two or three samples a class, a code that is the class is still read without loss for two classes, and never raises."
    who = torch.arange(classes*each) % classes
    z = torch.stack([who.double(), torch.randn(len(who), generator=seeded(seed)).double()], 1)
    assert 0 <= sap(z, {"who": who}, seeded(seed)).score <= 1
    two = torch.arange(2*each) % 2
    assert sap(torch.stack([two.double(), torch.zeros(2*each).double()], 1), {"two": two}, seeded(seed)).matrix[0, 0] == 1


# ---- probes ----

def board(people=6, sentences=6, styles=3, repeats=2, seed=0, d=12, strength=1.5):
    "Features of people x sentences x styles; style shifts them, people and sentences add their own."
    who = torch.cartesian_prod(torch.arange(styles), torch.arange(people), torch.arange(sentences)).repeat_interleave(repeats, 0)
    g = seeded(seed)
    of = lambda n, s: s*torch.randn(n, d, generator=g)
    a, b, c = of(styles, strength), of(people, 1.), of(sentences, 1.)
    k, p, s = who.T
    return a[k]+b[p]+c[s]+.5*torch.randn(len(who), d, generator=g), k, p, s


def test_probe_finds_what_is_there_on_strangers():
    x, k, p, s = board()
    found = probe(x, k, {"person": p, "sentence": s}, folds=3)
    assert found.accuracy > .75 and found.low > found.chance == 1/3 and not found.at_chance
    assert len(found.said) == len(x) and (found.said >= 0).all() and found.takes == 108
    assert_close(found.confusion.sum(1), torch.ones(3)) and abs(float(found.confusion.diagonal().mean())-found.accuracy) < 1e-6
    assert "chance 33.3%" in str(found)


def test_probe_finds_nothing_where_nothing_is():
    x, k, p, s = board(strength=0.)
    assert probe(x, k, {"person": p, "sentence": s}, folds=3).at_chance
    assert probe(torch.randn(len(x), 5, generator=seeded(1)), p, {"sentence": s}).at_chance


def test_what_is_tried_never_shares_a_group_with_what_teaches(monkeypatch):
    from sklearn.linear_model import LogisticRegression
    x, k, p, s = board(4, 4)
    row = {tuple(r.tolist()): i for i, r in enumerate((x-x.mean(0)).double())}
    taught, tried = [], []
    x = x-x.mean(0)
    monkeypatch.setattr("sklearn.preprocessing.StandardScaler.fit_transform", lambda self, a, y=None, **kw: a)
    monkeypatch.setattr("sklearn.preprocessing.StandardScaler.transform", lambda self, a, **kw: a)
    fit, predict = LogisticRegression.fit, LogisticRegression.predict
    monkeypatch.setattr(LogisticRegression, "fit", lambda self, a, y, **kw: (taught.append(a), fit(self, a, y, **kw))[1])
    monkeypatch.setattr(LogisticRegression, "predict", lambda self, a: (tried.append(a), predict(self, a))[1])
    probe(x, k, {"person": p, "sentence": s}, folds=2)
    at = lambda a: torch.tensor([row[tuple(r)] for r in a.tolist()])
    assert len(taught) == len(tried) == 4
    for a, b in zip(map(at, taught), map(at, tried)):
        for g in (p, s): assert not set(g[a].tolist()) & set(g[b].tolist())
    assert sorted(torch.cat([at(b) for b in tried]).tolist()) == list(range(len(x)))


def test_probe_is_deterministic_and_blind_to_scale():
    x, k, p, s = board(4, 4)
    a, b = (probe(z, k, {"person": p, "sentence": s}, folds=2, generator=seeded(2)) for z in (x, 1000*x-5))
    assert torch.equal(a.said, b.said) and (a.low, a.high) == (b.low, b.high)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    "Coin tosses with a known rate, in groups that go together."
    from talkinglab.measure.disentangle import _interval
    g, held = seeded(0), 0
    for _ in range(60):
        rate = (.7+.12*torch.randn(12, generator=g)).clamp(0, 1).repeat_interleave(10)
        right = (torch.rand(120, generator=g) < rate).float()
        low, high = _interval(right, {"g": torch.arange(12).repeat_interleave(10)}, 12, g, 200)
        held += low <= .7 <= high
    assert held >= 54
    assert _interval(torch.ones(50), {"g": torch.arange(50)}, 50, g)[0] < .95 # all right is not certainty


def test_probe_refuses_with_numbers_and_remedies(unchecked):
    x, k, p, s = board(4, 4)
    for bad, match in ((lambda: probe(x, p, {"person": p}), "cannot be its own group"), (lambda: probe(x, k, {}), "no groups"), (lambda: probe(x, k*0, {"person": p}), "every label is 0"),
                       (lambda: probe(x, k, {"person": p*0}), "all samples are in person 0"), (lambda: probe(x, k[1:], {"person": p}), "'labels' has 95 entries for 96 samples"),
                       (lambda: probe(x*math.nan, k, {"person": p}), "not finite"), (lambda: probe(x, k-1, {"person": p}), "class numbers from 0")):
        with pytest.raises(ValueError, match=match): bad()


def test_probe_refuses_too_little_with_counts(unchecked):
    x, k, p, s = board(4, 4)
    none = x[:0], k[:0], {"person": p[:0]}
    with pytest.raises(ValueError, match="0 samples are too few"): probe(*none)
    with pytest.raises(ValueError, match="1 samples are too few"): probe(x[:1], k[:1], {"person": p[:1]})
    with pytest.raises(ValueError, match="'labels' has 0 entries for 96 samples"): probe(x, k[:0], {"person": p})
    for folds in (1, 0, -2):
        with pytest.raises(ValueError, match=f"folds={folds}: give at least 2, one is tried while the others teach"): probe(x, k, {"person": p}, folds=folds)
    with pytest.raises(ValueError, match="all samples are in person 0: .* give at least 2"): probe(x, k, {"person": p*0})
    person, sentence = torch.cartesian_prod(torch.arange(3), torch.arange(3)).T
    label = ((person == 0) & (sentence == 1) | (person == 1) & (sentence == 2)).long() # both sit out while person 0 is tried with sentence 2
    with pytest.raises(ValueError, match=r"the 4 samples that may teach .*person, sentence.* are all labelled 0: spread"): probe(torch.randn(9, 2, generator=seeded(0)), label, {"person": person, "sentence": sentence})


@quick
@given(st.floats(.1, 9), st.integers(2, 60), st.integers(0, 99))
def test_motion_features_know_no_order_and_scale(k, frames, seed):
    x = torch.randn(frames, 4, generator=seeded(seed), dtype=torch.float64)
    f = motion_features(x, 25)
    assert f.shape == (24,) and f.isfinite().all()
    assert_close(motion_features(x.flip(0), 25), f)
    assert_close(motion_features(k*x, 25), k*f)
    assert_close(motion_features(x, 50)[16:], 2*f[16:])


def test_motion_features_of_a_wave_are_known():
    t = torch.arange(1000, dtype=torch.float64)/100
    f = motion_features((torch.pi*2*t).sin()[:, None], 100)
    assert_close(f[:2], torch.tensor([0., math.sqrt(.5)]).double(), atol=1e-3, rtol=0)
    assert abs(f[4]-4) < .02                                 # mean speed of a sine at 1 Hz: 4 amplitudes a second
    with pytest.raises(ValueError, match="1 frames have no speed"): motion_features(torch.zeros(1, 3), 25)
