"""How the judge of lip sync learns, and how it is examined.

The virtual actor performs speech whose phones are known, and only its landmarks are posed: `Body`, `lips_of`. `Library.batch` cuts stretches out of
many performances, `disguise` (of chapter 21) changes the voice, `track` adds the faults of a face tracker, `loss` asks which shift is the true one.
`examine` measures a trained judge. Chapter 38 shows each at work; `data_samples/make_sync.py` makes speech, weights and figures.
"""
import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..audio.encoders_train import hills, disguise, time_path
from ..core.clock import frame_count, frame_times
from ..core.fit import EMA, Stage, fit
from .actor import Stress, cast, head_turns
from .rig import Rig, pose
from .sculpt import sculpt_head
from .sync import Expert, judge, lip_shape, shift_distances
from .viseme import Gain, Style, contact, mouth_curves, random_style, rig_gain, score
from .viseme_tables import BILABIAL, LABIODENTAL

SLOW = 50.       # Hz at which lips are kept
LEAD = (0., .03)   # s, mouth before sound. Our styles' longer leads are for the eye of a viewer
LATE = (-.01, .09) # s by which what opens and rounds lags behind what touches
# Where these come from: a first expert learned from actors as punctual as chapter 35's. Then the lip gaps of GRID's films (one speaker) were compared with
# their phones: vowels there open one to two frames later than the actor's, and this lateness was added because of it. Five recipes in all were measured on GRID;
# the one that ships was chosen on held-out actors. So GRID is no clean test of timing. How far mouths and sounds are apart at all: from about 40 ms of
# audio lead to 200 ms of visual lead (Schwartz and Savariaux 2014, "No, there is no 150 ms lead of visual speech on auditory speech", PLOS Computational Biology).


# Who speaks, and how

@dataclass(frozen=True)
class Body:
    "A head of which only the landmarks are posed."
    rig: Rig
    gain: Gain


def bodies(people: int, seed: int, rig: Rig | None = None) -> list[Body]:
    "So many people by lot; `rig` as in `cast`."
    gain = rig_gain(sculpt_head() if rig is None else rig)
    some = lambda r: replace(r.only(r.landmarks.long()), landmarks=torch.arange(68))
    return [Body(some(sculpt_head(who) if rig is None else rig.person(who)), gain) for who in cast(people, seed, rig)]


def _u(g, low, high): return low+(high-low)*float(torch.rand((), generator=g))


_SOFT = dict.fromkeys(BILABIAL, "D") | dict.fromkeys(LABIODENTAL, "TH")  # What a mouth would do there if it need not touch


def late_curves(phones: list, seconds: float, fps: float, style: Style, body: Body, late: float) -> Tensor:
    "`mouth_curves`, but what opens and rounds follows `late` seconds behind what touches. `t e`."
    names, gain = body.rig.names, body.gain
    now = mouth_curves(phones, seconds, fps, style, names, gain)
    times, s = frame_times(frame_count(seconds, fps), fps).double(), score(phones, seconds)
    touch = torch.maximum(contact(s, times, fps, BILABIAL, style), contact(s, times, fps, LABIODENTAL, style))[:, None]
    free = mouth_curves([(a, b, _SOFT.get(p, p)) for a, b, p in phones], seconds, fps, style, names, gain)
    return torch.lerp(free[(torch.arange(len(now))-round(late*fps)).clamp(0)], now, touch)


def _soft(x: Tensor, sigma: float) -> Tensor:
    "Gaussian mean over rows."
    if sigma < .2: return x
    r = math.ceil(3*sigma)
    w = torch.exp(-.5*(torch.arange(-r, r+1)/sigma)**2)
    return F.conv1d(F.pad(x.T[:, None], (r, r), mode="replicate"), (w/w.sum())[None, None])[:, 0].T


def seen(v: Tensor, g: torch.Generator) -> Tensor:
    "Vertices `t v 3` by a camera near or far, up to 26 degrees beside and 13 above or below: `t v 2`, y down."
    yaw, pitch, far = _u(g, -.45, .45), _u(g, -.22, .22), _u(g, .45, 1.65)
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    p = v@(torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])@torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])).T
    return torch.stack([p[..., 0], -p[..., 1]], -1)/(far-p[..., 2:])


_GROUPS = [("jawOpen", "mouthClose", "mouthLowerDown", "mouthUpperUp"), ("mouthFunnel", "mouthPucker"), ("mouthStretch", "mouthDimple", "mouthSmile"),
           ("mouthRoll", "tongueOut"), ("mouthLeft", "mouthRight", "jawLeft", "jawRight", "jawForward")]


def unsteady(curves: Tensor, names: tuple, fps: float, g: torch.Generator, much: float = 1.) -> Tensor:
    """Nobody says a sound twice alike: jaw, rounding, spread each follow their curve by a wandering share. `t e`.

    Jaw and closure share theirs, so lips that meet still meet. Now and then a smile comes and goes."""
    out = curves.clone()
    for group in _GROUPS:
        columns = [i for i, n in enumerate(names) if n.startswith(group)]
        if not columns: continue
        wander = hills(g, (1, len(curves)), (.25*fps,))[0]*_u(g, 0, .5)+_u(g, -.4, .3)
        out[:, columns] = curves[:, columns]*torch.exp(much*wander)[:, None]
    smile = (hills(g, (1, len(curves)), (1.5*fps,))[0]*_u(g, 0, .2)).clamp(min=0)
    out[:, [i for i, n in enumerate(names) if n.startswith("mouthSmile")]] += much*smile[:, None]
    return out.clamp(0, 1)


def landmarks_of(phones: list, seconds: float, body: Body, g: torch.Generator, fps: float = SLOW, human: float = 1.) -> Tensor:
    "Somebody says it in a style by lot, before a camera by lot: `t 68 2`. `human`: how late and unsteady; 0 is the actor of chapter 35."
    style = replace(random_style(g), lead=_u(g, *LEAD))
    curves = unsteady(late_curves(phones, seconds, fps, style, body, human*_u(g, *LATE)), body.rig.names, fps, g, human)
    curves = _soft(curves, human*_u(g, 0, .026*fps))
    nobody = Stress(torch.zeros(0), torch.zeros(0), torch.zeros(1))
    turns = head_turns(frame_times(len(curves), fps), nobody, 0., g)*_u(g, .5, 2)
    return seen(pose(body.rig, curves, None, turns), g)


# What a tracker makes of it

def track(x: Tensor, g: torch.Generator) -> Tensor:
    """Lips `b t 20 2` (25 Hz) as a tracker reports them: stretched, its points elsewhere along the lip, smoothed, late by up to 0.8 frames, trembling."""
    b, t = x.shape[:2]
    lot = lambda low, high, share=1.: ((low+(high-low)*torch.rand(b, generator=g))*(torch.rand(b, generator=g) < share))[:, None, None, None]
    stretch = (torch.eye(2)+.08*torch.randn(b, 2, 2, generator=g))*torch.exp(.15*torch.randn(b, 1, 1, generator=g))
    x = torch.einsum("btpi,bij->btpj", x, stretch)
    slide = .15*torch.randn(b, 1, 20, 1, generator=g)
    ring = lambda x, s: x+s.clamp(min=0)*(x.roll(-1, 2)-x)+s.clamp(max=0)*(x-x.roll(1, 2))
    x = torch.cat([ring(x[:, :, :12], slide[:, :, :12]), ring(x[:, :, 12:], slide[:, :, 12:])], 2)
    rest = x.mean(1, keepdim=True)  # some trackers, and some speakers, hardly show width; others hardly height
    x = rest+(x-rest)*torch.cat([lot(.3, 1.3), lot(.6, 1.5)], 3)
    k = lot(0, .25, .5)
    x = (1-2*k)*x+k*(torch.cat([x[:, :1], x[:, :-1]], 1)+torch.cat([x[:, 1:], x[:, -1:]], 1))
    lag, rows = lot(0, .45, .5)[:, 0], [x[:, 0]]
    for i in range(1, t): rows.append(torch.lerp(x[:, i], rows[-1], lag))
    x = torch.stack(rows, 1)
    x = x+lot(0, .012, .9)*torch.randn(x.shape, generator=g)+lot(0, .012)*torch.randn(b, t, 1, 2, generator=g)
    return x+(hills(g, (b, t), (8,))[:, :, None]*torch.randn(b, 1, 40, generator=g)).unflatten(2, (20, 2))*.012


# Learning

@dataclass(frozen=True)
class Library:
    "Speech and the lips of several people who say it."
    mel: list   # of `s 80`, 100 Hz, raw
    lips: list  # of `k t 20 2`, 50 Hz, from `lip_shape`

    @staticmethod
    def of(speech: list, people: list[Body], takes: int = 3, seed: int = 0, progress=iter) -> "Library":
        "From [(mel `s 80`, phones)]: each sentence is performed by `takes` people by lot."
        g, mels, lips = torch.Generator().manual_seed(seed), [], []
        for mel, phones in progress(speech):
            who = torch.randint(len(people), (takes,), generator=g).tolist()
            mels.append(mel.half())
            lips.append(torch.stack([lip_shape(landmarks_of(phones, len(mel)/100, people[i], g)).half() for i in who]))
        return Library(mels, lips)

    def batch(self, g: torch.Generator, b: int = 16, t: int = 60) -> tuple[Tensor, Tensor]:
        "b stretches of t frames of 40 ms, disguised: log-mel `b 4t 80`, lips `b t 20 2`."
        n, need = 4*t, int(5.2*t)+20
        weights = torch.tensor([float(len(m)) if len(m) >= need else 0. for m in self.mel])
        if not weights.any(): raise ValueError(f"no sentence is {need/100:g} s long: give longer ones, or fewer frames than t={t}")
        path, mel, lips = time_path(g, b, n, need-20)+10, [], []
        sway = (1.5*hills(g, (b, n), (20,))).round().long()  # lips keep no exact time: 15 ms
        for row, sways, i in zip(path, sway, torch.multinomial(weights, b, True, generator=g).tolist()):
            start, k, off, open_ = (int(torch.randint(a, z, (1,), generator=g)) for a, z in
                                    ((0, len(self.mel[i])-need+1), (0, len(self.lips[i])), (-3, 4), (1, 5)))
            mel.append(self.mel[i][start+row].float())
            x = self.lips[i][k][((start+row+off+sways)//2).clamp(0, self.lips[i].shape[1]-1)].float().unflatten(0, (t, 4))
            lips.append(x[:, (4-open_)//2:(4-open_)//2+open_].mean(1))  # a shutter open for a part of the frame
        return disguise(torch.stack(mel), g), track(torch.stack(lips), g)


_NEAR = torch.tensor([.15, .7, .15])


def loss(expert: Expert, batch: tuple, it: int, reach: int = 15) -> tuple[dict, None]:
    "Terms: shift (which one is true, judged on half a second and on all), other (whose sound it is)."
    heard, at = expert(*batch)
    far, sharp = shift_distances(heard, at, reach), expert.sharp.exp()
    soft = F.pad(_NEAR, (reach-1, reach-1))
    def which(rows): return -(F.log_softmax(-sharp*rows.nanmean(-2).nan_to_num(1e3), -1)*soft).sum(-1).mean()
    parts = [which(x) for x in far.split(12, 1) if x.shape[1] == 12]
    others = torch.stack([(at-heard.roll(k, 0)).square().sum(-1).clamp_min(1e-8).sqrt().mean(1) for k in range(len(at))], 1)
    whose = F.cross_entropy(-sharp*others, torch.zeros(len(at), dtype=torch.long))
    return dict(shift=.5*torch.stack(parts).mean()+.5*which(far), other=whose), None


def train(expert: Expert, library: Library, steps: int = 800, b: int = 16, t: int = 60, seed: int = 0, lr: float = 2e-3, progress: bool = False) -> Expert:
    "One stage of `core.fit`; the weights' running mean is what stays."
    mean = EMA(max(0., min(.99, 1-10/steps)))
    rate = lambda it: lr*min(1., (it+1)/40)*(.5+.5*math.cos(math.pi*it/steps))
    stage = Stage("sync", loss, dict(shift=1., other=.3), dict.fromkeys(("ear", "eye", "sharp"), rate), steps, hooks=(mean,))
    expert.train()
    torch.manual_seed(seed)  # dropout
    fit(expert, stage, lambda i: library.batch(torch.Generator().manual_seed(seed*1_000_003+i), b, t), progress=progress)
    mean.copy_to(expert)
    return expert.eval()


# Examination

def loudness_shift(mel: Tensor, lips: Tensor, reach: int = 15) -> int:
    "The baseline: the shift at which loudness and lip gap agree best. Mel `s 80`, lips `t 20 2`; frames by which the sound is late."
    loud, gap = mel.exp().mean(1).clamp_min(1e-7).log(), (lips[:, 14]-lips[:, 18]).norm(dim=1)
    n = min(len(loud)//4, len(gap))
    loud = loud[:4*n].unflatten(0, (n, 4)).mean(1)
    loud, gap = loud.clamp_min(float(loud.max())-8), gap[:n]
    r = [torch.corrcoef(torch.stack([gap[max(0, -k):n-max(0, k)], loud[max(0, k):n-max(0, -k)]]))[0, 1].nan_to_num(-1) for k in range(-reach, reach+1)]
    return int(torch.stack(r).argmax())-reach


@torch.no_grad()
def examine(expert: Expert, clips: list, frames: int = 75, furthest: int = 8, reach: int = 15) -> dict:
    """Shifts found and pairs told apart. Clips: [(raw log-mel `s 80` at 100 Hz, lips `t 20 2` at 25 Hz, in sync)].

    Each clip is cut into windows of `frames`; each window meets its sound shifted by -furthest to furthest frames, cut before anything is normalised,
    so that the judge knows the window only. `found`: share within one frame; `loudness`: of the baseline. Every window also meets the sound
    of every other clip (at most 15): `pairs_d`, `pairs_c`: how often its own has the lower LSE-D, the higher LSE-C."""
    say = lambda mel, lips: judge(expert.hear(mel[None].float())[0], expert.see(lips[None].float())[0], reach)
    cuts, hits, base, at = [], [], [], []
    for c, (mel, lips) in enumerate(clips):
        n = min(len(mel)//4, len(lips))
        for i in range(0, max(n-frames, 0)+1, frames):
            mine, loud = [], []
            for s in range(-furthest, furthest+1):
                f = [k for k in (i, min(i+frames, n))]
                low, high = max(f[0], -s), min(f[1], n-s)  # frames whose shifted sound exists
                m, x = mel[4*(low+s):4*(high+s)], lips[low:high]
                out = say(m, x)
                mine.append(abs(out.offset+s) <= 1)
                loud.append(abs(loudness_shift(m, x, reach)+s) <= 1)
                if s == 0:
                    at.append(out.offset)
                    cuts.append((c, m, x, out))
            hits.append(sum(mine)/len(mine))
            base.append(sum(loud)/len(loud))
    d, k, whose = [], [], []
    for j, (c, m, x, own) in enumerate(cuts):
        others = [q for q in cuts if q[0] != c]
        for q in [others[(j+p)%len(others)] for p in range(min(15, len(others)))]:
            out = say(q[1], x)
            d.append(own.lse_d < out.lse_d)
            k.append(own.lse_c > out.lse_c)
            whose.append(j)
    mean = lambda x: sum(x)/max(len(x), 1)
    return dict(windows=len(hits), found=mean(hits), loudness=mean(base), pairs=len(d), pairs_d=mean(d), pairs_c=mean(k),
                lse_d=mean([c[3].lse_d for c in cuts]), lse_c=mean([c[3].lse_c for c in cuts]), offsets=at, found_by_window=hits,
                pairs_by_window=[(mean([a for a, w in zip(d, whose) if w == j]), mean([a for a, w in zip(k, whose) if w == j])) for j in range(len(cuts))])
