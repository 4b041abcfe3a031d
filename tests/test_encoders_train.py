"What the small encoder is taught and how it is judged: labels at row middles, shut lips, disguises by lot, figures of the best and the dullest answer."
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from talkinglab.audio.encoders import VISEMES, Small
from talkinglab.audio.encoders_train import Corpus, OneFrame, answers, at_25, common_colour, disguise, figures, gap_curve, intervals, judge, loss, rows, targets, train
from talkinglab.audio.features import features
from talkinglab.core.media import read_audio
from talkinglab.face.viseme import split_phone

SAMPLES = Path(__file__).resolve().parent.parent/"data_samples"
PBM, AA, EE = (VISEMES.index(v) for v in ("PBM", "AA", "EE"))


def lot(seed=0): return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def corpus():
    "Three bundled clips."
    out = []
    for name in ("gym", "hello", "de"):
        said = []
        for a, b, label in json.loads((SAMPLES/f"{name}.json").read_text(encoding="utf-8"))["phones"]:
            sounds = split_phone(label, "ipa") if label else ("SIL",)
            said += [(a+i*(b-a)/len(sounds), a+(i+1)*(b-a)/len(sounds), p) for i, p in enumerate(sounds)]
        mel = features(read_audio(SAMPLES/f"{name}.flac"), 100., ("mel",)).x
        out.append((mel, *targets(said, len(mel))))
    return Corpus.of(out)


# Labels

def test_a_row_is_what_sounds_at_its_middle():
    said, seen = targets([(.1, .25, "B"), (.25, .45, "AY")], 60)
    assert [i for i in range(60) if seen[i]==PBM]==list(range(10, 25))
    assert [i for i in range(60) if seen[i]==AA]==list(range(25, 37)) and [i for i in range(60) if seen[i]==EE]==list(range(37, 45)) # .6 and .4 of 200 ms
    assert not seen[:10].any() and not seen[45:].any() and (said>0).sum()==35 and len(said[25:45].unique())==1


def test_an_end_on_a_middle_leaves_that_row_to_the_next():
    for i in range(200): assert int((targets([(0., (i+.5)/100, "M")], 300)[0]>0).sum())==i
    assert int((targets([(-1., 9., "M")], 30)[0]>0).sum())==30


def test_lead_is_a_shift():
    phones = [(.1, .25, "B"), (.25, .45, "AY")]
    for here, earlier in zip(targets(phones, 60), targets(phones, 60, .01)): assert torch.equal(here[1:], earlier[:-1])


def test_lips_are_shut_at_p_b_m():
    seen = torch.full((2, 100), AA)
    seen[:, 40:48] = PBM
    gap = gap_curve(seen)
    assert gap.shape==(2, 100) and (gap>=0).all() and (gap<=1).all() and torch.equal(gap[0], gap[1])
    assert gap[0, 42:46].max()<1e-6 and gap[0, 40:48].max()<.1 and gap[0, :20].min()>.99
    assert_close(gap.flip(1), gap_curve(seen.flip(1)))
    assert gap_curve(torch.tensor([PBM])).shape==(1,)


# Disguises

@pytest.mark.parametrize("b", [1, 5])
def test_a_disguise_is_finite_and_the_lot_decides(b, corpus):
    x = corpus.mel[:150*b].float().reshape(b, 150, 80)
    for seed in range(3):
        worn = disguise(x, lot(seed))
        assert worn.shape==x.shape and worn.isfinite().all() and (worn-x).abs().mean()>.3
        assert torch.equal(worn, disguise(x, lot(seed))) and not torch.equal(worn, disguise(x, lot(seed+9)))
    assert disguise(torch.full((b, 60, 80), -18.), lot()).isfinite().all()


def test_batches_are_stretches_with_their_labels(corpus):
    x, said, seen = corpus.batch(lot(), 3, 100, quiet=0., disguised=False)
    assert x.shape==(3, 100, 80) and said.shape==seen.shape==(3, 100)
    for row, labels in zip(x, seen):
        places = [i for i in range(len(corpus.mel)-99) if torch.equal(corpus.mel[i:i+100].float(), row)]
        assert any(torch.equal(corpus.visemes[i:i+100].long(), labels) for i in places)
    _, said, seen = corpus.batch(lot(), 4, 100, quiet=1.)
    assert not said.any() and not seen.any()
    again = [corpus.batch(lot(3), 2, 100) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*again))
    with pytest.raises(ValueError, match=r"need more than .* s"): corpus.batch(lot(), 2, 10**6)


def test_recordings_come_back(corpus):
    whole, first = corpus.recordings(), corpus.recordings(2)
    assert len(whole)==3 and len(first)==2 and all(torch.equal(a, b) for r, s in zip(whole, first) for a, b in zip(r, s))
    assert torch.equal(torch.cat([mel for mel, _, _ in whole]), corpus.mel.float())


# Figures

def spoken(n=400, seed=0): return torch.randint(12, (n//8,), generator=lot(seed)).repeat_interleave(8)

def told(seen, n): return F.one_hot(seen, 12)[:n].float()


def test_the_perfect_answer_has_perfect_figures():
    truth = spoken()
    f = figures(rows(told(truth[::4], 100), at_25(gap_curve(truth), 100), truth))
    assert all(f[k]==1 for k in ("accuracy", "in_speech", "bilabial_f1", "bilabial_f1_near", "closures_hit"))
    assert abs(f["gap_r"]-1)<1e-5 and f["gap_rmse"]<1e-6


def test_a_constant_answer_has_the_share_of_its_class_and_no_correlation():
    truth = spoken()
    for viseme in (0, PBM):
        f = figures(rows(told(torch.full((100,), viseme), 100), torch.full((100,), .3), truth))
        assert abs(f["accuracy"]-(truth==viseme).float().mean().item())<1e-6 and abs(f["gap_r"])<1e-3
        assert f["closures_hit"]==(viseme==PBM) and (f["bilabial_f1"]>0)==(viseme==PBM)
    nobody = figures(rows(told(torch.zeros(25, dtype=torch.long), 25), torch.zeros(25), torch.zeros(100, dtype=torch.long)))
    assert nobody["accuracy"]==1 and all(torch.tensor(v).isfinite() for v in nobody.values())


def test_a_frame_is_the_majority_and_of_equals_the_third():
    seen = rows(torch.zeros(3, 12), torch.zeros(3), torch.tensor([AA, AA, AA, EE, AA, AA, EE, EE, EE, AA, AA, PBM, 0, 0, 0]))["true"]
    assert seen.tolist()==[AA, EE, AA]


def test_a_closure_is_hit_one_frame_beside_and_not_two():
    truth = torch.full((80,), AA)
    truth[40:48] = PBM # frames 10 and 11
    for at, hit in ((8, 0), (9, 1), (10, 1), (11, 1), (12, 1), (13, 0)):
        said = torch.full((20,), AA)
        said[at] = PBM
        r = rows(told(said, 20), torch.zeros(20), truth)
        assert r["event"].nonzero().tolist()==[[10]] and figures(r)["closures_hit"]==hit
        assert figures(r)["bilabial_f1_near"]>=figures(r)["bilabial_f1"] and (figures(r)["bilabial_f1"]>0)==(at in (10, 11))


def test_intervals_hold_the_figures_and_shrink():
    def heard(n):
        truth = spoken(4*n)
        said = torch.where(torch.rand(n, generator=lot(1))<.7, truth[::4], torch.randint(12, (n,), generator=lot(2)))
        return rows(told(said, n), at_25(gap_curve(truth), 100)+.1*torch.randn(n, generator=lot(3)), truth)
    short, long = heard(250), heard(4000)
    for r in (short, long):
        for k, (low, high) in intervals([r], times=200).items(): assert low-1e-6<=figures(r)[k]<=high+1e-6 or k=="closures_hit"
    width = lambda r: (lambda a: a[1]-a[0])(intervals([r], times=200)["accuracy"])
    assert width(long)<.5*width(short)
    assert intervals([short, short], times=50)==intervals([short], times=50)
    with pytest.raises(ValueError, match="20 frames"): intervals([{k: v[:20] for k, v in short.items()}])


def test_judge_is_rows_of_answers(corpus):
    torch.manual_seed(0)
    net = Small(16).eval()
    r = judge(net, corpus)
    mel, _, visemes = corpus.recordings(1)[0]
    first = rows(*answers(net, mel), visemes)
    assert len(r["true"])==sum(len(x)//4 for x, _, _ in corpus.recordings())
    assert_close(r["gap"][:len(first["gap"])], first["gap"])


# Learning

@pytest.mark.parametrize("make", [lambda: Small(16), lambda: Small(16, causal=True), OneFrame])
def test_a_few_steps_lower_the_loss(make, corpus):
    torch.manual_seed(0)
    net = make()
    held = corpus.batch(lot(99), 8, 240)
    total = lambda: sum(w*loss(net.eval(), held, 0)[0][k].item() for k, w in dict(visemes=1., phones=.4, gap=3.).items())
    before = total()
    assert train(net, corpus, steps=25, batch=4) is net and not net.training
    assert total()<before-.2
    assert_close(net.prior, common_colour(corpus) if net.causal else torch.zeros(80))


def test_a_single_step_is_a_run_too(corpus):
    torch.manual_seed(0)
    assert all(p.isfinite().all() for p in train(Small(16), corpus, steps=1, batch=2).parameters())
