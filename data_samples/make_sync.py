"""Make the judge of lip sync: synthetic speech, actors who perform it, two towers that learn what belongs together.

    python data_samples/make_sync.py                        # weights into data_samples/sync; some 15 minutes on one core
    python data_samples/make_sync.py --check                # examine the shipped weights (flite; with --data also real faces)
    python data_samples/make_sync.py --data ../shared/data  # with ICT-FaceKit's and MakeHuman's heads, the real films for --check

Speech is espeak-ng's, in the random voices of make_ears.py. Heads: the procedural one, and others where `--data` has them
(ict_facekit/ict_facekit_compact.npz, makehuman_head/makehuman_head_compact.npz). The examination has other people, other styles, other
voices (flite's, made from recordings of real people; `apt-get install flite`), and GRID's films. Nothing is trained on those and the recipe was chosen
on held-out actors, but the actors' lateness was added after a look at GRID (face/sync_train.py, LATE): they are no clean test of timing.
"""
import argparse
import json
import random
import re
import subprocess
import tempfile
import time
from pathlib import Path

import make_ears
import make_speech
import numpy as np
import torch

from talkinglab.audio.features import features
from talkinglab.core.media import Audio, open_audio, read_audio
from talkinglab.face.rig import load_ict, load_makehuman
from talkinglab.face.sync import MEDIAPIPE_68, Expert, lip_shape, load_expert, save_expert
from talkinglab.face.sync_train import Library, bodies, examine, landmarks_of, track, train
from talkinglab.face.viseme import normalize_phones

HERE = Path(__file__).resolve().parent
OUT = HERE/"sync"
MINUTES, STEPS, PEOPLE = 60, 700, 14


def mel_of(wave, rate): return features(Audio(torch.from_numpy(np.asarray(wave, np.float32)), rate), 100., ("mel",)).x


def speech(minutes: float, seed: int) -> list:
    "[(mel, phones)] in 150 random voices; half of it in a made-up room."
    r, noise, texts, out, seconds = random.Random(seed), np.random.default_rng(seed), make_ears.sentences(), [], 0.
    with tempfile.TemporaryDirectory() as folder:
        home = make_ears.studio(Path(folder), r)
        while seconds < 60*minutes:
            said = make_ears.something_said(r, texts, len(out))
            wave, rate, events = make_speech.synthesize(said, home, seed=len(out))
            if len(wave) < 1.5*rate: continue
            before, after = r.uniform(.05, .6), r.uniform(.05, .5)
            wave = np.concatenate([np.zeros(round(before*rate)), wave, np.zeros(round(after*rate))])
            phones = make_ears.arpabet(make_speech.phones([(t + round(before*rate)/rate, name) for t, name in events], wave, rate), said)
            if r.random() < .5: wave = make_ears.room(wave, rate, noise)
            out.append((mel_of(.1*wave/(np.sqrt(np.mean(wave**2)) + 1e-6), rate), phones))
            seconds += len(wave)/rate
    return out


def heads(data: Path | None) -> list:
    "The rigs there are; None is the procedural one."
    found = [None]
    for load, path in ((load_ict, "ict_facekit/ict_facekit_compact.npz"), (load_makehuman, "makehuman_head/makehuman_head_compact.npz")):
        if data is not None and (data/path).is_file(): found.append(load(data/path))
    return found


def strangers(data: Path | None, minutes: float = 4, seed: int = 77, human: float = 0.) -> dict:
    """Held-out actors, by head: voices (flite's), people and styles that training never met; landmarks that tremble by a tracker's third of a pixel.

    human=0: the actor of chapter 35; 1: as late, unsteady and badly tracked as those who taught."""
    g, said, out = torch.Generator().manual_seed(seed), flite(minutes, seed), {}
    for name, rig in zip(("procedural", "ict", "makehuman"), heads(data)):
        people, clips = bodies(4, 1000+seed, rig), []
        for k, (mel, phones) in enumerate(said):
            x = lip_shape(landmarks_of(phones, len(mel)/100, people[k%len(people)], g, 25., human))
            clips.append((mel, track(x[None], g)[0] if human else x + .005*torch.randn(x.shape, generator=g)))
        out[name] = clips
    return out


def flite(minutes: float, seed: int) -> list:
    "[(mel, phones)]: flite's four voices read sentences in other orders."
    make_ears.need_flite()
    r, lines, out, seconds = random.Random(seed), make_ears.UNSEEN, [], 0.
    with tempfile.TemporaryDirectory() as folder:
        while seconds < 60*minutes:
            path, text = Path(folder)/"a.wav", " ".join(r.sample(lines, 3))
            said = subprocess.run(["flite", "-voice", ("awb", "rms", "slt", "kal16")[len(out)%4], "-psdur", "--setf", f"duration_stretch={r.uniform(.85, 1.2):.2f}",
                                   "-o", str(path), "-t", text], capture_output=True, text=True, check=True).stdout
            ends = [(name, float(end)) for name, end in re.findall(r"(\w+):([\d.]+)", said)]
            audio = read_audio(path)
            phones = normalize_phones([(a, b, name) for a, (name, b) in zip([0.]+[e for _, e in ends], ends) if b > a])
            out.append((mel_of(audio.samples.numpy(), audio.rate), phones))
            seconds += audio.seconds
    return out


def grid(folder: Path) -> list:
    "GRID's films: sound and tracked lips; 360 x 288 px, 25 frames a second."
    out = []
    for path in sorted(folder.glob("*.track.npz")):
        points = torch.from_numpy(np.load(path)["landmarks"].astype(np.float32))[:, list(MEDIAPIPE_68), :2]*torch.tensor([360., 288.])
        out.append((features(open_audio(path.with_name(path.name.replace(".track.npz", ".mpg"))), 100., ("mel",)).x, lip_shape(points)))
    return out


def check(data: Path | None) -> dict:
    "The issue's figures."
    expert, report = load_expert(), {}
    tests = {f"actor, {k}": v for k, v in strangers(data).items()} | {f"unsteady actor, {k}": v for k, v in strangers(data, human=1.).items()}
    if data is not None and (data/"grid_s1").is_dir(): tests["GRID, real faces"] = grid(data/"grid_s1")
    for name, clips in tests.items():
        found = examine(expert, clips)
        report[name] = {k: v for k, v in found.items() if not k.endswith("by_window")}
        print(name, {k: round(v, 3) if isinstance(v, float) else v for k, v in report[name].items() if k != "offsets"}, flush=True)
    return report


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, help="folder with other heads and real films")
    p.add_argument("--check", action="store_true", help="examine the shipped weights")
    p.add_argument("--minutes", type=float, default=MINUTES)
    p.add_argument("--steps", type=int, default=STEPS)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=OUT)
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.check:
        print(json.dumps(check(a.data)))
        return
    t = time.perf_counter()
    said = speech(a.minutes, a.seed)
    print(f"{sum(len(m) for m, _ in said)/6000:.0f} minutes of speech, {time.perf_counter()-t:.0f} s", flush=True)
    people = [b for rig in heads(a.data) for b in bodies(PEOPLE, a.seed, rig)]
    library = Library.of(said, people, 3, a.seed)
    print(f"{len(people)} people have performed it, {time.perf_counter()-t:.0f} s", flush=True)
    torch.manual_seed(a.seed)
    expert = train(Expert(), library, a.steps, seed=a.seed, progress=True)
    save_expert(expert, a.out)
    print(f"{a.out}: {sum(f.stat().st_size for f in a.out.glob('*.safetensors'))/1e3:.0f} kB, {time.perf_counter()-t:.0f} s")


if __name__ == "__main__": main()
