"""Learn the smallest talker from data_samples/lesson and put it into data_samples/talkers/hello.

    python data_samples/make_talker.py     a few minutes on two cores: five times the demo's own training
"""
import shutil
from pathlib import Path

import torch

from talkinglab.core.clip import load_clip
from talkinglab.core.image import psnr
from talkinglab.gs.render import render
from talkinglab.systems.hello import Config, hear, held_out, learn, pose_at, save

HERE = Path(__file__).resolve().parent

CARD = """# Hello's head: 12,000 Gaussians, learned from one synthetic clip

Made by `data_samples/make_talker.py` with `talkinglab.systems.hello` (settings: config.json).

- **Learned from** `data_samples/lesson`: {frames} frames of the procedural head reading an espeak-ng sentence. No person's face or voice.
- **Measured on** every tenth frame, never learned from: PSNR {psnr:.1f} dB (lowest {low:.1f}); jaw opening against the truth, correlation {jaw:.2f} on the lesson itself.
- **Hears** loudness and spectral centroid only: it follows the rhythm of speech, and closes its lips at few consonants.
- **Licence** CC0-1.0.
"""


def main():
    clip = load_clip(HERE/"lesson")
    talker = learn(clip, Config(paint_steps=800), progress=True)
    _, kept = held_out(len(clip))
    score = torch.stack([psnr(render(talker.deform(**pose_at(clip.motion, i)), clip.camera(i), clip.background).rgb, clip.frames[i]) for i in kept])
    jaw = torch.corrcoef(torch.stack([talker.curves(hear(clip.audio))[:len(clip), 0], clip.motion.curve("jawOpen")]))[0, 1]
    out = HERE/"talkers"/"hello"
    if out.exists(): shutil.rmtree(out)
    out.parent.mkdir(exist_ok=True)
    save(talker, out, CARD.format(frames=len(clip), psnr=score.mean().item(), low=score.min().item(), jaw=jaw.item()))
    print(f"{out}: {sum(p.stat().st_size for p in out.iterdir())/1e3:.0f} kB, {score.mean():.1f} dB")


if __name__ == "__main__": main()
