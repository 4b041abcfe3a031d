"""D3-Talker's ablation table on the virtual actor, where the truth is known.

    python benchmarks/d3talker.py            # three seeds: some 90 minutes on two cores; called again it goes on where it was
    python benchmarks/d3talker.py --smoke    # one seed, a fifth of the steps: under ten minutes; nothing is kept
    python benchmarks/d3talker.py --shipped  # the shipped head: frames a second, and real speech it never heard
    -> benchmarks/results/d3talker.json

Five people who do not exist (espeak-ng's voices, random faces, random styles) teach the prior with 20 s each; seed s then meets somebody new,
learns from the first 5, 10, 15 or 20 s of their film, and is judged on the last 12 s, which nothing was chosen on.
PSNR and SSIM are of the picture (128 px), `mouth` of the box around the mouth. Landmarks are where the fields carry the 68 resting ones (no landmark
finder stands between): LMD in px, and what `face.sync`'s expert says about them, LSE-C and LSE-D, beside the truth's own.
"""
import argparse
import json
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from report import RESULTS, ROOT, keep, where

sys.path.insert(0, str(ROOT/"data_samples"))
TEACHERS, SECONDS, LONG, TAIL, GAP = 5, 20, 36, 12, 20
# Name -> what the prior is made with
PRIORS = dict(full={}, similar=dict(negative=0.), negative=dict(similar=0.), none=dict(similar=0., negative=0.), audio=dict(motion="audio"))
# Row -> prior, seconds to adapt on, gains of both fields when tested, changes, and the paper's numbers (PSNR, SSIM, LMD, Sync-C) for the same setting
ROWS = {"full": ("full", 20, (1., 1.), {}, (32.566, .936, 3.060, 6.453)), "audio only": ("audio", 20, (1., 1.), {}, (32.176, .932, 3.251, 5.012)),
        "general only": ("full", 20, (1., 0.), {}, (30.546, .913, 3.472, 4.414)), "individual only": ("full", 20, (0., 1.), {}, (30.391, .901, 3.930, .681)),
        "no contrast": ("none", 20, (1., 1.), {}, (30.584, .916, 3.907, 5.004)), "similar only": ("similar", 20, (1., 1.), {}, (32.528, .935, 3.157, 6.217)),
        "negative only": ("negative", 20, (1., 1.), {}, (32.539, .936, 3.228, 6.021)), "no refiner": ("full", 20, (1., 1.), dict(refiner=0), (32.049, .931, 3.126, 6.333)),
        "5 s": ("full", 5, (1., 1.), {}, (30.595, .916, 3.283, 5.761)), "10 s": ("full", 10, (1., 1.), {}, (31.518, .927, 3.194, 6.015)),
        "15 s": ("full", 15, (1., 1.), {}, (32.291, .934, 3.156, 6.538)), "10 s, from scratch": (None, 10, (1., 1.), {}, None)}
SCORES = ("psnr", "mouth", "ssim", "lmd", "lse_c", "lse_d", "gap_r")


def camera(cfg):
    from talkinglab.core.camera import orbit
    from talkinglab.systems.d3talker import VIEW
    return orbit(0, width=cfg.size, height=cfg.size, **VIEW)

def body(number):
    "The resting head of one of the cast, as a tracker would have found it."
    from talkinglab.face.actor import cast, embody
    return embody(cast(number+1)[number])

def film(work, number, seconds, cfg):
    "Somebody's film, made once, kept as a clip."
    from make_d3talker import act, speak
    from talkinglab.core.clip import load_clip
    from talkinglab.face.actor import shoot
    folder = work/f"film{number}_{cfg.size}"
    if not folder.is_dir(): shoot(act(speak(number, seconds)), camera(cfg), masks=True).save(folder, quality=12)
    return load_clip(folder)

def shipped_mover():
    "The shipped mover."
    import talkinglab as tl
    return tl.load("d3talker").mover

@torch.no_grad()
def scores(talker, track, frames, rig, sound, gains=(1., 1.)):
    "One row of the table: means over held-out frames."
    from talkinglab.core.image import psnr, ssim
    from talkinglab.core.media import Audio
    from talkinglab.face.sync import rig_landmarks, sync
    from talkinglab.gs.render import render
    from talkinglab.measure.image import box_mask, lmd
    from talkinglab.systems.d3talker import FPS
    person, cfg = talker.people[0], talker.cfg
    rest, sums, marks = talker.rest(person), dict(psnr=[], mouth=[], ssim=[]), []
    for i in frames:
        m, true = track.moment(i, cfg.reach), track.images[i].float()/255
        moved, heard = talker.signals(person, m)
        o = talker.offsets(person, rest, moved, heard, m.upper, gains)
        rgb = render(talker.gaussians(rest, o, m, gains), track.cameras[i], track.background, depth=False).rgb
        rgb = (rgb if talker.refiner is None else talker.refiner(rgb, person.style)).clamp(0, 1)
        sums["psnr"].append(psnr(rgb, true))
        sums["mouth"].append(psnr(rgb, true, box_mask(track.boxes[i], *true.shape[:2]).float()))
        sums["ssim"].append(ssim(rgb, true))
        marks.append(talker.landmarks(person, moved, heard, m.upper, gains))
    out = {k: float(torch.stack(v).mean()) for k, v in sums.items()}
    seen = torch.stack(marks)[..., :2]*torch.tensor([1., -1.])          # from the front, y down, m
    truth = rig_landmarks(rig, track.motion)[list(frames)]
    px = float(track.cameras[0].K[0, 0])/1.1                             # px a metre where the lips are
    a, b = (int(t/FPS*sound.rate) for t in (frames[0], frames[-1]+1))
    heard = Audio(sound.samples[a:b], sound.rate)
    said, should = sync(seen, heard), sync(truth, heard)
    gap = lambda x: x[:, 66, 1]-x[:, 62, 1]
    return out | dict(lmd=float(lmd(seen*px, truth*px)), lse_c=said.lse_c, lse_d=said.lse_d, offset=said.offset, true_lse_c=should.lse_c, true_lse_d=should.lse_d,
                      gap_r=float(torch.corrcoef(torch.stack([gap(seen), gap(truth)]))[0, 1]))

@torch.no_grad()
def decoupling(talker, tracks, said, step=2):
    """What a linear reader finds in each field's offsets of the mean face's landmarks: who speaks (chance 1 of 5), what is said (12 classes).

    All fields are asked about the same places, so that the places tell nothing: the General one with everybody's motion code, each Individual one with its
    own person's voice. The reader is tried on stretches of 4 s (who) and on people (what) that it has not met."""
    from talkinglab.measure.disentangle import probe
    at = torch.stack([p.landmarks for p in talker.people]).mean(0)[17:]
    x, who, what, block, general = dict(general=[], individual=[]), [], [], [], talker.general.face
    for k, track in enumerate(tracks):
        person, own = talker.people[k], talker.people[k].fields.face
        shared, mine = general.locate(at), own.locate(at)
        for i in range(0, len(track), step):
            if said[k][i] < 0: continue
            moved, heard = talker.signals(person, track.moment(i, talker.cfg.reach))
            x["general"].append(general(shared, moved)["means"].flatten()*1000)
            x["individual"].append(own(mine, heard)["means"].flatten()*1000)
            who.append(k)
            what.append(int(said[k][i]))
            block.append(i//100)
    who, what, block = (torch.tensor(v) for v in (who, what, block))
    out = {}
    for name, rows in x.items():
        rows = torch.stack(rows)
        for label, y, groups in (("identity", who, dict(stretch=block)), ("content", what, dict(person=who))):
            p = probe(rows, y, groups)
            out[f"{name} {label}"] = dict(accuracy=round(p.accuracy, 4), chance=round(p.chance, 4), low=round(p.low, 4), high=round(p.high, 4))
        out[f"{name} size"] = round(float(rows.square().mean().sqrt()), 4)
    return out

def classes(phones, n):
    "Viseme class of every frame; -1 where nothing is said."
    from talkinglab.audio.encoders import VISEMES, viseme_of
    from talkinglab.face.viseme import phone_frames
    out = torch.full((n,), -1)
    for (_, _, p), frames in zip(phones, phone_frames(phones, n, 25.)):
        name = viseme_of(p)[0][1]
        if name != "SIL": out[frames.start:frames.stop] = VISEMES.index(name)
    return out


def bundle(work, seed, prior, plan, only=None):
    "One prior and every row that starts from it. What is done already is not done again."
    torch.set_num_threads(1)
    from talkinglab.measure.split import few_shot
    from talkinglab.systems.d3talker import Config, adapted, new_person, new_talker, read_film, train
    work = Path(work)
    rows = {k: v for k, v in ROWS.items() if v[0] == prior and not (work/f"{seed}_{k}.json").is_file()}
    if not rows and (prior is None or (work/f"{seed}_{prior}.probe.json").is_file()): return
    mover, cfg = shipped_mover(), Config(seed=seed, **PRIORS.get(prior, {}))
    teacher = None
    if prior is not None:
        films = [film(work, k, SECONDS, cfg) for k in range(TEACHERS)]
        tracks = [read_film(c, cfg, mover, body(k)) for k, c in enumerate(films)]
        state = work/f"{seed}_{prior}.pt"
        teacher = new_talker(cfg, [new_person(body(k), cfg) for k in range(TEACHERS)], mover)
        folder = work/f"{seed}_{prior}"
        if state.is_file(): teacher.load_state_dict(torch.load(state, weights_only=True))
        else:
            folder.mkdir(exist_ok=True)
            start = time.time()
            train(teacher, tracks, [range(len(t)) for t in tracks], plan, ("static", "follow", "talk"), folder=folder)
            part = state.with_suffix(".part")
            torch.save(teacher.state_dict(), part)
            part.rename(state)
            shutil.rmtree(folder)
            (work/f"{seed}_{prior}.time.json").write_text(json.dumps(dict(minutes=(time.time()-start)/60)))
        teacher.eval().requires_grad_(False)
        found = decoupling(teacher, tracks, [classes(c.phones, len(c)) for c in films])
        (work/f"{seed}_{prior}.probe.json").write_text(json.dumps(found))
    who = TEACHERS+seed
    clip, rig = film(work, who, LONG, cfg), body(who)
    track = read_film(clip, cfg, mover, rig, depths=True)
    kept, short = {}, replace(plan, follow=plan.follow//2, shared=.3 if prior else 1.)
    for name, (_, seconds, gains, changes, _) in rows.items():
        key = (seconds, tuple(changes.items()))
        if key not in kept:
            own, split, start = replace(cfg, **changes), few_shot(len(track), 25., seconds, TAIL, GAP), time.time()
            person = new_person(rig, own)
            if teacher is None: talker = new_talker(own, [person], mover)
            else: talker = adapted(teacher, person, own)
            train(talker, [track], [split.train.tolist()], short, geometric=True)
            kept[key] = talker, split.test.tolist(), time.time()-start
        talker, test, seconds_taken = kept[key]
        row = scores(talker, track, test, rig, clip.audio, gains) | dict(adapt_s=round(seconds_taken, 1))
        (work/f"{seed}_{name}.json").write_text(json.dumps(row))


@torch.no_grad()
def real_speech(data):
    "The shipped head on recordings of real people that nothing here has heard, with phone times: do lips meet on p, b, m, and open on open vowels? Gaps in face heights."
    import talkinglab as tl
    from actor import spoken
    from make_d3talker import HEAD
    from talkinglab.core.media import Audio, read_audio
    from talkinglab.audio.encoders import encode
    from talkinglab.face.motion import face_height, lip_gap
    from talkinglab.face.rig import pose
    from talkinglab.face.viseme import STYLES, check_lips
    from talkinglab.systems.d3talker import FPS, Codes, upper_curves
    talker = tl.load("d3talker")
    person, rig = talker.people[0], body(HEAD["number"])
    height, gaps, moved, said, at = face_height(rig, rig.vertices), [], [], [], 0
    for sound, phones in spoken(data).values():
        audio = read_audio(sound)
        audio = Audio(audio.samples[:int(min(audio.seconds, phones[-1][1])*audio.rate)], audio.rate)
        motion = talker.move(audio, STYLES["neutral"])
        codes, upper = Codes(talker, person, motion, encode(audio, talker.cfg.encoder, 2*FPS)), upper_curves(motion)
        marks = torch.stack([talker.landmarks(person, *codes[i], upper[i]) for i in range(len(motion))])
        gaps.append((marks[:, 62]-marks[:, 66]).norm(dim=1)/height)
        moved.append(lip_gap(rig, pose(rig, motion.expr)))
        said += [(a+at/FPS, b+at/FPS, label) for a, b, label in phones]
        at += len(motion)
    show = lambda g: {k: round(v, 4) for k, v in check_lips(said, torch.cat(g), FPS).items()}
    return dict(frames=at, fields=show(gaps), mover_on_the_rig=show(moved))

@torch.no_grad()
def beside_hello():
    "The shipped head and the smallest talker on every bundled recording, in their neutral styles, against what the actor makes of the true phones."
    import talkinglab as tl
    from make_d3talker import HEAD
    from talkinglab.audio.encoders import encode
    from talkinglab.core.assets import samples
    from talkinglab.core.clip import Motion
    from talkinglab.core.media import read_audio
    from talkinglab.face.actor import embody, perform
    from talkinglab.face.motion import face_height
    from talkinglab.face.sync import rig_landmarks, sync
    from talkinglab.face.viseme import STYLES, check_lips
    from talkinglab.systems import hello
    from talkinglab.systems.d3talker import FPS, Codes, upper_curves
    talker, small = tl.load("d3talker"), tl.load("hello")
    person, plain, mine, rows = talker.people[0], embody(), body(HEAD["number"]), []
    for path in sorted(samples().glob("*.flac")):
        audio, take = read_audio(path), perform(path, path.with_suffix(".json"))
        motion = talker.move(audio, STYLES["neutral"])
        codes, upper = Codes(talker, person, motion, encode(audio, talker.cfg.encoder, 2*FPS)), upper_curves(motion)
        marks = torch.stack([talker.landmarks(person, *codes[i], upper[i]) for i in range(len(motion))])[..., :2]*torch.tensor([1., -1.])
        jaw = Motion.still(torch.cat([small.curves(hello.hear(audio)).clamp(0, 1), torch.zeros(len(take), 2)], 1), hello.NAMES, FPS)
        truth, row = rig_landmarks(plain, take.motion), dict(name=path.stem)
        gap = lambda x: x[:, 66, 1]-x[:, 62, 1]
        for name, x, height in (("d3talker", marks, face_height(mine, mine.vertices)), ("hello", rig_landmarks(plain, jaw), face_height(plain, plain.vertices)), ("actor", truth, face_height(plain, plain.vertices))):
            judged = sync(x, audio)
            lips = check_lips(take.phones, gap(x)/height, FPS)
            row[name] = dict(gap_r=float(torch.corrcoef(torch.stack([gap(x), gap(truth)]))[0, 1]), lse_c=judged.lse_c, lse_d=judged.lse_d, closed=lips["closed"], bilabials=lips["count"])
        rows.append(row)
    mean = lambda who, k: round(float(torch.tensor([r[who][k] for r in rows if r[who]["bilabials"] or k != "closed"]).mean()), 4)
    return dict(recordings=len(rows), **{who: {k: mean(who, k) for k in ("gap_r", "lse_c", "lse_d", "closed")} for who in ("d3talker", "hello", "actor")})

def speed():
    "Sound to pictures, everything counted, on all threads; and the parts of a frame."
    import talkinglab as tl
    from talkinglab.core.assets import samples
    talker, best = tl.load("d3talker"), 0.
    clip = talker.speak(samples("hello.flac"))
    for _ in clip.frames: pass
    for _ in range(3):
        start = time.perf_counter()
        for _ in talker.speak(samples("hello.flac")).frames: pass
        best = max(best, len(clip)/(time.perf_counter()-start))
    return dict(size=talker.cfg.size, gaussians=len(talker.people[0].face())+len(talker.people[0].mouth()), threads=torch.get_num_threads(), fps=round(best, 1),
                parameters=sum(p.numel() for p in talker.parameters()))


def table(work, seeds):
    "Rows with means and spread; and for each, whether the difference to the full model has the paper's sign."
    rows = []
    get = lambda s, name: json.loads((work/f"{s}_{name}.json").read_text()) if (work/f"{s}_{name}.json").is_file() else None
    full = [get(s, "full") for s in seeds]
    for name, (_, _, _, _, paper) in ROWS.items():
        got = [get(s, name) for s in seeds]
        if any(g is None for g in got): continue
        row = dict(name=name, seeds=len(got))
        for k in SCORES+("offset", "adapt_s", "true_lse_c", "true_lse_d"):
            v = torch.tensor([float(g[k]) for g in got])
            row[k] = dict(mean=round(v.mean().item(), 4), spread=round((v.max()-v.min()).item(), 4), each=[round(x, 4) for x in v.tolist()])
        if paper and name != "full" and all(full):
            signs = {}
            for k, theirs, base in zip(("psnr", "ssim", "lmd", "lse_c"), paper, ROWS["full"][4]):
                d = torch.tensor([float(g[k])-float(f[k]) for g, f in zip(got, full)])
                signs[k] = dict(paper=round(theirs-base, 3), ours=round(d.mean().item(), 4), seeds_agree=int(((d > 0) == (theirs > base)).sum()))
            row["against_full"] = signs
        rows.append(row)
    probes = {}
    for p in PRIORS:
        found = [json.loads(f.read_text()) for s in seeds if (f := work/f"{s}_{p}.probe.json").is_file()]
        if found: probes[p] = {k: [x[k]["accuracy"] if isinstance(x[k], dict) else x[k] for x in found]+([f"chance {found[0][k]['chance']}"] if isinstance(found[0][k], dict) else []) for k in found[0]}
    return rows, probes


def stored():
    "What was measured before: parts are replaced one by one."
    return json.loads((RESULTS/"d3talker.json").read_text()) if (RESULTS/"d3talker.json").is_file() else {}


def main():
    from talkinglab.systems.d3talker import Plan
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--smoke", action="store_true", help="one seed, a fifth of the steps")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--shipped", action="store_true", help="only the shipped head: real speech, and speed")
    p.add_argument("--data", type=Path, default=ROOT.parent/"shared"/"data", help="real recordings with phone times; left out where absent")
    p.add_argument("--work", type=Path, default=ROOT/"out"/"d3talker", help="films, priors and finished rows")
    p.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    a = p.parse_args()
    if a.shipped:
        result = dict(shipped=where() | dict(speed=speed(), beside_hello=beside_hello())) | (dict(real_speech=where() | real_speech(a.data)) if a.data.is_dir() else {})
        keep("d3talker", stored() | result)
        return print(json.dumps(result, indent=1))
    work, seeds, plan = (a.work/"smoke", [0], Plan(static=40, follow=100, pretrain=300, adapt=120, refine=20)) if a.smoke else (a.work, list(range(a.seeds)), Plan(static=80, follow=200, pretrain=700, adapt=300, refine=50))
    work.mkdir(parents=True, exist_ok=True)
    start = time.time()
    from talkinglab.systems.d3talker import Config
    for k in range(TEACHERS+len(seeds)): film(work, k, SECONDS if k < TEACHERS else LONG, Config())
    print(f"films: {time.time()-start:.0f} s", flush=True)
    jobs = [(s, q) for s in seeds for q in ("full", None, "none", "negative", "similar", "audio")]
    with ProcessPoolExecutor(a.jobs, get_context("spawn")) as pool:
        for done in as_completed(todo := {pool.submit(bundle, str(work), s, q, plan): (s, q) for s, q in jobs}):
            done.result()
            print(f"{time.time()-start:6.0f} s  seed {todo[done][0]}, prior {todo[done][1]}", flush=True)
    rows, probes = table(work, seeds)
    result = where(1) | dict(seeds=seeds, plan=vars(plan), rows=rows, probes=probes, seconds=round(time.time()-start))
    if not a.smoke: keep("d3talker", stored() | result)
    print(f"\n{'':22}"+"".join(f"{k:>16}" for k in SCORES))
    for r in rows: print(f"{r['name']:22}"+"".join(f"{r[k]['mean']:9.3f} ±{r[k]['spread']/2:5.3f}" for k in SCORES))
    for k, v in probes.items(): print(k, v)


if __name__ == "__main__": main()
