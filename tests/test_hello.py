"The smallest talker keeps its promises: silence is shut, gain does not matter, seeds repeat, length costs no memory."
import json
import os
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from talkinglab.core.assets import samples
from talkinglab.core.camera import orbit
from talkinglab.core.clip import Clip, Frames, Motion, load_clip
from talkinglab.core.clock import frame_count
from talkinglab.core.image import psnr
from talkinglab.core.media import Audio, read_audio
from talkinglab.gs.render import render
from talkinglab.systems.hello import STYLES, VIEW, Config, Style, held_out, learn, little_movements, pose_at, read, save
from talkinglab.systems.talkers import load, talkers


@pytest.fixture(scope="module")
def talker(): return load("hello")


@pytest.fixture(scope="module")
def hello(): return read_audio(samples("hello.flac"))


def jaw(talker, audio, **kw): return talker.speak(audio, **kw).motion.curve("jawOpen")


def test_silence_is_shut(talker):
    assert jaw(talker, Audio(torch.zeros(32000), 16000)).max() == 0
    hiss = torch.randn(32000, generator=torch.Generator().manual_seed(0))*10**(-60/20)
    assert jaw(talker, Audio(hiss, 16000)).max() < .05


def test_pauses_are_shut(talker, hello):
    "Between words, long enough for a mouth to get there."
    curve = jaw(talker, hello)
    phones = json.loads(samples("hello.json").read_text(encoding="utf-8"))["phones"]
    for a, b, p in phones:
        if p == "" and b-a > .25: assert curve[round((a+b)/2*25)] < .12, (a, b)


def test_the_gain_of_a_recording_does_not_matter(talker, hello):
    "Twenty decibels less: the same opening, within what a viewer sees."
    away = (jaw(talker, hello)-jaw(talker, replace(hello, samples=hello.samples*.1))).abs()
    assert away.mean() < .01 and away.max() < .1


def test_a_rate_does_not_matter(talker, hello):
    a, b = jaw(talker, hello), jaw(talker, hello.resample(44100))
    assert len(a) == len(b) and (a-b).abs().mean() < .02


@pytest.mark.parametrize("fps", [10, 24, 25, 29.97, 50, 60])
def test_frames_cover_the_sound(talker, hello, fps):
    assert len(talker.speak(hello, fps=fps)) == frame_count(hello.seconds, fps)


def test_a_file_and_its_samples_say_the_same(talker, hello):
    assert_close(jaw(talker, samples("hello.flac")), jaw(talker, hello))


def test_one_seed_one_film(talker, hello):
    a, b, c = (talker.speak(hello, size=64, seed=s) for s in (3, 3, 4))
    assert torch.equal(a.frames[30], b.frames[30]) and not torch.equal(a.motion.rotation, c.motion.rotation)


def test_louder_styles_open_wider(talker, hello):
    mean = {k: jaw(talker, hello, style=k).mean() for k in STYLES}
    assert mean["mumbling"] < mean["calm"] < mean["neutral"] < mean["lively"]


def test_an_unknown_style_names_the_known(talker, hello):
    with pytest.raises(ValueError, match="neutral, lively, calm, mumbling"): talker.speak(hello, style="grumpy")


def test_blinks_come_as_often_as_asked():
    lids, turn = little_movements(25*240, 25, Style(blinks=15, sway=2), seed=1)
    starts = ((lids[1:] > .5) & (lids[:-1] <= .5)).sum()
    assert 45 <= starts <= 75 and turn.abs().max() < .07


def test_the_shipped_talker_looks_like_its_lesson(talker):
    clip = load_clip(samples("lesson"))
    _, kept = held_out(len(clip))
    score = torch.stack([psnr(render(talker.deform(**pose_at(clip.motion, i)), clip.camera(i), clip.background).rgb, clip.frames[i]) for i in kept[::6]])
    assert score.mean() > 31, score


def test_saving_keeps_the_talker(talker, hello, tmp_path):
    save(talker, tmp_path/"mine")
    again = load(tmp_path/"mine")
    assert (talker.speak(hello, size=96).frames[40]-again.speak(hello, size=96).frames[40]).abs().max() < .02
    with pytest.raises(ValueError, match="exists already"): save(talker, tmp_path/"mine")


def test_a_stranger_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="shipped are .*hello"): load("nobody")
    with pytest.raises(ValueError, match="holds no talker"): load(tmp_path)
    with pytest.raises(ValueError, match="not a talker of systems.hello"): read(dict(system="hello", cfg={}, names=[], parts=[]), {})
    assert "hello" in talkers() and type(load("demo")) is type(load("d3talker"))


def test_learning_says_what_a_clip_lacks():
    with pytest.raises(ValueError, match="audio, motion, cameras, background"): learn(Clip(Frames.stored(torch.zeros(2, 8, 8, 3, dtype=torch.uint8)), 25))


def test_learning_is_repeatable():
    clip = load_clip(samples("lesson"))
    cfg = Config(splats=800, move_steps=20, paint_steps=3)
    a, b = learn(clip, cfg), learn(clip, cfg)
    for x, y in zip(a.state_dict().values(), b.state_dict().values()): assert torch.equal(x, y)


def test_another_camera_and_motion_are_obeyed(talker, hello):
    own = talker.speak(hello)
    still = replace(own.motion, expr=torch.zeros_like(own.motion.expr), rotation=torch.zeros_like(own.motion.rotation))
    clip = talker.speak(hello, motion=still, camera=orbit(30, width=80, height=96, **VIEW))
    assert clip.frames[0].shape == (96, 80, 3) and torch.equal(clip.frames[0], clip.frames[50])


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_length_costs_no_memory(talker, tmp_path):
    "Between the 100th and the last frame of 12 s of speech the process grows by next to nothing; benchmarks/long_speech.py measures half an hour."
    sound = read_audio(samples("hello.flac"), 16000)
    long = Audio(sound.samples.repeat(10)[:12*16000], 16000)
    clip, page, seen = talker.speak(long, size=128), os.sysconf("SC_PAGE_SIZE"), {}
    def watch(frames):
        for i, frame in enumerate(frames):
            seen[i] = int(open("/proc/self/statm").read().split()[1])*page/1e6
            yield frame
    clip.save(tmp_path/"out.mp4", progress=watch)
    assert seen[len(clip)-1]-seen[100] < 20, (seen[100], seen[len(clip)-1])


def test_spoken_frames_can_be_learned_from(talker, hello):
    "A film of ours is data like any other: gradients flow through losses on its frames."
    image = talker.speak(hello, size=32).frames[3]
    (image*torch.ones((), requires_grad=True)).sum().backward()


def test_a_motion_s_head_is_obeyed(talker, hello):
    "Turn, shift and gaze of a given motion are drawn; names it lacks stay at rest."
    own = talker.speak(hello).motion
    at_rest = Motion.still(own.expr[:4, :1], ("jawOpen",), 25)
    frame = lambda **kw: talker.speak(hello, motion=replace(at_rest, **kw), size=64).frames[0]
    plain = frame()
    for change in (dict(rotation=torch.full((4, 3), .1)), dict(translation=torch.full((4, 3), .01)), dict(gaze=torch.full((4, 2), .3))):
        assert (frame(**change)-plain).abs().max() > .05, change
    with pytest.raises(ValueError, match="no mouthPucker"):
        learn(replace(load_clip(samples("lesson")), motion=replace(load_clip(samples("lesson")).motion, names=("jawOpen", "other", "eyeBlinkLeft", "eyeBlinkRight"))))


def test_a_style_without_blinks_has_none():
    assert little_movements(500, 25, Style(blinks=0))[0].max() == 0


def test_blinks_do_not_run_out():
    for seed in range(5):
        lids, _ = little_movements(25*600, 25, Style(blinks=14), seed)
        assert (lids[-25*10:] > .5).any()
