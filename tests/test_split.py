"No frame serves twice, no window reaches across, and every batch is a function of its number."
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from talkinglab.measure.split import IncrementalSampling, Split, by_group, few_shot, frame_batches, tenths

often = settings(deadline=None, max_examples=40)
NONE = torch.arange(0)


def apart(s: Split) -> bool: return len(torch.cat([s.train, s.val, s.test]).unique()) == len(s.train)+len(s.val)+len(s.test)


def touches(s: Split, radius: int) -> bool:
    "Does a window around a test frame hold a frame that was used?"
    near = s.test[:, None]+torch.arange(-radius, radius+1)
    return bool(torch.isin(near, torch.cat([s.train, s.val])).any())


@often
@given(st.integers(2, 2000), st.floats(.04, 30), st.floats(.04, 30), st.sampled_from([12.5, 24., 25., 29.97, 50.]), st.integers(0, 30))
def test_few_shot_never_overlaps_and_keeps_its_gap(frames, seconds, tail, fps, gap):
    try: s = few_shot(frames, fps, seconds, tail, gap)
    except ValueError as e:
        assert str(frames) in str(e)
        return
    assert apart(s) and s.train[0] == 0 and s.test[-1] == frames-1 and s.margin >= gap
    assert not touches(s, gap) and touches(s, s.margin+1)
    assert not len(s.val) or (s.val[0]-s.train[-1] == gap+1 and s.test[0]-s.val[-1] == gap+1)
    assert s.guarded(gap) is s


@often
@given(st.integers(2, 3000), st.integers(0, 20))
def test_tenths_never_overlap(n, gap):
    try: s = tenths(n, gap)
    except ValueError as e:
        assert f"{n} frames" in str(e)
        return
    assert apart(s) and not touches(s, gap) and s.margin == gap and len(s.train) == n*10//11


@often
@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6)))
def test_groups_stay_together(labels, test, val):
    there = set(labels)
    test, val = test & there, (val-test) & there
    if not test or not there-test-val: return
    s = by_group(labels, sorted(test), sorted(val))
    on = lambda part: {labels[i] for i in part.tolist()}
    assert on(s.test) == test and on(s.val) == val and on(s.train) == there-test-val
    assert apart(s) and len(s.train)+len(s.val)+len(s.test) == len(labels)


@often
@given(st.sets(st.integers(0, 80), min_size=1), st.sets(st.integers(0, 80)), st.sets(st.integers(0, 80), min_size=1))
def test_a_split_exists_exactly_where_nothing_overlaps(train, val, test):
    parts = [torch.tensor(sorted(x), dtype=torch.long) for x in (train, val, test)]
    if train & val or train & test or val & test:
        with pytest.raises(ValueError, match="take them out of one"): Split(*parts)
    else:
        s = Split(*parts)
        assert apart(s) and not touches(s, s.margin) and (s.margin > 100 or touches(s, s.margin+1))


def test_a_split_in_any_order_is_the_same():
    s = Split(torch.tensor([4, 1, 0], dtype=torch.int32), NONE, torch.tensor([9, 7]))
    assert s.train.tolist() == [0, 1, 4] and s.test.tolist() == [7, 9] and s.train.dtype == torch.long and s.margin == 2


def test_the_published_protocols():
    assert [len(few_shot(3000, 25., s).train) for s in (5., 10., 15., 20.)] == [125, 250, 375, 500]
    assert few_shot(3000, 25., 5.).test.tolist() == list(range(2700, 3000))
    s = tenths(8000)
    assert (len(s.train), len(s.val), len(s.test)) == (7272, 0, 728)


@pytest.mark.parametrize(("make", "says"), [
    (lambda: few_shot(300, 25., 10.), "300 frames: 10 s to learn from, 12 s to test and a gap of 8 need 558; tail=1.6"),
    (lambda: few_shot(300, 25., 20.), "only 12 s long"),
    (lambda: few_shot(300, 25., 1., gap=-1), "gap=-1"),
    (lambda: few_shot(300, 25., 0.), "seconds=0"),
    (lambda: few_shot(1000, 25., 10.).guarded(9), "only 8 frames lie .* leave a gap of 9"),
    (lambda: tenths(11, gap=1), "at least one must remain"),
    (lambda: Split(NONE, NONE, torch.arange(3)), "train is empty"),
    (lambda: Split(torch.tensor([0, 0]), NONE, torch.tensor([1])), "twice in train"),
    (lambda: Split(torch.tensor([0]), NONE, torch.tensor([-3])), "test holds -3"),
    (lambda: by_group(["a", "b"], ["c"]), "'c': there are 'a', 'b'"),
    (lambda: by_group(["a", "b", "c"], ["a"], ["a"]), "in test and in val"),
    (lambda: by_group(["a", "a"], ["a"]), "train is empty"),
    (lambda: frame_batches([]), "no items"),
    (lambda: IncrementalSampling(torch.tensor([0., float("nan")])), "1 of 2"),
    (lambda: IncrementalSampling(torch.zeros(3), start=0.), "start=0"),
    (lambda: IncrementalSampling(torch.zeros(3))(-1), "it=-1"),
])
def test_refusals_name_the_number_and_the_remedy(make, says):
    with pytest.raises(ValueError, match=says): make()


def test_a_name_is_one_label_and_not_its_letters():
    assert by_group(["Ann", "Bob"], "Bob").test.tolist() == [1] == by_group(torch.tensor([4, 7]), [7]).test.tolist()


@often
@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 300))
def test_a_batch_is_a_function_of_its_number(n, seed, start):
    items = [("clip", k) for k in range(n)]
    one, other = frame_batches(items, seed), frame_batches(items, seed)
    other(start)                                                        # what was drawn before does not matter
    epoch = start//n*n
    assert {one(k) for k in range(epoch, epoch+n)} == set(items)        # everyone once an epoch
    assert [one(k) for k in range(start, start+9)] == [other(k) for k in reversed(range(start, start+9))][::-1]


def test_processes_share_an_epoch():
    draw = frame_batches(torch.arange(100, 124), seed=2)
    shares = [[draw(4*step+rank) for step in range(6)] for rank in range(4)]
    assert sorted(sum(shares, [])) == list(range(100, 124))
    assert [draw(k) for k in range(24)] != [frame_batches(torch.arange(100, 124), seed=3)(k) for k in range(24)]


@often
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=80), st.floats(.01, 1), st.integers(1, 50), st.floats(0, 1))
def test_a_window_is_never_empty_and_only_moves_up(openness, start, steps, slide):
    x = torch.tensor(openness)
    s = IncrementalSampling(x, start, steps, slide)
    drawn = [x[s(it)] for it in range(steps)]
    assert all(len(d) for d in drawn) and torch.equal(s(steps), torch.arange(len(x)))
    for a, b in zip(drawn, drawn[1:]): assert a.min() <= b.min() and a.max() <= b.max()
    assert torch.equal(s(steps//2), IncrementalSampling(x, start, steps, slide)(steps//2))
    assert (s(steps-1).diff() > 0).all()
