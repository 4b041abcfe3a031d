"The laws of chapter 00: rotations are a group, and its three coordinates agree."
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from talkinglab.core.rotation import (
    matrix_to_quat, normalize_quat, quat_conjugate, quat_multiply, quat_to_matrix, quat_to_rotvec, rotvec_to_matrix, rotvec_to_quat, slerp)

numbers = st.floats(-1, 1, allow_subnormal=False)
vectors = st.lists(numbers, min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
quats = st.lists(numbers, min_size=4, max_size=4).map(lambda q: torch.tensor(q, dtype=torch.float64)).filter(lambda q: q.norm() > 0.1).map(normalize_quat)
quick = settings(max_examples=60, deadline=None)
near = dict(atol=1e-9, rtol=0)
IDENTITY = torch.tensor([1., 0, 0, 0], dtype=torch.float64)


def same_turn(a, b): assert_close((a*b).sum(-1).abs(), torch.ones(a.shape[:-1], dtype=a.dtype), **near)


@quick
@given(quats, quats)
def test_matrix_product_is_quat_product(a, b):
    assert_close(quat_to_matrix(quat_multiply(a, b)), quat_to_matrix(a)@quat_to_matrix(b), **near)


@quick
@given(quats, quats, quats)
def test_group_axioms(a, b, c):
    assert_close(quat_multiply(quat_multiply(a, b), c), quat_multiply(a, quat_multiply(b, c)), **near)
    assert_close(quat_multiply(a, IDENTITY), a, **near)
    assert_close(quat_multiply(IDENTITY, a), a, **near)
    assert_close(quat_multiply(a, quat_conjugate(a)), IDENTITY, **near)
    assert_close(quat_multiply(a, b).norm(), torch.ones((), dtype=a.dtype), **near)


@quick
@given(quats)
def test_matrices_are_rotations(q):
    R = quat_to_matrix(q)
    assert_close(R@R.T, torch.eye(3, dtype=R.dtype), **near)
    assert_close(torch.linalg.det(R), torch.ones((), dtype=R.dtype), **near)
    assert_close(R@q[1:], q[1:], **near)  # The axis stays


@quick
@given(quats, st.floats(0.01, 100))
def test_double_cover_and_length_do_not_matter(q, length):
    assert_close(quat_to_matrix(q), quat_to_matrix(-q), **near)
    assert_close(quat_to_matrix(q), quat_to_matrix(length*q), **near)
    assert_close(quat_to_rotvec(q), quat_to_rotvec(length*q), **near)


@quick
@given(vectors, st.floats(0, 3.1))
def test_exp_log_bijective(axis, angle):
    v = axis/axis.norm().clamp(min=1e-3)*angle
    assert_close(quat_to_rotvec(rotvec_to_quat(v)), v, atol=1e-9, rtol=1e-9)


@quick
@given(quats)
def test_log_exp_bijective_up_to_sign(q):
    v = quat_to_rotvec(q)
    assert v.norm() <= math.pi+1e-9
    same_turn(rotvec_to_quat(v), q)


@quick
@given(quats)
def test_matrix_quat_bijective_up_to_sign(q):
    back = matrix_to_quat(quat_to_matrix(q))
    same_turn(back, q)
    assert back[0] >= 0


@pytest.mark.parametrize("angle", [0., 1e-8, 1e-5, 1e-3, 1., math.pi-1e-6, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_angle_is_special(angle, dtype):
    axes = torch.nn.functional.normalize(torch.tensor([[1., 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [-1, 2, .5]], dtype=dtype), dim=-1)
    q = rotvec_to_quat(angle*axes)
    back = matrix_to_quat(quat_to_matrix(q))
    assert_close((back*q).sum(-1).abs(), torch.ones(5, dtype=dtype), atol=4*torch.finfo(dtype).eps, rtol=0)
    assert_close(quat_to_rotvec(q).norm(dim=-1), torch.full((5,), angle, dtype=dtype), atol=8*torch.finfo(dtype).eps, rtol=1e-6)


@quick
@given(vectors)
def test_exp_is_the_matrix_exponential(v):
    x, y, z = v.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=v.dtype)
    assert_close(rotvec_to_matrix(v), torch.linalg.matrix_exp(cross), **near)


@pytest.mark.parametrize("size", [0., 1e-30, 1e-10, 1e-4, 2e-4, 1e-3])
@pytest.mark.parametrize("f", [rotvec_to_quat, rotvec_to_matrix, lambda v: quat_to_rotvec(rotvec_to_quat(v))], ids=["exp", "matrix", "log exp"])
def test_gradients_finite_at_zero(f, size):
    v = (torch.tensor([0.6, 0., 0.8])*size).requires_grad_()
    (torch.arange(1., 1+f(v).numel())*f(v).flatten()).sum().backward()
    assert v.grad.isfinite().all() and v.grad.abs().max() > 0.1


def test_gradients_are_right():
    g = torch.Generator().manual_seed(0)
    v = torch.randn(4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    q = torch.randn(4, 4, generator=g, dtype=torch.float64, requires_grad=True)
    for f, x in ((rotvec_to_quat, v), (quat_to_rotvec, q), (quat_to_matrix, q)): assert torch.autograd.gradcheck(f, x)
    assert torch.autograd.gradcheck(lambda x: matrix_to_quat(quat_to_matrix(x)), q)


@quick
@given(quats, quats, st.floats(0, 1))
def test_slerp_ends_speed_and_symmetry(a, b, t):
    same_turn(slerp(a, b, 0.), a)
    same_turn(slerp(a, b, 1.), b)
    whole = quat_to_rotvec(quat_multiply(b, quat_conjugate(a)))
    part = quat_to_rotvec(quat_multiply(slerp(a, b, t), quat_conjugate(a)))
    assert_close(part, t*whole, atol=1e-7, rtol=0)
    if whole.norm() < 3.1: same_turn(slerp(a, b, t), slerp(b, a, 1-t))


def test_batches_broadcast_and_keep_dtype():
    a, b = torch.randn(5, 1, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    assert quat_multiply(a, b).shape == (5, 3, 4) and quat_multiply(a, b).dtype == torch.float64
    assert slerp(a, b, 0.5).shape == (5, 3, 4)
    assert matrix_to_quat(quat_to_matrix(a)).shape == (5, 1, 4)
    assert quat_to_matrix(torch.empty(0, 4)).shape == (0, 3, 3)


@pytest.mark.parametrize("bad", [[0., 0, 0, 0], [torch.nan, 0, 0, 1], [torch.inf, 0, 0, 1]])
def test_no_direction_no_rotation(bad):
    with pytest.raises(ValueError, match="1 of 2 quaternions"): quat_to_matrix(torch.tensor([[1., 0, 0, 0], bad]))


@pytest.mark.parametrize("bad", [torch.diag(torch.tensor([1., 1, -1])), 2*torch.eye(3), torch.zeros(3, 3), torch.full((3, 3), torch.nan)])
def test_mirrors_scales_and_holes_are_no_rotations(bad):
    with pytest.raises(ValueError, match="1 of 1 matrices"): matrix_to_quat(bad)
