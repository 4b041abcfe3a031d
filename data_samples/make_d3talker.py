"""Make the shipped D3-Talker: people who do not exist speak, the shared parts learn from all of them, then meet one more.

    python data_samples/make_d3talker.py    # speech, mover, films, prior, head -> data_samples/talkers/d3talker; some 40 minutes on two cores

The voices are espeak-ng's (`apt-get install libespeak-ng1`), the people the virtual actor's cast, each with a way to speak by lot.
"""
import argparse
import math
import random
import shutil
import sys
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import make_ears
import make_speech
import torch

from talkinglab.audio.encoders import encode
from talkinglab.core.camera import orbit
from talkinglab.core.clip import Frames, read_talker, write_talker
from talkinglab.core.fit import fit
from talkinglab.core.media import Audio
from talkinglab.face.actor import Take, cast, embody, perform, shoot
from talkinglab.face.viseme import STYLES, Style, mouth_curves, random_style, rig_gain
from talkinglab.measure.split import few_shot
from talkinglab.systems.d3talker import (FPS, MOUTH, VIEW, Config, Mover, Plan, adapted, mover_stage, new_person, new_talker, read_film, save, train)

sys.path.append(str(Path(__file__).resolve().parent.parent/"benchmarks"))
from d3talker import body, scores
from report import commit

HERE = Path(__file__).resolve().parent
# Voice, words a minute, pitch, melody
VOICES = [("en-us+m3", 165, 45, 60), ("en-us+f2", 180, 55, 70), ("en+m4", 155, 35, 50), ("en-us+f5", 170, 75, 80), ("en-us+m1", 150, 15, 45),
          ("en+f4", 150, 60, 50), ("en-us+m7", 175, 50, 70), ("en-us+f3", 165, 65, 60), ("en+m6", 160, 25, 60), ("en-us+f1", 160, 50, 60)]
GAP = .25  # s of silence between two sentences, at least


@dataclass(frozen=True)
class Speaker:
    "Somebody with something to say."
    number: int
    audio: Audio
    phones: list


def speak(number: int, seconds: float, seed: int = 0, voice: tuple | None = None) -> Speaker:
    "Sentences by lot, no two speakers the same, in one voice, until `seconds` are full."
    texts = make_ears.sentences()["en"]
    order = random.Random(seed).sample(range(len(texts)), len(texts))
    mine, name, rate, pitch, melody = order[number::24], *(voice or VOICES[number % len(VOICES)])
    waves, phones, at = [], [], 0.
    for k in mine:
        audio, record = make_speech.make(make_speech.Speech("", "en", name, texts[k], rate, pitch, melody), "")
        spans = [(round(a*1000), round(b*1000), label) for a, b, label in record["phones"]]
        phones += [(a+at, b+at, p) for a, b, p in make_ears.arpabet(spans, make_speech.Speech("", "en", name, texts[k]))]
        waves.append(audio.samples)
        at += audio.seconds
        if at >= seconds: break
    n = int(seconds*audio.rate)
    phones = [(a, min(b, seconds), p) for a, b, p in phones if a < seconds-.02]
    return Speaker(number, Audio(torch.cat(waves)[:n], audio.rate), phones)


def act(speaker: Speaker, seed: int = 0) -> Take:
    "The cast's member of that number, with a style by lot."
    identity = cast(speaker.number+1, seed)[speaker.number]
    style = random_style(torch.Generator().manual_seed(seed*1009+speaker.number))
    return perform(speaker.audio, speaker.phones, identity=identity, style=style, seed=seed*31+speaker.number)


def lessons(recordings: int = 20, seconds: float = 60, styles: int = 10, seed: int = 7) -> list:
    "What the ears hear in each recording, and the curves that the actor makes of its true phones, in some styles."
    gain, g, out = rig_gain(embody()), torch.Generator().manual_seed(seed), []
    for k in range(recordings):
        s = speak(k, seconds, seed+k//len(VOICES), VOICES[k % len(VOICES)])
        ways = [STYLES["neutral"]]*3+[random_style(g) for _ in range(styles-3)]
        out.append((encode(s.audio, "small", FPS).x, [(w.vector(), mouth_curves(s.phones, s.audio.seconds, FPS, w, MOUTH, gain)) for w in ways]))
    return out


def learn_mover(steps: int = 6000, recordings: int = 20, held: int = 2) -> tuple[Mover, float]:
    "Audio to motion, and the correlation of the visible jaw with the truth on recordings that it never heard."
    heard = lessons(recordings)

    def batch(b):
        g = torch.Generator().manual_seed(b)
        x, ways = heard[int(torch.randint(len(heard)-held, (), generator=g))]
        style, curves = ways[int(torch.randint(len(ways), (), generator=g))]
        a = int(torch.randint(len(x)-300, (), generator=g))
        return x[a:a+300], style, curves[a:a+300]
    torch.manual_seed(0)
    mover = Mover(heard[0][0].shape[1])
    fit(mover, mover_stage(steps), batch, progress=True)
    mover.eval().requires_grad_(False)
    apart = lambda c: (c[:, 0]-c[:, 1]).clamp(min=0)
    pairs = [(apart(mover(x, style)), apart(c)) for x, ways in heard[-held:] for style, c in ways[2:]]
    return mover, float(torch.corrcoef(torch.stack([torch.cat(v) for v in zip(*pairs)]))[0, 1])


TEACHERS, SECONDS, HEAD = 8, 20, dict(number=11, seconds=44, tail=12, swing=32)
CARD = """# D3-Talker, small: a head that learned to speak from eight others

Made by `data_samples/make_d3talker.py` with `talkinglab.systems.d3talker` (settings: config.json), commit {commit}, {date}.

- **Learned from** the virtual actor alone: eight people who do not exist, {seconds} s each, taught the shared parts; {own:.0f} s of one more, filmed by a camera that swings {swing} degrees to either side, taught the rest. Voices: espeak-ng. No person's face or voice.
- **Measured on** the last {tail} s of its film, never learned from; the sound drives the mouth, in her style, the rest is as filmed: PSNR {psnr:.1f} dB, around the mouth {mouth:.1f} dB; lip gap against the truth, correlation {gap_r:.2f}; LSE-C {lse_c:.2f}, LSE-D {lse_d:.2f} (of the truth {true_lse_c:.2f}, {true_lse_d:.2f}; our own judge).
- **Mover** (audio to motion): visible jaw against the truth on speech it never heard, correlation {mover:.2f}.
- **Hears** the shipped encoder `small`, which was trained on synthetic speech: real voices are followed less well (benchmarks/results/d3talker.json).
- **Faults** The individual field moves no lip: the general one does it all. Wide mouths are clipped: shouting opens little wider than plain speech. Round lips are ragged at the corners, with streaks on the cheek beside them.
- **Seed** {seed}, on a CPU.
- **Licence** CC0-1.0.
"""


def film(number: int, seconds: float, size: int, swing: float = 0.):
    "Somebody's film, drawn when somebody looks; the camera swings `swing` degrees to either side, once in seven seconds."
    take = act(speak(number, seconds))
    cameras = [orbit(swing*math.sin(2*math.pi*i/175), width=size, height=size, **VIEW) for i in range(len(take))]
    front = shoot(take, cameras[0])
    return replace(front, frames=Frames(len(take), lambda i: shoot(take, cameras[i]).frames[i], 2), cameras=cameras)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", type=Path, default=HERE.parent/"out"/"make_d3talker", help="checkpoints: a run that was stopped goes on")
    work = p.parse_args().work
    for part in ("prior", "head"): (work/part).mkdir(parents=True, exist_ok=True)
    made = work/"mover"
    if not made.is_dir():
        mover, r = learn_mover()
        write_talker(made, dict(system="mover", r=r), mover.state_dict(), "")
    note, weights = read_talker(made)
    mover = Mover()
    mover.load_state_dict(weights)
    mover.eval().requires_grad_(False)
    cfg, plan = Config(), Plan(follow=600, pretrain=4000)
    way = lambda clip: Style(**clip.meta["style"])  # read in their own styles, so that the General Field meets many: a talker of one style tears in others
    tracks = [read_film(c := film(k, SECONDS, cfg.size), cfg, mover, body(k), style=way(c)) for k in range(TEACHERS)]
    prior = new_talker(cfg, [new_person(body(k), cfg) for k in range(TEACHERS)], mover)
    train(prior, tracks, [range(len(t)) for t in tracks], plan, ("static", "follow", "talk"), folder=work/"prior", progress=True)
    large = replace(cfg, size=256, face=9000, mouth=1500)
    mine, rig = film(HEAD["number"], HEAD["seconds"], 256, HEAD["swing"]), body(HEAD["number"])
    track, split = read_film(mine, large, mover, rig, True, way(mine)), few_shot(len(mine), FPS, HEAD["seconds"]-HEAD["tail"]-1, HEAD["tail"], 20)
    talker = adapted(prior, new_person(rig, large), large)
    train(talker, [track], [split.train.tolist()], Plan(static=400, follow=300, adapt=2000, refine=400, shared=.3), geometric=True, folder=work/"head", progress=True)
    score = scores(talker, track, split.test.tolist(), rig, mine.audio)
    out = HERE/"talkers"/"d3talker"
    if out.exists(): shutil.rmtree(out)
    save(talker, out, CARD.format(commit=commit(), date=date.today(), seed=cfg.seed, seconds=SECONDS, own=len(split.train)/FPS, tail=HEAD["tail"], swing=HEAD["swing"], mover=note["r"], **score))
    print((out/"README.md").read_text())


if __name__ == "__main__": main()
