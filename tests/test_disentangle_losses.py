"Contrast between people's motions: closed forms, bounds, invariances, who learns, and what is refused."
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from talkinglab.nn.disentangle import negative_contrast, similarity_contrast
from torch.testing import assert_close

READINGS = ["gaussian", "flat"]


def motions(n=12, i=5, seed=0, dtype=torch.float64):
    "A general motion and those of i people, a few millimetres."
    g = torch.Generator().manual_seed(seed)
    return 3e-3*torch.randn(n, 3, generator=g, dtype=dtype), 3e-3*torch.randn(i, n, 3, generator=g, dtype=dtype)


def turn(seed=0):
    return torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q


def similarity_by_definition(general, individuals, own, t, per):
    "Word by word: exp over sum of exp, in plain Python numbers."
    def angle(a, b): return (a@b/(a.norm()*b.norm())).item()
    def loss(g, each):
        e = [math.exp(angle(g, x)/t) for x in each]
        return -math.log(e[own]/sum(e))
    if per == "flat": return loss(general.flatten(), individuals.flatten(1))
    return sum(loss(general[j], individuals[:, j]) for j in range(len(general)))/len(general)


@pytest.mark.parametrize("per", READINGS)
@pytest.mark.parametrize("t", [.1, .5])
def test_similarity_is_its_definition_in_both_readings(per, t):
    general, people = motions()
    for own in range(5): assert_close(similarity_contrast(general, people, own, t, per).item(), similarity_by_definition(general, people, own, t, per), rtol=1e-9, atol=1e-9)


def test_negative_is_its_definition():
    own, others = motions(i=4)
    total = sum(max(0., (own[n]@others[i, n]).item()*1e6) for n in range(12) for i in range(4))/12
    assert_close(negative_contrast(own, others).item(), total)


def test_the_readings_differ_and_meet_at_one_gaussian():
    general, people = motions()
    assert abs(similarity_contrast(general, people, 1)-similarity_contrast(general, people, 1, per="flat")) > 1e-2
    assert_close(similarity_contrast(general[:1], people[:, :1], 1), similarity_contrast(general[:1], people[:, :1], 1, per="flat"))


def test_the_default_reading_is_per_gaussian_at_a_tenth():
    general, people = motions()
    assert similarity_contrast(general, people, 1) == similarity_contrast(general, people, 1, temperature=.1, per="gaussian")


@pytest.mark.parametrize("per", READINGS)
def test_indifference_costs_log_n_and_one_person_alone_nothing(per):
    general, people = motions()
    for i in (2, 5, 9):
        same = people[:1].expand(i, -1, -1)
        assert_close(similarity_contrast(general, same, i-1, per=per).item(), math.log(i))
        assert_close(similarity_contrast(torch.zeros_like(general), torch.zeros_like(same), 0, per=per).item(), math.log(i))
    assert similarity_contrast(general, people[:1], 0, per=per) == 0
    assert negative_contrast(general, people[:0]) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.floats(.05, 2), st.integers(0, 99), st.sampled_from(READINGS))
def test_similarity_stays_between_its_bounds(i, t, seed, per):
    general, people = motions(4, i, seed)
    low, high = math.log1p((i-1)*math.exp(-2/t)), math.log1p((i-1)*math.exp(2/t))
    assert low-1e-6 <= similarity_contrast(general, people, i-1, t, per).item() <= high+1e-6
    best = torch.cat([-general.expand(i-1, -1, -1), general[None]])
    assert_close(similarity_contrast(general, best, i-1, t, per).item(), low, atol=1e-9, rtol=1e-9)
    assert_close(similarity_contrast(general, -best, i-1, t, per).item(), high, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("per", READINGS)
def test_similarity_sees_directions_only(per):
    general, people = motions()
    lengths = torch.tensor([.5, 1, 2, 4, 8], dtype=torch.float64)[:, None, None]
    assert_close(similarity_contrast(3*general, lengths*people, 2, per=per), similarity_contrast(general, people, 2, per=per))


def test_every_gaussian_may_have_its_own_length_only_where_each_has_its_own_angle():
    general, people = motions()
    lengths = torch.rand(12, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)+.5
    of = lambda p, per: similarity_contrast(general, p, 2, per=per)
    assert_close(of(lengths*people, "gaussian"), of(people, "gaussian"))
    assert abs(of(lengths*people, "flat")-of(people, "flat")) > 1e-3


def test_what_hardly_moves_votes_less_the_larger_eps_is():
    general, people = motions(2, 3)
    general[1], people[:, 1] = 1e-6*general[1], 1e-6*people[:, 1]        # nanometres
    deaf = similarity_contrast(general, people, 1, eps=1e-5)
    assert_close(deaf, (similarity_contrast(general[:1], people[:, :1], 1)+math.log(3))/2, atol=1e-5, rtol=0)
    assert abs(similarity_contrast(general, people, 1, eps=1e-12)-deaf) > 1e-2


def test_negative_grows_with_both_lengths_and_with_the_inverse_square_of_its_unit():
    own, others = motions()
    one = negative_contrast(own, others)
    assert_close(negative_contrast(2*own, 3*others), 6*one)
    assert_close(negative_contrast(own, others, unit=2e-3), one/4)


@pytest.mark.parametrize("seed", range(3))
def test_turning_the_head_changes_nothing(seed):
    (general, people), r = motions(seed=seed), turn(seed)
    for per in READINGS: assert_close(similarity_contrast(general@r, people@r, 0, per=per), similarity_contrast(general, people, 0, per=per))
    assert_close(negative_contrast(general@r, people@r), negative_contrast(general, people))


@pytest.mark.parametrize("per", READINGS)
def test_the_order_of_gaussians_and_of_other_people_does_not_matter(per):
    general, people = motions()
    assert_close(similarity_contrast(general.flip(0), people.flip(0, 1), 4, per=per), similarity_contrast(general, people, 0, per=per))
    assert_close(negative_contrast(general.flip(0), people.flip(0, 1)), negative_contrast(general, people))


def test_opposite_and_sideways_motion_is_no_agreement():
    own, _ = motions()
    sideways = torch.linalg.cross(own, motions(seed=1)[0])*1e3
    assert negative_contrast(own, torch.stack([-own, -2*own])) == 0
    assert negative_contrast(own, sideways[None]).abs() < 1e-12
    assert_close(negative_contrast(own, own[None]), own.square().sum(-1).mean()*1e6)


@pytest.mark.parametrize("per", READINGS)
def test_gradients_reach_the_general_and_the_own_motion_only(per):
    general, people = (x.requires_grad_() for x in motions())
    similarity_contrast(general, people, 3, per=per).backward()
    assert (general.grad != 0).all()
    assert (people.grad != 0).flatten(1).any(1).tolist() == [False, False, False, True, False]
    own, others = (x.requires_grad_() for x in motions())
    negative_contrast(own, others).backward()
    assert (own.grad != 0).any() and others.grad is None


@pytest.mark.parametrize("per", READINGS)
def test_similarity_turns_motion_and_never_shortens_it(per):
    general, people = (x.requires_grad_() for x in motions())
    similarity_contrast(general, people, 3, per=per).backward()
    over = -1 if per == "gaussian" else None
    for x, grad in ((general, general.grad), (people[3], people.grad[3])): assert_close((x*grad).sum(over), torch.zeros_like((x*grad).sum(over)), atol=1e-12, rtol=0)


def test_the_gradient_of_negatives_is_what_the_agreeing_others_do():
    own, others = motions()
    own.requires_grad_()
    negative_contrast(own, others).backward()
    agree = ((own*others).sum(-1, keepdim=True) > 0)
    assert_close(own.grad, (agree*others).sum(0)*1e6/12)


@pytest.mark.parametrize("per", READINGS)
def test_gradients_are_those_of_finite_differences(per):
    general, people = motions(3, 3)
    own = people[1].clone()
    of = lambda g, o: similarity_contrast(1e-3*g, torch.stack([people[0], 1e-3*o, people[2]]), 1, 1., per)
    assert torch.autograd.gradcheck(of, ((1e3*general).requires_grad_(), (1e3*own).requires_grad_()))
    assert torch.autograd.gradcheck(lambda o: negative_contrast(1e-3*o, people), ((1e3*own).requires_grad_(),))


@pytest.mark.parametrize("per", READINGS)
def test_fields_that_start_at_rest_have_finite_gradients(per):
    "A last layer of zeros: no direction anywhere, and no nan."
    general, people = (torch.zeros_like(x).requires_grad_() for x in motions(dtype=torch.float32))
    (similarity_contrast(general, people, 0, per=per)+negative_contrast(general, people)).backward()
    assert general.grad.isfinite().all() and people.grad.isfinite().all()


@pytest.mark.parametrize("per", READINGS)
def test_a_step_down_turns_general_and_own_together_and_a_step_of_negatives_parts_people(per):
    general, people = (x.requires_grad_() for x in motions())
    angle = lambda a, b: torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)
    g, p = torch.autograd.grad(similarity_contrast(general, people, 2, per=per), (general, people))
    assert angle(general-1e-9*g, people[2]-1e-9*p[2]) > angle(general, people[2])
    down = torch.autograd.grad(negative_contrast(general, people), general)[0]
    assert negative_contrast(general-1e-9*down, people) < negative_contrast(general, people)


def test_right_is_below_wrong():
    "The person whose motion goes with the general one costs less than any other."
    general, people = motions(30)
    people[2] += general
    for per in READINGS:
        losses = [similarity_contrast(general, people, k, per=per).item() for k in range(5)]
        assert min(losses) == losses[2]


def test_in_space_six_people_can_disagree_about_one_spot_and_the_seventh_agrees_with_one():
    six = 1e-3*torch.cat([torch.eye(3), -torch.eye(3)])[:, None]
    for k in range(6): assert negative_contrast(six[k], torch.cat([six[:k], six[k+1:]])) == 0
    for seed in range(20):
        seventh = torch.nn.functional.normalize(torch.randn(1, 3, generator=torch.Generator().manual_seed(seed)), dim=-1)
        assert negative_contrast(1e-3*seventh, six) > .999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_follows_the_motions(dtype):
    general, people = motions(dtype=dtype)
    for loss in (similarity_contrast(general, people, 0), negative_contrast(general, people)): assert loss.dtype == dtype and loss.shape == ()


def test_negatives_recover_what_belongs_to_nobody_where_the_film_leaves_it_open():
    "Three people, free vectors, a film that shows sums: the shared part moves to the general motion, and the sums stay."
    g = torch.Generator().manual_seed(0)
    shared = 3e-3*torch.randn(6, 3, generator=g)
    habits = 2e-3*torch.eye(3)[:, None].expand(3, 6, 3)-2e-3/3
    def learn(weight):
        general, own = torch.zeros(6, 3, requires_grad=True), torch.zeros(3, 6, 3, requires_grad=True)
        optimizer = torch.optim.Adam([general, own], lr=1.5e-4, fused=True)
        for step in range(90):
            k = step%3
            loss = 1e3*(general+own[k]-shared-habits[k]).abs().mean()+weight*negative_contrast(own[k], own[[j for j in range(3) if j != k]])
            optimizer.zero_grad(); loss.backward(); optimizer.step()
        return general.detach(), own.detach()
    left = []
    for weight in (0., .03):
        general, own = learn(weight)
        assert (general+own-shared-habits).norm()/(shared+habits).norm() < .05
        left.append((own.mean(0).norm()/shared.norm()).item())
    assert left[1] < .75*left[0], left


@pytest.mark.parametrize("call, match", [
    (lambda g, p: similarity_contrast(g, p[:, :4], 0), "12, 3.*5, 4, 3.*same Gaussians"),
    (lambda g, p: similarity_contrast(g, p, 5), "person 5 of 5: count from 0 to 4"),
    (lambda g, p: similarity_contrast(g, p, -1), "person -1"),
    (lambda g, p: similarity_contrast(g, p, 0, temperature=0.), "temperature=0.0 must be positive"),
    (lambda g, p: similarity_contrast(g, p, 0, temperature=math.nan), "temperature=nan"),
    (lambda g, p: similarity_contrast(g, p, 0, per="point"), "'point'.*'gaussian' or 'flat'"),
    (lambda g, p: negative_contrast(g[:1], p), "same Gaussians"),
    (lambda g, p: negative_contrast(g, p, unit=0.), "unit=0.0 m"),
])
def test_nonsense_is_refused_with_its_number(unchecked, call, match):
    with pytest.raises(ValueError, match=match): call(*motions())
