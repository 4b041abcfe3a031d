"""The virtual actor, measured: do lips meet on real phones, is style in the motion, how fast is a film, does a face finder find the head?

    python benchmarks/actor.py [--data ../shared/data]       # benchmarks/results/actor.json

Lips: real speech with phone times (LibriVox, LibriSpeech by MFA, Rhubarb's cues), the neutral style, every head there is. The gap is the distance of the inner
lips' mid-points over the face's height; the least within a consonant, the greatest within a vowel. Real people: medians of the GRID clips.
Style: a linear probe on 4 s of true motion, trained on some sentences and people, asked about others. Parts whose data are absent are left out, and said so.
"""
import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from report import RESULTS, ROOT, keep, where

REAL = dict(bilabial=.0045, labiodental=.0197, open=.066) # Medians of lip gap over face height, GRID speaker 1


def heads(data):
    "Name -> rig, or None for the procedural one."
    from talkinglab.face.rig import load_ict, load_makehuman
    found = {"procedural": None}
    for name, load, path in (("ict", load_ict, "ict_facekit/ict_facekit_compact.npz"), ("makehuman", load_makehuman, "makehuman_head/makehuman_head_compact.npz")):
        if (data/path).is_file(): found[name] = load(data/path)
    return found

def spoken(data):
    "Name -> (sound, phones) of real recordings with real phone times."
    from talkinglab.face.viseme import read_phones
    found = {p.stem.split(".")[0]: (p, read_phones(p.with_suffix(".phone.json"))) for p in sorted((data/"speech_librivox_aligned").glob("*.wav"))}
    mfa, cues = data/"speech_librispeech"/"libri1_first8s_mfa.TextGrid", data/"rhubarb_cues"
    if mfa.is_file(): found["librispeech_mfa"] = (data/"speech_librispeech"/"5703-47212-0000.hq.ogg", read_phones(mfa))
    if cues.is_dir(): found["rhubarb"] = (next(cues.glob("*.flac")), read_phones(next(cues.glob("*.json"))))
    return found

def lips(rig, clips):
    "Closures and openings over all clips, one after the other: shares and medians."
    from talkinglab.core.media import read_audio
    from talkinglab.face.actor import embody
    from talkinglab.face.motion import lip_gap
    from talkinglab.face.rig import pose
    from talkinglab.face.viseme import check_lips, mouth_curves, rig_gain
    body, gaps, said = embody(rig=rig), [], []
    gain, frames = rig_gain(body), 0
    for sound, phones in clips.values():
        seconds = min(read_audio(sound).seconds, phones[-1][1]) # what was aligned
        gaps.append(lip_gap(body, pose(body, mouth_curves(phones, seconds, 25, names=body.names, gain=gain))))
        said += [(a+frames/25, b+frames/25, label) for a, b, label in phones]
        frames += len(gaps[-1])
    found = check_lips(said, torch.cat(gaps), 25)
    return dict(bilabials=found["count"], closed=round(found["closed"], 4), **{k: round(found[k], 4) for k in REAL},
                open_over_bilabial=round(found["open"]/found["bilabial"], 1), over_real={k: round(found[k]/REAL[k], 2) for k in REAL})


def style_probe(seeds, people=8, lines=10, window=4.):
    """Linear probes on 4 s of motion: for style, on people and sentences that it has not met; for the person, on new sentences, everybody having every style.

    `perform` does not read who somebody is: that the person stays at chance checks that nothing leaks, and is no finding."""
    from talkinglab.core.assets import samples
    from talkinglab.face.actor import cast, perform
    from talkinglab.face.viseme import STYLES
    from talkinglab.measure.disentangle import motion_features, probe
    names, rows = sorted(p.stem for p in samples().glob("en_*.flac"))[:lines-3]+["hello", "lesson", "gym"], []
    for seed in range(seeds):
        x, labels = [], []
        for i, person in enumerate(cast(people, seed)):
            for j, name in enumerate(names):
                for k, way in enumerate(STYLES):
                    m = perform(samples(f"{name}.flac"), samples(f"{name}.json"), identity=person, style=way, seed=seed*10007+i*997+j*31+k).motion
                    x.append(motion_features(torch.cat([m.expr, m.rotation], 1)[:round(window*m.fps)], m.fps))
                    labels.append((i, j, k))
        x, (who, said, how) = torch.stack(x), torch.tensor(labels).T
        style, person = probe(x, how, dict(sentence=said, person=who)), probe(x, who, dict(sentence=said))
        show = lambda p: dict(accuracy=round(p.accuracy, 4), interval=[round(p.low, 4), round(p.high, 4)], chance=round(p.chance, 4))
        rows.append(dict(seed=seed, takes=len(x), sentences=names, style=show(style), person=show(person)))
    return rows


def speed(size=256, frames=100):
    "Frames a second of one film on all threads; the parts of a frame on one thread, ms; mouth curves for a minute of phones, ms."
    from talkinglab.core.assets import samples
    from talkinglab.face.actor import perform, shoot
    from talkinglab.face.mesh import rasterize
    from talkinglab.face.viseme import mouth_curves
    take = perform(samples("lesson.flac"), samples("lesson.json"))
    clip = shoot(take, size=size)
    next(iter(clip.frames))
    best = 0
    for _ in range(3):
        t = time.perf_counter()
        for _, _ in zip(range(frames), clip.frames): pass
        best = max(best, frames/(time.perf_counter()-t))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    posed = min(timed(lambda: take.vertices(7)) for _ in range(20))
    whole = min(timed(lambda: shoot(take, size=size).frames[9]) for _ in range(20))
    camera, vertices, faces = clip.camera(0), take.vertices(7), take.rig.faces[:20000]
    raster = min(timed(lambda: rasterize(vertices, faces, camera, 1)) for _ in range(20))
    minute = [(a+12*k, b+12*k, label) for k in range(5) for a, b, label in take.phones if b < 12]
    curves = min(timed(lambda: mouth_curves(minute, 60)) for _ in range(5))
    torch.set_num_threads(threads)
    return dict(size=size, raster_20k_ms=round(raster*1e3, 1), curves_ms_per_minute=round(curves*1e3, 1), fps=round(best, 1), pose_ms=round(posed*1e3, 1), frame_ms=round(whole*1e3, 1), vertices=len(take.rig.vertices), faces=len(take.rig.faces))

def timed(f):
    t = time.thread_time()
    f()
    return time.thread_time()-t

def corpus_time():
    "Eight people, ten sentences: seconds."
    from talkinglab.core.assets import samples
    from talkinglab.face.actor import cast, corpus, sentences
    lines = sentences(*sorted(samples().glob("*.flac"))[:10])
    with tempfile.TemporaryDirectory() as tmp:
        t = time.perf_counter()
        films = corpus(Path(tmp)/"films", cast(8), lines)
        seconds = time.perf_counter()-t
        return dict(people=8, sentences=10, takes=len(films), frames=sum(len(films[i].motion) for i in range(len(films))), seconds=round(seconds, 1))

def found_by_mediapipe(data, rigs, step=5):
    "Share of frames in which the face landmarker finds a face, and the correlation of its jawOpen with the truth."
    model = data/"face_landmarker"/"face_landmarker.task"
    try: import mediapipe as mp
    except ImportError: return "mediapipe is not installed (extra 'face')"
    if not model.is_file(): return f"{model.name} is absent"
    from talkinglab.core.assets import samples
    from talkinglab.core.media import to_uint8
    from talkinglab.face.actor import film
    options = mp.tasks.vision.FaceLandmarkerOptions(base_options=mp.tasks.BaseOptions(model_asset_path=str(model)), output_face_blendshapes=True)
    rows = {}
    with mp.tasks.vision.FaceLandmarker.create_from_options(options) as finder:
        for name, rig in rigs.items():
            clip, jaw, truth, seen_open = film(samples("lesson.flac"), samples("lesson.json"), rig), [], [], []
            picked = range(0, len(clip), step)
            for i in picked:
                seen = finder.detect(mp.Image(image_format=mp.ImageFormat.SRGB, data=to_uint8(clip.frames[i])))
                if not seen.face_blendshapes: continue
                jaw.append(next(c.score for c in seen.face_blendshapes[0] if c.category_name == "jawOpen"))
                truth.append(float(clip.motion.curve("jawOpen")[i]))
                seen_open.append(truth[-1]-float(clip.motion.curve("mouthClose")[i])) # a jaw behind closed lips is not seen
            r = lambda x: round(torch.corrcoef(torch.tensor([jaw, x]))[0, 1].item(), 3) if len(jaw) > 2 else None
            rows[name] = dict(frames=len(picked), found=round(len(jaw)/len(picked), 3), jaw_open_correlation=r(truth), jaw_open_minus_mouth_close_correlation=r(seen_open))
    return rows


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, default=ROOT.parent/"shared"/"data", help="real recordings and heads; what is absent is left out")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--without", nargs="*", default=[], choices=("lips", "probe", "speed", "corpus", "mediapipe"))
    a = p.parse_args()
    result = dict(**where(), seeds=list(range(a.seeds)))
    old = json.loads((RESULTS/"actor.json").read_text()) if (RESULTS/"actor.json").is_file() else {}
    result |= {k: old[k] for k in a.without if k in old} | ({"kept": {k: old.get("kept", {}).get(k, old["commit"]) for k in a.without if k in old}} if a.without and old else {}) # left out: the last figures, and whose they are
    rigs, clips = heads(a.data), spoken(a.data)
    parts = dict(lips=lambda: {name: lips(rig, clips) for name, rig in rigs.items()} if clips else "no recordings with phone times", probe=lambda: style_probe(a.seeds),
                 mediapipe=lambda: found_by_mediapipe(a.data, rigs), speed=speed, corpus=corpus_time)
    for name, run in parts.items():
        if name in a.without: continue
        result[name] = run()
        print(name, result[name], flush=True)
    keep("actor", result)


if __name__ == "__main__": main()
