"The laws of chapter 02: three clocks, one zero."
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from talkinglab.core.clock import frame_count, frame_times, resample_features, windows

rates = st.sampled_from([24., 25., 30000/1001, 30., 50., 60., 86.1328125, 100.])
quick = settings(max_examples=80, deadline=None)


@quick
@given(st.integers(1, 10**8), st.sampled_from([8000, 16000, 22050, 44100, 48000]), rates)
def test_frames_cover_the_sound_and_no_more(samples, rate, fps):
    seconds = samples/rate
    n = frame_count(seconds, fps)
    assert n >= 1 and n/fps >= seconds-1e-6 and (n == 1 or (n-1)/fps < seconds)


@quick
@given(st.integers(1, 10**6), rates)
def test_whole_frames_stay_whole(n, fps):
    assert frame_count(n/fps, fps) == n


@quick
@given(st.integers(1, 500), rates)
def test_frame_times_lie_in_the_middle_of_their_frames(n, fps):
    t = frame_times(n, fps)
    assert len(t) == n
    assert_close(t*fps-torch.arange(n), torch.full((n,), 0.5), atol=1e-3, rtol=0)


@quick
@given(st.integers(10, 400), rates, rates)
def test_a_resampled_clock_is_the_other_clock(n, fps_in, fps):
    out = resample_features(frame_times(n, fps_in)[:, None], fps_in, fps)[:, 0]
    t = frame_times(len(out), fps).clamp(0.5/fps_in, (n-0.5)/fps_in)  # Beyond the first and last centre, values hold
    assert_close(out, t, atol=1e-5, rtol=1e-5)


@quick
@given(st.integers(2, 50), rates, rates, st.integers(1, 80))
def test_resampling_stays_between_its_inputs(n, fps_in, fps, wanted):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(n))
    y = resample_features(x, fps_in, fps, wanted)
    assert y.shape == (wanted, 3) and y.dtype == x.dtype
    assert (y <= x.max(0).values+1e-6).all() and (y >= x.min(0).values-1e-6).all()
    assert_close(resample_features(x, fps_in, fps_in), x)


def test_resampling_is_linear_and_differentiable():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 40, 3, generator=g, dtype=torch.float64)
    f = lambda x: resample_features(x, 50., 30.)
    assert_close(f(2*x-y), 2*f(x)-f(y))
    assert torch.autograd.gradcheck(f, x[:5].clone().requires_grad_())


def test_three_hours_in_the_clock_is_still_exact():
    n = 3*3600*50
    x = torch.arange(n, dtype=torch.float64)[:, None]
    last = resample_features(x, 50., 30000/1001)[-20:, 0]
    count = round(n*30000/1001/50)
    expect = (torch.arange(count-20, count, dtype=torch.float64)+0.5)*50*1001/30000-0.5
    assert_close(last, expect.clamp(max=n-1), atol=1e-6, rtol=0)


def test_tiny_features_still_give_a_frame():
    assert resample_features(torch.zeros(2, 4), 100., 24.).shape == (1, 4)


@quick
@given(st.integers(1, 30), st.integers(0, 8))
def test_windows_hold_neighbours_and_repeat_the_ends(n, radius):
    x = torch.arange(float(n))[:, None]
    w = windows(x, radius)[..., 0]
    assert w.shape == (n, 2*radius+1)
    expect = (torch.arange(n)[:, None]+torch.arange(-radius, radius+1)).clamp(0, n-1).float()
    assert torch.equal(w, expect)


def test_totals_never_drift_where_chunks_do():
    "The cure of chapter 02: a streamed film is as long as one made in one go."
    for fps in (25., 30000/1001, 30.):
        total = [math.floor((k+1)*0.1*fps+1e-6) for k in range(36_000)]
        assert abs(total[-1]-frame_count(3600., fps)) <= 1


@pytest.mark.parametrize("call, says", [
    (lambda: frame_count(0., 25.), "no sound"), (lambda: frame_count(math.nan, 25.), "no sound"), (lambda: frame_count(1., 0.), "fps=0"),
    (lambda: frame_times(3, -1.), "fps=-1"), (lambda: resample_features(torch.zeros(1, 2), 50., 25.), "1 feature frames"),
    (lambda: resample_features(torch.zeros(9, 2), 50., 0.), "positive"), (lambda: windows(torch.zeros(3, 1), -1), "radius=-1")])
def test_impossible_clocks_are_refused(call, says):
    with pytest.raises(ValueError, match=says): call()
