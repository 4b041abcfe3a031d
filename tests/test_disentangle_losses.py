"Losses that draw the line, between people's motions and between codes: closed forms, bounds, invariances, who learns, and what is refused."
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from talkinglab.nn.disentangle import gaussian_kl, info_nce, negative_contrast, orthogonality, reverse_gradient, similarity_contrast, style_cosine, top_k_contrast, unrelated
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


# Codes: what is said and how

def codes(b=2, t=20, d=6, seed=0, dtype=torch.float64):
    "Two sequences of codes that know of each other, and a style a clip."
    g = torch.Generator().manual_seed(seed)
    r = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype)
    a = r(b, t, d)
    return a, a+.5*r(b, t, d), r(b, d)


def top_k_by_definition(a, m, k, tau):
    "Word by word, one clip at a time, in plain Python numbers."
    def one(x, y):
        cos = [[(p@q/(p.norm()*q.norm())).item()/tau for q in y] for p in x]
        lost = 0.
        for i, row in enumerate(cos):
            hard = sorted((s for j, s in enumerate(row) if j != i), reverse=True)[:k]
            lost -= math.log(math.exp(row[i])/(math.exp(row[i])+sum(math.exp(s) for s in hard)))
        return lost/len(x)
    return sum((one(x, y)+one(y, x))/2 for x, y in zip(a, m))/len(a)


@pytest.mark.parametrize("k", [1, 4, 19])
def test_top_k_is_its_definition_both_ways_round(k):
    a, m, _ = codes()
    assert_close(top_k_contrast(a, m, k, .3).item(), top_k_by_definition(a, m, k, .3))
    assert_close(top_k_contrast(a, m, k), top_k_contrast(m, a, k))


def test_top_k_by_default_asks_15_percent_of_the_frames_and_one_at_least():
    a, m, _ = codes()
    assert top_k_contrast(a, m) == top_k_contrast(a, m, k=3) != top_k_contrast(a, m, k=4)
    assert top_k_contrast(a[:, :3], m[:, :3]) == top_k_contrast(a[:, :3], m[:, :3], k=1)
    assert top_k_contrast(a, m, k=99) == top_k_contrast(a, m, k=19)


def test_aligned_costs_less_than_a_frame_late_and_that_less_than_shuffled():
    g = torch.Generator().manual_seed(0)
    slow = torch.nn.functional.avg_pool1d(torch.randn(4, 6, 48, generator=g), 5, 1).mT
    a, m = (slow+.1*torch.randn(slow.shape, generator=g) for _ in range(2))
    shuffled = m[:, torch.randperm(44, generator=g)]
    assert top_k_contrast(a, m) < top_k_contrast(a[:, 1:], m[:, :-1]) < top_k_contrast(a, shuffled)


def test_the_diagonal_of_a_sorted_matrix_cannot_tell_them_apart():
    "What the released code computes; the reason for the true diagonal."
    a, m, _ = codes(b=1)
    cos = torch.nn.functional.normalize(a[0], dim=-1)@torch.nn.functional.normalize(m[0], dim=-1).mT/.07
    of = lambda x: (x.topk(3).values.logsumexp(-1)[:3]-x.topk(3).values.diagonal()).mean()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert_close(of(cos), of(cos[:, order]))
    assert top_k_contrast(a, m[:, order]) > top_k_contrast(a, m)+1


def test_top_k_costs_log_k_plus_one_at_indifference_and_sees_neither_lengths_nor_the_order_of_time():
    a, m, _ = codes()
    assert_close(top_k_contrast(torch.ones_like(a), torch.ones_like(m), 5).item(), math.log(6))
    assert_close(top_k_contrast(0*a, 0*m, 5).item(), math.log(6))
    lengths = torch.rand(2, 20, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)+.5
    assert_close(top_k_contrast(lengths*a, 3*m), top_k_contrast(a, m))
    assert_close(top_k_contrast(a.flip(1), m.flip(1)), top_k_contrast(a, m))


def test_a_constant_in_every_frame_makes_frames_harder_to_find():
    a, m, style = codes()
    assert top_k_contrast(a+3*style[:, None], m+3*style[:, None]) > top_k_contrast(a, m)


def test_the_temperature_may_learn():
    a, m, _ = codes()
    log_t = torch.tensor(math.log(.07), dtype=torch.float64, requires_grad=True)
    loss = top_k_contrast(a, m, temperature=log_t.exp())
    assert_close(loss, top_k_contrast(a, m))
    loss.backward()
    assert log_t.grad.isfinite() and log_t.grad != 0
    assert_close(info_nce(a[:, 0], m[:, 0], log_t.exp()), info_nce(a[:, 0], m[:, 0], .07))


def test_kl_is_torchs_own():
    a, m, _ = codes()
    fit = lambda x: torch.distributions.Normal(x.mean(1), x.var(1, correction=0).sqrt())
    assert_close(gaussian_kl(a, m, eps=1e-15), torch.distributions.kl_divergence(fit(a), fit(m)).sum(-1).mean())
    assert gaussian_kl(a, m) > 0 and gaussian_kl(a, m) != gaussian_kl(m, a)


def test_kl_is_blind_to_time_and_to_what_is_done_to_both():
    a, m, _ = codes()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert_close(gaussian_kl(a[:, order], m), gaussian_kl(a, m))
    assert_close(gaussian_kl(a, a[:, order]), torch.zeros((), dtype=torch.float64), atol=1e-12, rtol=0)
    scale, shift = torch.arange(1., 7, dtype=torch.float64), torch.arange(6, dtype=torch.float64)
    assert_close(gaussian_kl(scale*a+shift, scale*m+shift, eps=1e-12), gaussian_kl(a, m, eps=1e-12))
    assert gaussian_kl(torch.ones_like(a), torch.ones_like(m)) == 0


def test_orthogonality_is_the_mean_squared_cosine():
    a, _, style = codes()
    want = torch.nn.functional.cosine_similarity(a, style[:, None], dim=-1).square().mean()
    assert_close(orthogonality(a, style), want)
    assert_close(orthogonality(7*a, -.1*style), want)
    assert_close(orthogonality(a.repeat(1, 3, 1), style), want)
    projected = a-(a*style[:, None]).sum(-1, keepdim=True)/style.square().sum(-1)[:, None, None]*style[:, None]
    assert orthogonality(projected, style) < 1e-20
    assert_close(orthogonality(style[:, None].expand_as(a), style).item(), 1.)
    assert orthogonality(a[0], style[0]).shape == ()


def test_info_nce_is_cross_entropy_both_ways_round():
    x, y = codes(b=7)[0][:, 0], codes(b=7)[1][:, 0]
    cos = torch.nn.functional.normalize(x, dim=-1)@torch.nn.functional.normalize(y, dim=-1).mT/.1
    ce = torch.nn.functional.cross_entropy
    assert_close(info_nce(x, y), (ce(cos, torch.arange(7))+ce(cos.mT, torch.arange(7)))/2)
    assert_close(info_nce(x, y), info_nce(y, x))
    assert info_nce(x, y) < info_nce(x, y.roll(1, 0))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.floats(.05, 2), st.integers(0, 99))
def test_unrelated_lies_between_nothing_and_log_b(b, t, seed):
    a, m, style = codes(b=b, t=2, seed=seed)
    for x, y in ((a[:, 0], m[:, 0]), (a[:, 0], style)): assert 0 <= unrelated(x, y, t).item() <= math.log(b)+1e-9
    assert unrelated(a[:, 0], -a[:, 0], t) == 0


def test_minimised_one_sign_separates_and_the_other_pulls_together():
    words, _, style = (x[:, 0] if x.ndim == 3 else x for x in codes(b=6))
    leak = torch.tensor(.5, dtype=torch.float64, requires_grad=True)
    apart, together = (torch.autograd.grad(f(words+leak*style, style, 1.), leak)[0] for f in (unrelated, info_nce))
    assert apart > 0 > together                                    # a step down: less of the style in the content, or more
    assert_close(apart, -together)


def test_a_sharp_critic_is_deaf_to_a_weak_tie():
    "Confident mistakes cost more than right guesses win: no bound, and no gradient, at .1; both at .5."
    words, style = torch.randn(2, 24, 8, generator=torch.Generator().manual_seed(0))
    assert unrelated(words+.5*style, style, .1) == 0 < unrelated(words+.5*style, style, .5)


def test_beyond_guessing_wrong_there_is_nothing_to_gain():
    style = codes(b=6)[2]
    content = (-style).requires_grad_()
    unrelated(content, style).backward()
    assert content.grad.count_nonzero() == 0


def test_a_cosine_is_deaf_to_a_copy_in_other_numbers():
    "The limit of both: a manner hidden in directions that the style does not use. A critic that learned would hear it."
    g = torch.Generator().manual_seed(0)
    manner = torch.linalg.qr(torch.randn(6, 6, generator=g, dtype=torch.float64)).Q
    pad = torch.zeros(6, 6, dtype=torch.float64)
    content, style = torch.cat([manner, pad], 1), torch.cat([pad, manner], 1)
    assert unrelated(content, style) < 1e-12
    assert orthogonality(content[:, None], style) == 0
    assert unrelated(content.roll(6, 1), style) > 1.7


@pytest.mark.parametrize("strength", [0., .5, 2.])
def test_reversal_is_the_identity_forward_and_minus_strength_backward(strength):
    x = codes()[0].requires_grad_()
    y = reverse_gradient(x, strength)
    assert y.equal(x)
    y.square().sum().backward()
    assert_close(x.grad, -strength*2*x.detach())


def test_behind_the_reversal_the_judge_learns_as_ever():
    x, judge = codes()[0], torch.nn.Linear(6, 2, dtype=torch.float64)
    of = lambda z: torch.autograd.grad(torch.nn.functional.cross_entropy(judge(z).flatten(0, 1), torch.arange(40) % 2), judge.weight)[0]
    assert_close(of(reverse_gradient(x, 3.)), of(x))


def test_reversal_bears_a_second_derivative():
    x = torch.tensor([2.], dtype=torch.float64, requires_grad=True)
    first, = torch.autograd.grad(reverse_gradient(x)**3, x, create_graph=True)
    assert_close(first, -3*x**2)
    assert torch.autograd.grad(first, x)[0].isfinite()


def test_styles_agree_pair_by_pair():
    style = codes(b=4)[2]
    other = codes(b=4, seed=1)[2]
    assert_close(style_cosine(style, other), 1-torch.nn.functional.cosine_similarity(style, other).mean())
    assert_close(style_cosine(style, other, 2*style), 2*style_cosine(style, other)/3)
    assert_close(style_cosine(style, other, -other), style_cosine(other, -other, style))
    assert style_cosine(style, 5*style).abs() < 1e-12


def test_gradients_of_codes_are_those_of_finite_differences():
    a, m, style = (x.requires_grad_() for x in codes(t=4, d=2))
    for f in (lambda a, m, s: top_k_contrast(a, m, 2, .5), lambda a, m, s: gaussian_kl(a, m), lambda a, m, s: orthogonality(a, s), lambda a, m, s: info_nce(a.mean(1), s, .5),
              lambda a, m, s: unrelated(s+.1*a.mean(1), s, .5), lambda a, m, s: style_cosine(s, a.mean(1), m.mean(1))): assert torch.autograd.gradcheck(f, (a, m, style))


def test_codes_that_start_at_nothing_have_finite_gradients_and_keep_their_type():
    for dtype in (torch.float32, torch.float64):
        a, m, s = (torch.zeros_like(x).requires_grad_() for x in codes(dtype=dtype))
        loss = top_k_contrast(a, m)+gaussian_kl(a, m)+orthogonality(a, s)+info_nce(a.mean(1), s)+unrelated(a.mean(1), s)+style_cosine(s, m.mean(1))
        loss.backward()
        assert loss.dtype == dtype and loss.shape == () and all(x.grad.isfinite().all() for x in (a, m, s))


def test_a_judge_that_forgets_empties_the_content():
    "Two people, a code of two numbers, one of which is the person: reversal takes it out, where films do not mind."
    g = torch.Generator().manual_seed(0)
    who = torch.arange(2).repeat(32)
    seen = torch.stack([torch.randn(64, generator=g), 2.*who-1], 1)
    encoder, judge = torch.eye(2).requires_grad_(), torch.zeros(2, 2, requires_grad=True)
    optimizer = torch.optim.Adam([dict(params=[encoder]), dict(params=[judge], lr=5e-2)], lr=1e-2, fused=True)
    for _ in range(150):
        code = seen@encoder
        loss = (code[:, 0]-seen[:, 0]).square().mean()+torch.nn.functional.cross_entropy(reverse_gradient(code, .1)@judge, who)+.03*judge.square().sum()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    assert encoder[0, 0] > .9 and encoder[1].abs().max() < .25, encoder


@pytest.mark.parametrize("call, match", [
    (lambda a, m, s: top_k_contrast(a, m[:, :9]), "2, 20, 6.*2, 9, 6.*one frame rate"),
    (lambda a, m, s: top_k_contrast(a[:, :1], m[:, :1]), "1 frame: nothing to tell apart"),
    (lambda a, m, s: top_k_contrast(a, m, k=0), "k=0.*15 % of 20 frames is 3"),
    (lambda a, m, s: top_k_contrast(a, m, temperature=0.), "temperature=0.0 must be positive"),
    (lambda a, m, s: top_k_contrast(a, m, temperature=torch.tensor(-.1)), "temperature=-0.1.*logarithm"),
    (lambda a, m, s: gaussian_kl(a, m[..., :3]), "one frame rate and width"),
    (lambda a, m, s: gaussian_kl(a, m, eps=0.), "eps=0.0 must be positive"),
    (lambda a, m, s: orthogonality(a, s[:, :3]), "2, 20, 6.*style.*2, 3"),
    (lambda a, m, s: orthogonality(a, a), "a style has no frames"),
    (lambda a, m, s: info_nce(s[:1], s[:1]), "1 clip: nothing to tell apart.*2 or more"),
    (lambda a, m, s: unrelated(s[:1], s[:1]), "1 clip"),
    (lambda a, m, s: info_nce(s, s[:, :3]), "one of each a clip"),
    (lambda a, m, s: info_nce(s, s, math.nan), "temperature=nan"),
    (lambda a, m, s: reverse_gradient(a, -1.), "strength=-1.0"),
    (lambda a, m, s: style_cosine(s), "1 source of style"),
    (lambda a, m, s: style_cosine(s, s[:, :3]), "one shape"),
])
def test_nonsense_codes_are_refused_with_their_number(unchecked, call, match):
    with pytest.raises(ValueError, match=match): call(*codes())
