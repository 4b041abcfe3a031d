"The virtual actor: one seed, one performance, whatever films it; lips that meet; a corpus that can be killed."
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
import torch
from project import ROOT
from talkinglab.core.assets import samples
from talkinglab.core.camera import orbit
from talkinglab.core.clock import frame_times
from talkinglab.core.image import psnr
from talkinglab.core.media import Audio, MediaError, read_audio
from talkinglab.face.actor import Sentence, blinks, cast, corpus, embody, look, perform, read_corpus, sentences, shoot, stress
from talkinglab.face.motion import lip_gap
from talkinglab.face.rig import load_ict, load_makehuman, pose
from talkinglab.face.sculpt import Person
from talkinglab.face.viseme import STYLES, Style, check_lips

DATA = ROOT.parent/"shared"/"data"
CAMERA = orbit(radius=1.2, target=(0, -.035, 0), fov=16, width=64, height=64)

def seeded(seed): return torch.Generator().manual_seed(seed)

@pytest.fixture(scope="module")
def take(): return perform(samples("hello.flac"), samples("hello.json"))


@pytest.mark.parametrize("rate", [6, 17, 40])
@pytest.mark.parametrize("fps", [24, 25, 60])
def test_as_many_blinks_as_asked_for_and_each_is_seen_shut(rate, fps):
    lids = blinks(frame_times(20*60*fps, fps), rate, seeded(3))
    begins = ((lids[1:] > .5) & (lids[:-1] <= .5)).nonzero()[:, 0]
    assert abs(len(begins)-20*rate) < 4*(20*rate)**.5
    assert all(lids[b:b+fps//4].max() > .99 for b in begins.tolist())

def test_silence_and_short_sounds_are_performed():
    for n in (1, 100, 16000):
        t = perform(Audio(torch.zeros(n), 16000))
        assert len(t) >= 1 and t.motion.expr.isfinite().all() and t.motion.curve("jawOpen").max() < .1
    assert len(stress(Audio(torch.zeros(1), 16000)).beats) == 0

def test_a_seed_is_a_performance(take):
    again, other = perform(samples("hello.flac"), samples("hello.json")), perform(samples("hello.flac"), samples("hello.json"), seed=1)
    for k in ("expr", "rotation", "gaze"): assert torch.equal(getattr(take.motion, k), getattr(again.motion, k))
    assert torch.equal(take.motion.curve("jawOpen"), other.motion.curve("jawOpen")) and not torch.equal(take.motion.gaze, other.motion.gaze)

def test_weights_stay_in_range():
    for name in STYLES:
        e = perform(samples("en_quick.flac"), samples("en_quick.json"), style=name).motion.expr
        assert e.min() >= 0 and e.max() <= 1

def test_lips_meet_in_every_style(take):
    for name in STYLES:
        t = perform(samples("gym.flac"), samples("gym.json"), style=name)
        assert check_lips(t.phones, lip_gap(t.rig, pose(t.rig, t.motion.expr)), 25)["closed"] >= .95, name

@pytest.mark.parametrize("head", ["ict_facekit/ict_facekit_compact.npz", "makehuman_head/makehuman_head_compact.npz"])
def test_other_heads_perform(head):
    if not (DATA/head).is_file(): pytest.skip("../shared/data is absent")
    rig = (load_ict if "ict" in head else load_makehuman)(DATA/head)
    who = cast(2, rig=rig)[1]
    t = perform(samples("gym.flac"), samples("gym.json"), rig, who)
    lips = check_lips(t.phones, lip_gap(t.rig, pose(t.rig, t.motion.expr)), 25)
    assert lips["closed"] >= .95 and lips["open"] > 5*max(lips["bilabial"], .001)
    assert look(t, 30, CAMERA).alpha.max() == 1

def test_what_cannot_be_performed_is_said():
    with pytest.raises(ValueError, match="neutral, lively"): perform(samples("hello.flac"), style="cheerful")
    with pytest.raises(ValueError, match="not known"): perform(samples("hello.flac"), [(0, 1, "quux!")])
    with pytest.raises(MediaError, match="nowhere.json"): perform(samples("hello.flac"), "nowhere.json")
    with pytest.raises(MediaError, match="nowhere.wav"): perform("nowhere.wav")
    with pytest.raises(ValueError, match="at least one"): cast(0)
    with pytest.raises(ValueError, match="32, 32"): shoot(perform(Audio(torch.zeros(1600), 16000)), size=24, background=torch.zeros(32, 32, 3))
    with pytest.raises(ValueError, match="no camera"): shoot(perform(Audio(torch.zeros(1600), 16000)), [])
    with pytest.raises(ValueError, match="Person"): embody(Person(), embody())

def test_wrong_types_are_said_without_a_type_checker():
    code = """if True:
        from talkinglab.core.assets import samples
        from talkinglab.face.actor import corpus, perform
        for call in (lambda: perform(samples("hello.flac"), style=None), lambda: perform(samples("hello.flac"), seed=1.5), lambda: corpus("never", [1], ["a.wav"])):
            try: call()
            except ValueError as e: print(e)"""
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(said) == 3 and "style=None" in said[0] and "1.5" in said[1] and "no Sentence" in said[2]

def test_several_cameras_see_what_each_sees_alone(take):
    cameras = [orbit(yaw, radius=1.2, fov=16, width=w, height=h) for yaw, w, h in ((0, 48, 64), (70, 33, 21))]
    both = shoot(take, cameras)
    for c, clip in zip(cameras, both):
        assert torch.equal(clip.frames[31], shoot(take, c).frames[31]) and clip.frames[31].shape == (c.height, c.width, 3)

def test_played_in_order_or_looked_at_is_the_same(take):
    clip = shoot(replace(take, motion=take.motion[:6], audio=None), CAMERA)
    assert all(torch.equal(a, clip.frames[i]) for i, a in enumerate(clip.frames))

def test_truth_agrees_with_itself(take):
    seen = look(take, 30, CAMERA)
    assert ((seen.parts >= 0) == seen.depth.isfinite()).all()
    assert (seen.alpha[seen.parts >= 0] > .2).all() and (seen.alpha[(seen.parts < 0)] < .99).all()
    assert seen.depth[seen.parts >= 0].min() > .9 and seen.visible.float().mean() > .8

def test_a_larger_cast_begins_with_the_smaller(): assert cast(6, 9)[:4] == cast(4, 9)


@pytest.fixture
def lines(tmp_path):
    from talkinglab.core.media import write_audio
    x = read_audio(samples("gym.flac"))
    for name, a in (("one", 0), ("two", 1.2)): write_audio(tmp_path/f"{name}.flac", Audio(x.samples[int(a*x.rate):int((a+.8)*x.rate)], x.rate))
    return sentences(tmp_path/"one.flac", tmp_path/"two.flac")

def everything(folder): return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

def test_a_corpus_killed_and_called_again_has_the_same_takes(tmp_path, lines):
    code = textwrap.dedent("""
        import sys
        from talkinglab.face.actor import cast, corpus, sentences
        if __name__ == "__main__": corpus(sys.argv[1], cast(2), sentences(*sys.argv[2:]), ["lively"], size=40, workers=2)
    """)
    (tmp_path/"run.py").write_text(code)
    run = lambda: subprocess.Popen([sys.executable, tmp_path/"run.py", tmp_path/"killed", *(s.audio for s in lines)],
                                   cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)
    killed = run()
    limit = time.time()+120
    while not list((tmp_path/"killed").glob("p*_v0")) and killed.poll() is None and time.time() < limit: time.sleep(.02)
    os.kill(killed.pid, signal.SIGKILL)                                            # the parent alone: its workers must notice
    killed.wait()
    assert (tmp_path/"killed"/"manifest.json").is_file()
    (tmp_path/"killed"/".0123456789ab.part").mkdir(exist_ok=True)                 # what a kill leaves
    again = run()
    whole = corpus(tmp_path/"whole", cast(2), lines, ["lively"], size=40, workers=1)
    assert again.wait(timeout=200) == 0
    a, b = everything(tmp_path/"killed"), everything(tmp_path/"whole")
    assert len(whole) == 4 and set(a) == set(b) and all(a[k] == b[k] for k in a if not k.endswith(".mp4"))
    for i in range(4): # on a busy machine x264 now and then codes the same pictures in other bytes (one film in some hundred)
        x, y = ([*films[i].frames] for films in (read_corpus(tmp_path/"killed"), whole))
        assert len(x) == len(y) and psnr(torch.stack(x).flatten(0, 1), torch.stack(y).flatten(0, 1)) > 32
    clip = whole.where(person=1, style="lively", sentence="two")[0]
    assert clip.masks.shape == (len(clip), 40, 40) and clip.meta["person"]["hair"] and clip.phones

def test_any_name_of_a_sentence_and_no_two_of_one_folder(tmp_path, lines):
    a = replace(lines[0], name="198.hq")
    films = corpus(tmp_path/"dots", cast(1), [a, replace(lines[1], name="198.hq_x")], {"x": Style(), "hq_x": Style(jaw=.5)}, size=24, workers=1)
    assert len({r["folder"] for r in films.rows}) == 4 == len(films) and films.where(sentence="198.hq", style="hq_x")[0].meta["style"]["jaw"] == .5
    with pytest.raises(ValueError, match="two sentences"): corpus(tmp_path/"twice", cast(1), [a, a])
    with pytest.raises(ValueError, match="x/y"): corpus(tmp_path/"nested", cast(1), [a], {"x/y": Style()})
    with pytest.raises(ValueError, match="no camera"): corpus(tmp_path/"blind", cast(1), [a], cameras=[])
    assert not [p for p in ("twice", "nested", "blind") if (tmp_path/p).exists()]

def test_one_run_at_a_time(tmp_path, lines):
    films = corpus(tmp_path/"films", cast(1), lines[:1], size=24, workers=1)
    fcntl = pytest.importorskip("fcntl")
    with open(tmp_path/"films"/".lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process"): corpus(tmp_path/"films", cast(1), lines[:1], size=24, workers=1)
    assert len(corpus(tmp_path/"films", cast(1), lines[:1], size=24, workers=1)) == len(films) == 1

def test_a_thousand_sentences_and_people_share_no_seed():
    from talkinglab.face.actor import _jobs
    seeds = [j[4] for j in _jobs(range(40), [Sentence(str(i), "", None) for i in range(1200)], ["neutral"], 0)]
    assert len(set(seeds)) == len(seeds)

def test_another_corpus_is_refused(tmp_path, lines):
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/"a").write_text("mine")
    with pytest.raises(ValueError, match="not empty"): corpus(tmp_path/"full", cast(1), lines, size=32, workers=1)
    assert (tmp_path/"full"/"a").read_text() == "mine"
    films = corpus(tmp_path/"films", cast(1), lines[:1], size=32, workers=1)
    with pytest.raises(ValueError, match="another corpus"): corpus(tmp_path/"films", cast(2), lines[:1], size=32, workers=1)
    with pytest.raises(ValueError, match="no take"): films.where(style="shouting")
    with pytest.raises(ValueError, match="at least one"): corpus(tmp_path/"none", [], lines)
    with pytest.raises(MediaError, match="holds no corpus"): read_corpus(tmp_path)
    with pytest.raises(MediaError, match="gone.wav"): corpus(tmp_path/"gone", cast(1), [Sentence("gone", str(tmp_path/"gone.wav"), None)])
    shutil.rmtree(tmp_path/"films"/films.rows[0]["folder"])
    assert len(read_corpus(tmp_path/"films")) == 0
    with pytest.raises(ValueError, match="no take"): read_corpus(tmp_path/"films").where(style="neutral")

def test_own_styles_and_cameras_in_a_corpus(tmp_path, lines):
    cameras = [replace(CAMERA, width=40, height=30), CAMERA]
    films = corpus(tmp_path/"films", cast(1), lines[:1], {"mine_own": Style(jaw=.5)}, cameras=cameras, workers=1)
    assert len(films) == 2 and films[0].frames[0].shape == (30, 40, 3) and films[1].meta["style"]["jaw"] == .5
    assert torch.equal(films[0].motion.expr, films[1].motion.expr)
    assert torch.equal(films.take(0).motion.gaze, films[0].motion.gaze)
