"""How the small encoder learns: what it should say, how speech is disguised, and the loss.

Everything is made from speech whose phones are known. `targets` turns phone times into classes and a lip gap, `Corpus.batch` cuts
stretches out of many recordings, `disguise` lets them come from other mouths, rooms and microphones, `loss` and `train` are one stage
of `core.fit`. Chapter 21 shows each at work; `data_samples/make_ears.py` makes the speech and the shipped weights.
"""
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.fit import EMA, Stage, fit
from .encoders import GAPS, PHONES, VISEMES, Heard, Small, viseme_of

RATE = 100       # mel rows a second
LEAD = 0.01      # s: a label of 10 ms earlier. A sketch found on people that aligners' labels stand so much earlier than a synthesiser's; on flite the best shift left is 0
_PBM, _SIL = VISEMES.index("PBM"), 0


# What to say

def _smooth(x: Tensor, sigma: float) -> Tensor:
    "Gaussian mean along the last axis, sigma in rows; the ends repeat."
    r = max(1, math.ceil(4*sigma))
    g = torch.exp(-torch.arange(-r, r+1, dtype=x.dtype).square()/(2*sigma**2))
    return F.conv1d(F.pad(x.reshape(-1, 1, x.shape[-1]), (r, r), mode="replicate"), (g/g.sum())[None, None]).view_as(x)


def gap_curve(visemes: Tensor) -> Tensor:
    "Classes `... t` at 100 Hz to a lip gap of 0 to 1: a smooth curve through each class's gap, pulled down to 0 inside p, b and m (under .1 at their edges)."
    gap = _smooth(torch.tensor([GAPS[v] for v in VISEMES])[visemes], 3.)
    shut = _smooth((visemes == _PBM).float(), 1.2)
    return gap*(1-(1.3*shut).clamp(0, 1))


def targets(phones: list, n: int, lead: float = 0.) -> tuple[Tensor, Tensor]:
    "Phones [(start s, end s, ARPAbet)] to what is said in each of n rows of 10 ms: numbers in PHONES, numbers in VISEMES."
    said, seen = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
    row = lambda t: min(max(math.ceil((t-lead)*RATE-0.5-1e-6), 0), n)  # first row whose middle is not before t
    for start, end, name in phones:
        said[row(start):row(end)] = PHONES.index(name)
        at = start
        for share, viseme in viseme_of(name):
            seen[row(at):row(at+share*(end-start))] = VISEMES.index(viseme)
            at += share*(end-start)
    return said, seen


# Disguises. Each works on a batch of raw log-mel `b t 80`; a share of the batch is left as it is.

def _u(g, b, low, high): return low+(high-low)*torch.rand(b, generator=g)


def _lot(g, b, share): return (torch.rand(b, generator=g) < share).float()


def hills(g, shape, cells) -> Tensor:
    "Random numbers of variance 1 every `cells` rows, straight lines between: shape (b, t), or (b, t, m) with a pair of cells."
    b, *size = shape
    coarse = [max(2, math.ceil(n/c)+1) for n, c in zip(size, cells)]
    z = torch.randn(b, 1, *coarse, generator=g)
    return F.interpolate(z, size=tuple(size), mode="linear" if len(size) == 1 else "bilinear", align_corners=True)[:, 0]


def time_path(g, b: int, n: int, length: int) -> Tensor:
    "Which of `length` rows to hear at each of n: unsteady speaking rates. `b n`."
    speed = torch.exp(hills(g, (b, n), (12,))*_u(g, b, 0, .4)[:, None]).clamp(.5, 2)*_u(g, b, .85, 1.2)[:, None]
    at = speed.cumsum(1)
    at = at*torch.minimum(torch.ones(b), (length-1)/at[:, -1])[:, None]
    start = torch.rand(b, generator=g)*(length-1-at[:, -1])
    return (at+start[:, None]).round().long().clamp(0, length-1)


def _mel_axis(m: int) -> Tensor:
    "Middle frequencies of m bands between 50 Hz and 8 kHz as `audio.features.mel` lays them, Hz (Slaney's scale)."
    import librosa
    return torch.from_numpy(librosa.mel_frequencies(m+2, fmin=50, fmax=8000)[1:-1].copy()).float()


def warp(g, b: int, m: int) -> Tensor:
    "Matrices `b m m` that stretch the frequency axis (another length of throat) and blur it (another harmonics' spacing)."
    hz = _mel_axis(m)
    a = torch.where(_lot(g, b, .85) > 0, _u(g, b, .8, 1.24), torch.ones(b))[:, None]
    knee = 4800/a.clamp(min=1)
    bent = torch.where(hz < knee, hz*a, knee*a+(hz-knee)*(8000-knee*a)/(8000-knee))
    at = torch.from_numpy(np.interp(bent.numpy(), hz.numpy(), np.arange(m))).float()
    low = at.floor().long().clamp(0, m-2)
    f = (at-low)[..., None]
    eye = torch.eye(m)
    stretch = eye[low]*(1-f)+eye[low+1]*f
    sigma = torch.where(_lot(g, b, .5) > 0, _u(g, b, .4, 2.), torch.full((b,), .05))[:, None, None]
    d = (torch.arange(m)[:, None]-torch.arange(m)).float()
    blur = torch.exp(-d**2/(2*sigma**2))
    return (blur/blur.sum(-1, keepdim=True)).bmm(stretch)


def disguise(x: Tensor, g: torch.Generator) -> Tensor:
    """Other throats, rooms, noises and microphones for a batch of clean speech. Log-mel `b t m` (100 Hz) in, the same shape out.

    Source: the list of disguises follows VTLP (Jaitly and Hinton 2013), SpecAugment (Park et al. 2019) and room simulation by an exponential tail."""
    b, t, m = x.shape
    x = x.bmm(warp(g, b, m).transpose(1, 2))
    x = x+(hills(g, (b, t), (12,))*_u(g, b, .1, 1.)[:, None]*_lot(g, b, .6)[:, None])[..., None]       # an unsteady voice
    x = x+hills(g, (b, t, m), (8, 8))*(_u(g, b, .2, .9)*_lot(g, b, .6))[:, None, None]               # other formants' heights
    power = x.exp()
    # A room: what was said rings on
    fall = torch.exp(-13.8/RATE/_u(g, b, .15, .9))                                                     # power after one row
    lag = (torch.arange(t)[:, None]-torch.arange(t)).clamp(min=0).float()
    tail = torch.tril(fall[:, None, None]**lag, -1)*(1-fall)[:, None, None]
    power = power+tail.bmm(power)*(_u(g, b, -2., -.5).mul(math.log(10)).exp()*_lot(g, b, .45))[:, None, None]
    # Noise of any colour, steady or not; other people, far away
    speech = power.mean((1, 2))
    colour = torch.exp(hills(g, (b, m), (16,))*1.6+_u(g, b, -.05, .02)[:, None]*torch.arange(m))
    colour = colour/colour.mean(-1, keepdim=True)
    grain = -torch.rand(4, b, t, m, generator=g).clamp_min(1e-6).log().mean(0)                        # a periodogram's own spread
    swell = torch.exp(hills(g, (b, t), (10,))*(_u(g, b, 0, 1.5)*_lot(g, b, .4))[:, None])[..., None]
    level = torch.exp(-_u(g, b, 5, 45)*math.log(10)/10)*_lot(g, b, .95)
    power = power+(speech*level)[:, None, None]*colour[:, None]*grain*swell
    others = power[torch.randperm(b, generator=g)]+power[torch.randperm(b, generator=g)]
    babble = torch.exp(-_u(g, b, 10, 30)*math.log(10)/10)*_lot(g, b, .15)
    power = power+others/others.mean((1, 2), keepdim=True)*(speech*babble)[:, None, None]
    # A microphone and a codec
    x = (power+1e-8).log()
    bands = torch.arange(m).float()
    x = x+(_u(g, b, -.04, .04)*_lot(g, b, .8))[:, None, None]*(bands-m/2)
    x = x+(hills(g, (b, m), (10,))*(_u(g, b, 0, 1.5)*_lot(g, b, .8))[:, None])[:, None]
    top = torch.where(_lot(g, b, .3) > 0, _u(g, b, 45, m), torch.full((b,), float(m)))[:, None, None]
    bottom = torch.where(_lot(g, b, .2) > 0, _u(g, b, 2, 10), torch.zeros(b))[:, None, None]
    floor = x.amin((1, 2), keepdim=True)+1.5*torch.rand(b, t, m, generator=g)
    x = torch.where(bands > top, torch.minimum(x, floor), x)
    x = torch.where(bands < bottom, x-_u(g, b, 1, 6)[:, None, None], x)
    x = x+torch.randn(b, t, m, generator=g)*(_u(g, b, .05, .5)*_lot(g, b, .5))[:, None, None]
    x = x-_u(g, b, 0, 6)[:, None, None]                                                                # any level
    for axis, n, widest, share in ((1, t, 8, .4), (2, m, 12, .5)):                                     # holes
        at = torch.arange(n)[None]-(torch.rand(b, generator=g)*n)[:, None]
        hole = (at >= 0)&(at < (_u(g, b, 2, widest)*_lot(g, b, share))[:, None])
        hole = hole[:, :, None] if axis == 1 else hole[:, None, :]
        x = torch.where(hole, x.mean(axis, keepdim=True), x)
    return x


@dataclass
class Corpus:
    "Much speech: raw log-mel, phones and visemes of every 10 ms, recording after recording."
    mel: Tensor      # n 80, float16
    phones: Tensor   # n, numbers in PHONES
    visemes: Tensor  # n, numbers in VISEMES
    starts: Tensor   # first row of each recording, and n at the end

    @staticmethod
    def of(recordings: list) -> "Corpus":
        "From [(mel `t 80`, phones `t`, visemes `t`), ...]."
        ends = torch.tensor([0]+[len(r[0]) for r in recordings]).cumsum(0)
        mel, phones, visemes = (torch.cat([r[i] for r in recordings]) for i in range(3))
        return Corpus(mel.half(), phones.to(torch.uint8), visemes.to(torch.uint8), ends)

    def recordings(self, most: int | None = None) -> list:
        "What `of` was given, or the first few of it."
        ends = self.starts.tolist() if most is None else self.starts[:most+1].tolist()
        return [(self.mel[a:b].float(), self.phones[a:b].long(), self.visemes[a:b].long()) for a, b in zip(ends, ends[1:])]

    def batch(self, g: torch.Generator, b: int = 12, t: int = 240, quiet: float = .04, disguised: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        "b stretches of t rows of 10 ms: log-mel `b t 80`, phones `b t`, visemes `b t`. A few (`quiet`) are a room where nobody speaks."
        length = int(1.3*t)
        if len(self.mel) <= length: raise ValueError(f"{len(self.mel)/RATE:.2f} s of speech: stretches of {t/RATE:g} s need more than {length/RATE:g} s")
        rows = torch.randint(len(self.mel)-length, (b,), generator=g)  # may cross from one recording to the next, as a cut does
        path = rows[:, None]+(time_path(g, b, t, length) if disguised else torch.arange(t).expand(b, t))
        x, said, seen = self.mel[path].float(), self.phones[path].long(), self.visemes[path].long()
        nobody = torch.rand(b, generator=g) < quiet
        x[nobody] = -18.
        said[nobody], seen[nobody] = 0, 0
        return (disguise(x, g) if disguised else x), said, seen


# Learning

def loss(net: Small, batch: tuple, it: int) -> tuple[dict, None]:
    "Terms: visemes, phones (cross-entropies), gap (mean square). A row of 20 ms is asked for the class of its first half."
    x, said, seen = batch
    heard = net(net.normalize(x))
    rows = slice(10, None)  # the first rows have heard too little
    pick = lambda labels: labels[:, ::2][:, rows].reshape(-1)
    flat = lambda logits: logits[:, rows].flatten(0, 1)
    gap = gap_curve(seen).unflatten(1, (-1, 2)).mean(-1)
    return dict(visemes=F.cross_entropy(flat(heard.visemes), pick(seen), label_smoothing=.05),
                phones=F.cross_entropy(flat(heard.phones), pick(said), label_smoothing=.05),
                gap=(heard.gap[:, rows]-gap[:, rows]).square().mean()), None


class OneFrame(Small):
    "What a linear map of a single row of 10 ms can tell: the least that a network must beat."
    def __init__(self):
        super().__init__(dilations=())
        self.stem = self.embed = nn.Identity()
        self.heads = nn.Linear(80, self.heads.out_features)

    def forward(self, x: Tensor) -> Heard:
        "Of every two rows, the first."
        phones, visemes, gap = self.heads(x[:, ::2]).split([len(PHONES), len(VISEMES), 1], -1)
        return Heard(phones, visemes, gap[..., 0], x[:, ::2, :0])


def common_colour(corpus: Corpus) -> Tensor:
    "Mean of speech in each band below the loudest row so far, for `Small.prior`."
    below = []
    for x, _, visemes in corpus.recordings(200):
        loud = x.mean(-1)
        sink = .01*torch.arange(len(x))
        peak = (loud+sink).cummax(0).values-sink
        below.append((x-peak[:, None])[(loud > peak-4) & (visemes > 0)])
    return torch.cat(below).mean(0)


def train(net: Small, corpus: Corpus, steps: int = 1000, batch: int = 12, seed: int = 0, lr: float = 5e-3, progress: bool = False) -> Small:
    "One stage of `core.fit`; the weights' running mean is what stays."
    if net.causal: net.prior.copy_(common_colour(corpus))
    mean = EMA(max(0., min(.995, 1-10/steps)))
    warm = lambda it: lr*min(1., (it+1)/40)*(.5+.5*math.cos(math.pi*it/steps))
    stage = Stage("ears", loss, dict(visemes=1., phones=.4, gap=3.), dict.fromkeys([n for n, m in net.named_children() if [*m.parameters()]], warm), steps, hooks=(mean,))
    net.train()
    fit(net, stage, lambda i: corpus.batch(torch.Generator().manual_seed(seed*1_000_003+i), batch), progress=progress)
    mean.copy_to(net)
    return level(net.eval(), corpus)


@torch.no_grad()
def level(net: Small, corpus: Corpus) -> Small:
    "Give each column of the embedding a standard deviation of 1 on the corpus; what the heads say stays the same, for ReLU passes a scale through."
    if not isinstance(net.embed, nn.Linear): return net
    x, _, _ = corpus.batch(torch.Generator().manual_seed(0), 48)
    scale = net(net.normalize(x)).embedding.flatten(0, 1).std(0).clamp_min(1e-3)
    net.embed.weight /= scale[:, None]
    net.embed.bias /= scale
    net.heads.weight *= scale
    return net


# Judging

def at_25(x: Tensor, rate: int) -> Tensor:
    "Rows at 50 or 100 Hz to the mean of every 40 ms; the rest is dropped."
    k = rate//25
    return x[:len(x)//k*k].unflatten(0, (-1, k)).mean(1)


def rows(posterior: Tensor, gap: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """One recording's answers and truth, one entry a video frame (25 Hz).

    `posterior` "t 12" and `gap` "t" at 25 Hz, `truth` the visemes of every 10 ms: the majority of four counts, of equals the one that
    holds the third. `near` are bilabials within one frame of the other's; an `event` stands at the first frame of a closure, and is
    `hit` if a bilabial was heard during it or one frame beside."""
    n = min(len(posterior), len(truth)//4)
    votes = F.one_hot(truth[:4*n], len(VISEMES)).unflatten(0, (-1, 4)).float()
    true = (votes.sum(1)+1e-3*votes[:, 2]).argmax(-1)
    said = posterior[:n].argmax(-1)
    near = lambda x: F.max_pool1d(x[None].float(), 3, 1, 1)[0] > 0
    shut, heard = true == _PBM, said == _PBM
    first = shut & ~F.pad(shut, (1, 0))[:-1]
    hit = torch.zeros_like(first)
    for i in first.nonzero()[:, 0].tolist():
        end = i+int((~F.pad(shut[i:], (0, 1))).float().argmax())
        hit[i] = heard[max(0, i-1):end+1].any()
    return dict(true=true, said=said, near_true=near(shut), near_said=near(heard), event=first, hit=hit,
                gap=gap[:n], gap_true=at_25(gap_curve(truth), 100)[:n])


def join(parts: list[dict]) -> dict[str, Tensor]:
    "`rows` of several recordings as those of one."
    return {k: torch.cat([p[k] for p in parts]) for k in parts[0]}


def figures(r: dict[str, Tensor]) -> dict[str, float]:
    "What `rows` of any number of frames amount to."
    mean = lambda x: x.float().mean().item() if len(x) else 0.
    f1 = lambda p, q: 2*p*q/max(p+q, 1e-9)
    right, shut, heard = r["true"] == r["said"], r["true"] == _PBM, r["said"] == _PBM
    gap, true = r["gap"]-r["gap"].mean(), r["gap_true"]-r["gap_true"].mean()
    return dict(accuracy=mean(right), in_speech=mean(right[r["true"] != _SIL]),
                bilabial_f1=f1(mean(shut[heard]), mean(heard[shut])), bilabial_f1_near=f1(mean(r["near_true"][heard]), mean(r["near_said"][shut])),
                closures_hit=mean(r["hit"][r["event"]]), gap_r=((gap*true).sum()/(gap.norm()*true.norm()).clamp_min(1e-9)).item(),
                gap_rmse=(r["gap"]-r["gap_true"]).square().mean().sqrt().item())


def intervals(seeds: list[dict[str, Tensor]], seed: int = 0, times: int = 1000, block: int = 25) -> dict[str, tuple[float, float]]:
    "95 % interval of each figure, its mean over networks that answered the same sounds, when the seconds of sound are drawn anew (blocks of 25 frames)."
    n = len(seeds[0]["true"])
    if n < block: raise ValueError(f"{n} frames: a bootstrap over blocks of {block} needs at least one block")
    starts, g, tries = torch.arange(0, n-block+1, block), torch.Generator().manual_seed(seed), []
    for _ in range(times):
        at = (starts[torch.randint(len(starts), (len(starts),), generator=g)][:, None]+torch.arange(block)).flatten()
        tries.append(torch.tensor([list(figures({k: v[at] for k, v in r.items()}).values()) for r in seeds]).mean(0))
    low, high = torch.stack(tries).quantile(torch.tensor([.025, .975]), 0).tolist()
    return {k: (a, b) for k, a, b in zip(figures(seeds[0]), low, high)}


@torch.inference_mode()
def answers(net, mel: Tensor) -> tuple[Tensor, Tensor]:
    "Of raw log-mel `t 80`: posterior `t 12` and gap `t` of every video frame, the mean of what was heard during it. `net` is a `Small`, or normalises and answers like one."
    heard = net(net.normalize(mel[None, :len(mel)//2*2]))
    return at_25(heard.visemes[0].softmax(-1), 50), at_25(heard.gap[0].clamp(0, 1), 50)


def judge(net: Small, corpus: Corpus) -> dict[str, Tensor]:
    "`rows` of a network on every recording of a corpus."
    return join([rows(*answers(net, mel), visemes) for mel, _, visemes in corpus.recordings()])
