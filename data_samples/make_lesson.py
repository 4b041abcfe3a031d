"""Film the lesson: the procedural head reads lesson.flac while the camera swings around it.

    python data_samples/make_lesson.py     writes data_samples/lesson/ (the clip the demo learns from)

Nothing here comes from a person: the voice is espeak-ng's, the head is sculpted by code, the mouth follows the phone
times through the small table below (jaw opening and rounding a phone class, smoothed; lips shut on p, b, m).
"""
import json
import math
import shutil
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from talkinglab.core.camera import orbit
from talkinglab.core.clip import Clip, Frames, Motion
from talkinglab.core.clock import frame_count, frame_times
from talkinglab.core.media import read_audio, to_uint8
from talkinglab.face.rig import pose
from talkinglab.face.mesh import backdrop, draw
from talkinglab.face.sculpt import sculpt_head
from talkinglab.systems.hello import NAMES, VIEW

HERE = Path(__file__).resolve().parent
FPS, SIZE = 25, 256

# Jaw and rounding, 0 to 1, by the first symbol that a phone's IPA name holds.
SHAPES = [("pbm", 0., .05), ("fv", .10, 0.), ("w", .15, .95), ("uʊ", .20, .90), ("oɔ", .50, .60), ("ɑaæ", .85, 0.), ("ɛeʌəɐɜɚ", .50, 0.),
          ("ɪiy", .28, 0.), ("ʃʒ", .15, .50), ("ɹr", .25, .35), ("l", .30, .05), ("tdnszθð", .18, 0.), ("kgɡŋhjx", .28, 0.)]


def smooth(x, sigma, rate=100):
    "Gaussian blur along the first axis; sigma in seconds, ends repeated."
    r = max(1, round(3*sigma*rate))
    k = torch.exp(-torch.arange(-r, r+1).div(sigma*rate).square()/2)
    pad = torch.cat([x[:1].expand(r, -1), x, x[-1:].expand(r, -1)])
    return (pad.unfold(0, 2*r+1, 1)*(k/k.sum())).sum(-1)


def mouth_curves(phones, seconds, fps):
    "Phone times -> jaw opening and rounding at frame centres, t 2."
    x, shut = torch.zeros(math.ceil(seconds*100)+1, 2), torch.zeros(math.ceil(seconds*100)+1, 1)
    for start, end, label in phones:
        parts = [(j, r) for c in label for group, j, r in SHAPES if c in group] or [(0., 0.)]
        cuts = torch.linspace(start*100, end*100, len(parts)+1).round().long().tolist()
        for (j, r), a, b in zip(parts, cuts, cuts[1:]): x[a:b] = torch.tensor([j, r])
        if any(c in "pbm" for c in label): shut[round(start*100):round(end*100)] = 1
    x = smooth(x, .035)
    x[:, :1] *= 1-smooth(shut, .012)
    at = (frame_times(frame_count(seconds, fps), fps)*100).round().long().clamp(max=len(x)-1)
    return x[at]


def blinks(n, fps, every=1.7, length=.36):
    "Lids that fall and rise, more often than a person's: the lesson must show them shut from every side."
    t = frame_times(n, fps) % every-every/2
    return torch.exp(-(t/(length/3)).square())


def main():
    out = HERE/"lesson"
    audio = read_audio(HERE/"lesson.flac")
    phones = [tuple(p) for p in json.loads((HERE/"lesson.json").read_text(encoding="utf-8"))["phones"]]
    curves = mouth_curves(phones, audio.seconds, FPS)
    n = len(curves)
    lid = blinks(n, FPS)
    motion = Motion.still(torch.cat([curves, lid[:, None], lid[:, None]], 1), NAMES, FPS)
    rig = sculpt_head()
    place = [rig.names.index(k) for k in NAMES]
    t = torch.arange(n)/n*2*math.pi
    cameras = [orbit(36*math.sin(2*a), 9*math.sin(3*a+1), width=SIZE, height=SIZE, **VIEW) for a in t.tolist()]
    wall = torch.from_numpy(to_uint8(backdrop(SIZE, SIZE))).float()/255
    images = []
    for i in tqdm(range(n), desc="filming", file=sys.stderr):
        expr = torch.zeros(len(rig.names))
        expr[place] = motion.expr[i]
        image, _ = draw(rig.surface, pose(rig, expr), cameras[i], wall)
        images.append(torch.from_numpy(to_uint8(image)))
    clip = Clip(Frames.stored(torch.stack(images)), FPS, audio, cameras, motion, None, phones, wall,
                dict(actor="procedural head", script="data_samples/make_lesson.py", person="none: synthetic"))
    if out.exists(): shutil.rmtree(out)
    clip.save(out, quality=17)
    print(f"{out.name}: {n} frames, {sum(p.stat().st_size for p in out.iterdir())/1e3:.0f} kB")


if __name__ == "__main__": main()
