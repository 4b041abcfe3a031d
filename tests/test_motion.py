"Laws of face.motion: rulers see no camera, smoothing no direction, retiming no clock, retargeting closes what was closed, tables come back."
import math
from dataclasses import replace

import pytest
import torch
from talkinglab.core.clip import Motion
from talkinglab.core.media import MediaError
from talkinglab.face.motion import (ANGLES, angles_to_rotvec, face_height, gains, head_angles, lip_gap, mouth_opening, read_arkit_csv, readouts, retarget, retime,
                                    smooth, write_arkit_csv)
from talkinglab.face.rig import ARKIT, LOOK, eye_turns, load_ict, load_makehuman, pose
from torch.testing import assert_close


@pytest.fixture(scope="module")
def head():
    from talkinglab.face.sculpt import sculpt_head
    return sculpt_head()


def speech(names=ARKIT, n=60, fps=25., seed=0):
    "Smooth random curves in [0, 1], a turning head, moving eyes."
    g = torch.Generator().manual_seed(seed)
    t = (torch.arange(n)+.5)/fps
    wave = lambda d, hertz: torch.stack([torch.sin(2*math.pi*(hertz*(.5+torch.rand(1, generator=g))*t+torch.rand(1, generator=g))) for _ in range(d)], 1)
    talk = torch.tensor([k.startswith(("jawOpen", "mouthPucker", "mouthSmile", "brow", "eyeBlink")) for k in names])
    return Motion((.35*wave(len(names), 1.5)+.15).clamp(min=0)*talk, tuple(names), fps, .3*wave(3, .4), .01*wave(3, .3), .2*wave(2, .8))


# Rulers ------------------------------------------------------------------------------------------------------------

def test_the_gap_sees_no_rigid_motion_and_no_scale(head):
    m = speech(head.names)
    v = pose(head, m.expr, m.gaze)
    R = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    assert_close(lip_gap(head, 3.7*v@R.T+torch.tensor([1., -2, .5])), lip_gap(head, v), rtol=1e-3, atol=1e-5)


def test_the_ruler_measures_what_the_whole_head_would(head):
    m = speech(head.names)
    v, r = pose(head, m.expr, m.gaze), readouts(head, m)
    H, L = face_height(head, head.vertices), v[:, head.landmarks]
    assert_close(r.gap, lip_gap(head, v), rtol=0, atol=1e-5)
    assert_close(r.width, (L[:, 48]-L[:, 54]).norm(dim=1)/H, rtol=0, atol=1e-5)
    assert_close(mouth_opening(head, m), r.gap)
    assert_close(readouts(head, replace(m, rotation=0*m.rotation, translation=0*m.translation)).lids, r.lids)


def test_more_jaw_is_more_gap_and_as_much_close_is_none(head):
    jaws = torch.linspace(0, 1, 21)
    frames = lambda c: Motion.still(torch.stack([head.expr(jawOpen=float(j), mouthClose=c*float(j)) for j in jaws]), head.names)
    assert (mouth_opening(head, frames(0.)).diff() > 0).all()
    assert mouth_opening(head, frames(1.)).max() < .02


def test_motions_may_lack_names_and_heads_may_lack_names(head):
    few = Motion.still(torch.tensor([[.4, 1.]]), ("jawOpen", "wiggleEars"))
    assert_close(mouth_opening(head, few), mouth_opening(head, Motion.still(head.expr(jawOpen=.4)[None], head.names)))


def test_no_landmarks_no_ruler(head):
    blind = replace(head, landmarks=None)
    for call in (lambda: lip_gap(blind, blind.vertices), lambda: readouts(blind, speech(head.names))):
        with pytest.raises(ValueError, match="landmarks"): call()


# Smoothing and retiming --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seconds", [.03, .1, .4])
def test_smoothing_knows_no_direction(seconds):
    m = speech()
    back = lambda m: replace(m, **{k: getattr(m, k).flip(0) for k in ("expr", "rotation", "translation", "gaze")})
    assert_close(back(smooth(back(m), seconds)).expr, smooth(m, seconds).expr, rtol=0, atol=1e-6)


def test_smoothing_is_linear_keeps_constants_and_calms():
    a, b = speech(seed=0), speech(seed=1)
    both = replace(a, expr=2*a.expr-b.expr)
    assert_close(smooth(both, .1).expr, 2*smooth(a, .1).expr-smooth(b, .1).expr, rtol=0, atol=1e-5)
    still = replace(a, expr=a.expr[:1].expand(60, -1).clone())
    assert_close(smooth(still, .3).expr, still.expr, rtol=0, atol=1e-6)
    assert smooth(a, .2).expr.diff(dim=0).abs().sum() < a.expr.diff(dim=0).abs().sum()
    assert smooth(a, 0.) is a
    with pytest.raises(ValueError, match="-1"): smooth(a, -1.)


def test_smoothing_is_as_wide_as_it_says():
    for fps in (25., 60.):
        pulse = Motion.still(torch.zeros(201, 1).index_fill(0, torch.tensor([100]), 1.), ("jawOpen",), fps)
        w = smooth(pulse, .2).expr[:, 0]
        t = (torch.arange(201)-100)/fps
        assert abs(float((w*t*t).sum().sqrt())-.2) < .004


@pytest.mark.parametrize("fps", [10., 24., 25., 60., 100.])
def test_a_ramp_is_a_ramp_on_any_clock(fps):
    m = Motion.still(((torch.arange(50)+.5)/25)[:, None], ("jawOpen",), 25.)
    r = retime(m, fps)
    assert r.fps == fps and len(r) == round(50*fps/25)
    t = (torch.arange(len(r))+.5)/fps
    inside = (t > .02) & (t < 1.98)
    assert_close(r.expr[inside, 0], t[inside], rtol=0, atol=1e-5)


def test_speed_is_a_clock_too():
    m = speech()
    assert_close(retime(m, speed=2.).expr, replace(retime(replace(m, fps=50.), 25.), fps=25.).expr)
    assert len(retime(m, speed=.5)) == 120 and retime(m, speed=.5).fps == 25
    assert_close(retime(m).expr, m.expr)
    for bad in (dict(fps=0), dict(speed=-1)):
        with pytest.raises(ValueError, match="positive"): retime(m, **bad)


def test_a_turn_through_pi_does_not_spin_back():
    "Rotation vectors jump at a half turn; the head must not."
    angle = torch.linspace(2.9, 3.4, 20)
    axis = torch.tensor([0., 1., 0.])
    wrapped = torch.where(angle > math.pi, angle-2*math.pi, angle)
    m = replace(Motion.still(torch.zeros(20, 1), ("jawOpen",)), rotation=wrapped[:, None]*axis)
    from talkinglab.core.rotation import rotvec_to_matrix
    R = rotvec_to_matrix(retime(m, 100.).rotation)
    step = (R[:-1].mT@R[1:]).diagonal(dim1=1, dim2=2).sum(1).sub(1).div(2).clamp(-1, 1).acos()
    assert step.max() < .02


# Retargeting -------------------------------------------------------------------------------------------------------

def variants(head):
    jaw = torch.tensor([k == "jawOpen" for k in head.names])[:, None]
    return dict(weak=replace(head, basis=.6*head.basis, swing=.6*head.swing, closed=.6*head.closed),
                wide=replace(head, swing=torch.where(jaw, 1.4*head.swing, head.swing), closed=1.4*head.closed),
                big=replace(head, vertices=1.3*head.vertices, basis=1.3*head.basis, pivots=1.3*head.pivots, eyes=1.3*head.eyes, neck=1.3*head.neck))


@pytest.mark.parametrize("who", ["weak", "wide", "big"])
def test_retargeted_lips_open_as_far(head, who):
    m, other = speech(head.names), variants(head)[who]
    got = mouth_opening(other, retarget(m, head, other))
    assert_close(got, mouth_opening(head, m), rtol=0, atol=3e-3)


@pytest.mark.parametrize("who", ["weak", "wide", "big"])
def test_closed_stays_closed(head, who):
    other = variants(head)[who]
    jaw = torch.linspace(0, .6, 13)
    m = Motion.still(torch.stack([head.expr(jawOpen=float(j), mouthClose=float(j)) for j in jaw]), head.names)
    assert mouth_opening(other, retarget(m, head, other)).max() < .02


def test_a_head_is_its_own_best_target(head):
    g = gains(head, head)
    assert set(g) == set(head.names) and all(abs(x-1) < 1e-3 for x in g.values())
    m = replace(speech(head.names), expr=speech(head.names).expr*torch.tensor([k != "mouthPucker" for k in head.names]))
    assert_close(retarget(m, head, head).expr, m.expr, rtol=0, atol=.03)


def test_gains_undo_a_scale_of_the_muscles_and_leave_the_lids(head):
    g = gains(head, replace(head, basis=.5*head.basis, swing=.5*head.swing))
    assert abs(g["mouthPucker"]-2) < .01 and abs(g["browInnerUp"]-2) < .01 and g["eyeBlinkLeft"] == 1
    assert gains(head, replace(head, basis=.1*head.basis))["mouthPucker"] == 2.5


def test_retargeting_keeps_turns_gaze_and_clock(head):
    m, big = speech(head.names), variants(head)["big"]
    r = retarget(m, head, big)
    assert r.fps == m.fps and r.rotation is m.rotation and r.gaze is m.gaze
    assert_close(r.translation, 1.3*m.translation, rtol=1e-3, atol=1e-6)


def test_real_heads_speak_with_one_opening(head, shared):
    "From the procedural head to two others: lip gaps beyond rest agree, and what touched touches."
    m = speech(head.names)
    base = mouth_opening(head, m)-mouth_opening(head, Motion.still(head.expr()[None], head.names))
    for rig in (load_ict(shared/"ict_facekit"/"ict_facekit_compact.npz"), load_makehuman(shared/"makehuman_head"/"makehuman_head_compact.npz")):
        r = retarget(m, head, rig)
        got = mouth_opening(rig, r)-mouth_opening(rig, Motion.still(rig.expr()[None], rig.names))
        opened = base > .01
        assert (got-base)[opened].abs().max() < .01 and torch.corrcoef(torch.stack([got, base]))[0, 1] > .99
        closed = Motion.still(head.expr(jawOpen=.4, mouthClose=.4)[None], head.names)
        assert mouth_opening(rig, retarget(closed, head, rig)).max() < .02


# Tables ------------------------------------------------------------------------------------------------------------

def test_angles_are_rotations():
    r = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))*.6
    assert_close(angles_to_rotvec(head_angles(r)), r, rtol=0, atol=1e-5)
    for i, v in enumerate(([0, .3, 0], [-.3, 0, 0], [0, 0, .3])):        # yaw to the left, pitch up, roll
        assert_close(head_angles(torch.tensor([v], dtype=torch.float32))[0], .3*torch.eye(3)[i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", [0., 3661.57, 86399.2])
@pytest.mark.parametrize("seconds", [3., 3.7, 20.])
@pytest.mark.parametrize("fps", [10., 12.5, 15., 20., 23.976, 24., 25., 29.97, 30., 48., 50., 59.94, 60., 100., 120.])
def test_a_table_tells_its_rate_exactly(fps, seconds, start, tmp_path):
    m = Motion.still(torch.rand(round(seconds*fps), 1, generator=torch.Generator().manual_seed(0)), ("jawOpen",), fps)
    path = write_arkit_csv(tmp_path/"take.csv", m, start)
    assert read_arkit_csv(path).fps == fps
    assert all(float(row.split(",")[0].split(":")[3]) < math.ceil(fps) for row in path.read_text().splitlines()[1:])


@pytest.mark.parametrize("start", [0., .93])
@pytest.mark.parametrize("frames", [1, 2, 3, 7, 13, 20, 26, 40, 70])
@pytest.mark.parametrize("fps", [5., 10., 12.5, 15., 24., 25., 26., 29.97, 30., 50., 60., 100.])
def test_a_short_table_is_read_right_or_refused(fps, frames, start, tmp_path):
    path = write_arkit_csv(tmp_path/"take.csv", Motion.still(torch.zeros(frames, 1), ("jawOpen",), fps), start)
    try: assert read_arkit_csv(path).fps == pytest.approx(fps, rel=2e-4)
    except MediaError as e: assert "fps=" in str(e) and frames <= 2*fps
    assert read_arkit_csv(path, fps=fps).fps == fps


def test_frames_that_are_missing_or_tremble_do_not_bend_the_clock(tmp_path):
    "Telephones drop a frame here and there, and their time codes carry a twentieth of a frame of noise."
    g = torch.Generator().manual_seed(0)
    def table(keep, noise=0.):
        at = [i+noise*float(torch.rand((), generator=g)) for i in range(600) if keep(i)]
        (tmp_path/"t.csv").write_text("Timecode,JawOpen\n"+"".join(f"00:00:{int(i//60):02d}:{i%60:06.3f},0\n" for i in at))
        return read_arkit_csv(tmp_path/"t.csv").fps
    assert table(lambda i: True, .05) == 60 and table(lambda i: i not in (59, 200, 431)) == 60 and table(lambda i: i%2 == 0) == 30
    with pytest.raises(MediaError, match="fps="): table(lambda i: i%7 < 2)


@pytest.mark.parametrize("fps", [24., 25., 30., 60.])
def test_a_table_comes_back_as_it_went(fps, tmp_path):
    m = speech(n=130, fps=fps)
    back = read_arkit_csv(write_arkit_csv(tmp_path/"take.csv", m))
    assert back.fps == fps and back.names == ARKIT and len(back) == 130
    for k in ("expr", "rotation", "gaze"): assert_close(getattr(back, k), getattr(m, k), rtol=0, atol=2e-6)


def test_eyes_that_cross_come_back_crossed(tmp_path):
    m = speech()
    e = m.expr.clone()
    e[:, ARKIT.index("eyeLookInLeft")] = e[:, ARKIT.index("eyeLookInRight")] = .5
    m = replace(m, expr=e)
    back = read_arkit_csv(write_arkit_csv(tmp_path/"take.csv", m))
    assert_close(eye_turns(ARKIT, back.expr, back.gaze), eye_turns(ARKIT, m.expr, m.gaze), rtol=0, atol=2e-6)


def test_the_layout_is_live_link_faces(tmp_path):
    path = write_arkit_csv(tmp_path/"take.csv", Motion.still(torch.tensor([[.5, .25]]*3), ("jawLeft", "eyeBlinkRight"), 60), start=3661.5)
    head, *rows = [line.split(",") for line in path.read_text().splitlines()]
    assert head[:3] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft"] and head[-9:] == list(ANGLES) and len(head) == 63
    assert head.index("JawRight") < head.index("JawLeft") < head.index("JawOpen")     # as the app writes them
    assert [r[0] for r in rows] == ["01:01:01:30.000", "01:01:01:31.000", "01:01:01:32.000"] and {r[1] for r in rows} == {"61"}
    assert float(rows[0][head.index("JawLeft")]) == .5 and float(rows[0][head.index("EyeBlinkRight")]) == .25


def test_other_spellings_and_orders_are_read(tmp_path):
    path = tmp_path/"other.csv"
    path.write_text("﻿timecode,BlendshapeCount,jawOpen,EYEBLINKLEFT,HeadYaw\n00:00:00:58.9,61,.5,.1,.2\n00:00:00:59.9,61,.25,0,.1\n00:00:01:00.9,61,.25,0,.1\n\n", encoding="utf-8")
    m = read_arkit_csv(path)
    assert m.fps == 60 and m.curve("jawOpen").tolist() == [.5, .25, .25] and not m.gaze.any()
    assert_close(m.rotation[0], torch.tensor([0., .2, 0.]), rtol=0, atol=1e-6)


def test_shapes_alone_are_kept_where_a_table_has_no_angles(tmp_path):
    path = tmp_path/"shapes.csv"
    path.write_text("EyeLookOutLeft,EyeLookInRight\n.5,.5\n.4,.4\n")
    m = read_arkit_csv(path, fps=30)
    assert_close(eye_turns(ARKIT, m.expr, m.gaze)[0], torch.tensor([[.5*LOOK[0], 0.]]*2))


@pytest.mark.parametrize("text, says", [("", "no rows"), ("Timecode,JawOpen\n", "no rows"), ("a,b\n1,2\n", "named as in ARKit"), ("JawOpen,MouthClose\n1,2\n3\n", "row 3 has 1"),
    ("JawOpen,MouthClose\n1,x\n", "MouthClose holds"), ("JawOpen\n.1\n.2\n", "fps="), ("Timecode,JawOpen\n00:00:00:00,.1\n00:00:00:00,.2\n", "stand still"),
    ("Timecode,JawOpen\nsoon,.1\n", "fps="), ("JawOpen\nnan\n", "finite")])
def test_a_damaged_table_is_one_line(text, says, tmp_path):
    path = tmp_path/"bad.csv"
    path.write_text(text)
    with pytest.raises(MediaError, match=says) as e: read_arkit_csv(path)
    assert "bad.csv" in str(e.value) and "\n" not in str(e.value)


def test_places_that_are_none(tmp_path):
    with pytest.raises(MediaError, match="none.csv"): read_arkit_csv(tmp_path/"none.csv")
    (tmp_path/"bytes.csv").write_bytes(bytes(range(256)))
    with pytest.raises(MediaError): read_arkit_csv(tmp_path/"bytes.csv")
    with pytest.raises(MediaError, match="cannot be written"): write_arkit_csv(tmp_path/"no"/"take.csv", speech())
