"What the benchmarks count is what is there; what they race draws the same; what `make gpu` reports is what happened."
import json
import os
import subprocess
import sys

import pytest
import torch
from project import ROOT
from talkinglab.gs.project import project
from talkinglab.gs.splat import over, splat_alpha

sys.path.insert(0, str(ROOT/"benchmarks"))
import ears  # noqa: E402
import gpu  # noqa: E402
import render  # noqa: E402


def test_the_scene_is_the_same_head_at_every_size():
    "Splats of 1 to 3 px, whatever the picture; a head that fills most of it."
    for size in (64, 256):
        g, camera = render.scene(2000, size)
        p = project(g, camera, eps2d=0)
        A, B, C = p.conics.double().unbind(1)
        spread = torch.linalg.eigvalsh(torch.stack([A, B, B, C], 1).unflatten(1, (2, 2))).rsqrt()
        assert spread.min()>0.95 and spread.max()<3.1
        height = p.means2d[:, 1].max()-p.means2d[:, 1].min()
        assert 0.8*size<height<0.92*size and ((p.means2d>0) & (p.means2d<size)).all()


def test_pairs_are_counted_as_they_are_drawn():
    g, camera = render.scene(300, 32)
    counts = render.count_pairs(g, camera)
    p = project(g.to(torch.float64), camera.to(torch.float64))
    order = p.depths.argsort()
    ys, xs = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    alpha = splat_alpha(torch.stack([xs, ys], -1).flatten(0, 1)+0.5, p.means2d[order], p.conics[order], p.opacities[order])
    drawn = (alpha>0) & ((1-alpha).cumprod(1)>1e-4)
    assert counts["covered_pairs"]==(alpha>0).sum() and counts["drawn_pairs"]==drawn.sum()
    rows = ((alpha>0) & (torch.cat([torch.ones(1024, 1), (1-alpha).cumprod(1)[:, :-1]], 1)>1e-4)).unflatten(0, (32, 32)).any(1).sum()
    assert rows<=counts["windows"]<=1.3*rows # most rows of a splat are narrower than 16 px
    assert over(alpha, torch.ones(300, 1).double())[0].max()<=1


def test_a_race_compares_pictures_before_times():
    draws, cannot = render.backends(1)
    assert "cpu" in draws and set(draws)|set(cannot)=={"cpu", "gsplat", "torch", "plain_torch", "gsplat_torch"}
    g, camera = render.scene(300, 48)
    times = render.race(draws, g, camera, seconds=0, least=1)
    for t in times.values(): assert 0<t["forward"][0]<=t["forward"][1]
    with pytest.raises(SystemExit, match="dark draws another picture"):
        render.race(draws|dict(dark=lambda g, c: tuple(x*0.9 for x in draws["cpu"](g, c))), g, camera, seconds=0, least=1)


def test_limits_grow_with_the_work():
    counts = dict(windows=1000, drawn_pairs=8000)
    small, large = (render.limits(counts, c, 1e9)["issue"] for c in (3, 32))
    assert 0<small[0]<small[1] and small[0]<large[0] and small[1]<large[1]


def test_every_outcome_is_recorded(tmp_path):
    "Also that of a test which takes the whole process down."
    (tmp_path/"test_some.py").write_text("""import os, pytest
@pytest.fixture
def broken(): raise ValueError("no")
def test_fine(): pass
def test_wrong(): assert 1==2
def test_later(): pytest.skip("not here")
def test_unready(broken): pass
def test_last(): os._exit(3)
def test_never(): pass""")
    (tmp_path/"test_other.py").write_text("import nothing_of_this_name")
    rows = gpu.run_tests([tmp_path/"test_other.py", tmp_path/"test_some.py"], "-c", os.devnull, "--rootdir", str(tmp_path))
    found = {r["name"].split("::")[-1]: (r["outcome"], r.get("reason", "")) for r in rows}
    assert {k: v[0] for k, v in found.items()}=={"test_other.py": "error", "test_fine": "passed", "test_wrong": "failed", "test_later": "skipped",
                                                  "test_unready": "error", "test_last": "crashed"}
    assert "not here" in found["test_later"][1] and "nothing_of_this_name" in found["test_other.py"][1] and "no" in found["test_unready"][1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_one_line_is_all(tmp_path):
    r = subprocess.run([sys.executable, ROOT/"benchmarks"/"gpu.py", "--out", tmp_path/"gpu.json"], capture_output=True, text=True)
    assert r.returncode==2 and r.stderr.count("\n")==1 and "CUDA" in r.stderr and not r.stdout and not list(tmp_path.iterdir())


def test_the_report_is_whole_or_not_there(tmp_path):
    gpu.write(tmp_path/"deep"/"gpu.json", dict(rows=[1]))
    assert json.loads((tmp_path/"deep"/"gpu.json").read_text())==dict(rows=[1]) and len(list((tmp_path/"deep").iterdir()))==1


def test_numba_that_does_not_know_this_numpy_is_a_reason_not_a_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    draws, cannot = render.backends(1)
    assert "cpu" not in draws and "numba cannot be imported" in cannot["cpu"]
    rows, rate = render.measure([(200, 32, 3)], torch.get_num_threads(), dict(plain_torch=draws["plain_torch"]), cannot, 0)
    assert rate is None and "ratio_to_cpu" not in rows[0] and rows[0]["left_out"]["cpu"] and rows[0]["times"]["plain_torch"]["runs"]==3


def spoken(seconds=20, seed=0):
    "A corpus in which every class has a spectrum of its own, and stays 80 ms."
    g = torch.Generator().manual_seed(seed)
    seen = torch.randint(12, (round(12.5*seconds),), generator=g).repeat_interleave(8)
    colours = 3*torch.randn(12, 80, generator=torch.Generator().manual_seed(0))
    mel = colours[seen]+.1*torch.randn(len(seen), 80, generator=g)
    return ears.Corpus.of([(mel, torch.zeros_like(seen), seen)])


def test_ears_are_asked_as_encode_answers():
    torch.manual_seed(0)
    audio = ears.Audio(torch.randn(3*16000, generator=torch.Generator().manual_seed(0))/10, 16000)
    for causal in (False, True):
        net = ears.Small(16, causal).eval()
        f = ears.encode(audio, ears.SmallEncoder(net))
        posterior, gap = ears.answers(net, ears.features(audio, 100., ("mel",)).x)
        torch.testing.assert_close(posterior, f["visemes"], atol=1e-4, rtol=0)
        torch.testing.assert_close(gap, f["gap"], atol=1e-4, rtol=0)


def test_baselines_are_as_good_as_they_can_be():
    "Where the spectrum gives the class away the matrix finds it; loudness finds less, the majority least; intervals hold the figures."
    corpus = spoken()
    x, _, seen = corpus.batch(torch.Generator().manual_seed(0), b=12, disguised=False, quiet=0.)
    heard = x, seen[:, ::2].flatten(), ears.gap_curve(seen).unflatten(1, (-1, 2)).mean(2).flatten()
    systems = dict(majority=[ears.Majority(corpus)], loudness=[ears.Loudness(*heard)], linear=[ears.linear(*heard, steps=30)])
    clips = [("a", mel, visemes) for mel, _, visemes in spoken(seed=1).recordings()]
    found = ears.table(systems, clips, 100)
    assert found["majority"]["accuracy"]<.2<found["loudness"]["accuracy"]<found["linear"]["accuracy"]>.85 and found["linear"]["bilabial_f1"]>.8
    for row in found.values():
        for k in ears.AIM: assert row["interval"][k][0]-.02<=row[k]<=row["interval"][k][1]+.02
    assert ears.contents(clips)["frames"]==500
    told = ears.predicted(found, found)
    assert told["accuracy"]["order"]==1 and told["accuracy"]["real_less_second"]==0


def test_look_ahead_is_what_the_network_hears():
    "Seven rows of 10 ms beyond its own, and half a row's 25 ms."
    torch.manual_seed(0)
    ahead = ears.look_ahead(ears.Small(16, causal=True).eval(), span=(1., 1.08), step=.004, seconds=2)
    assert 60<ahead["hears_ms"]<=80 and ahead["hears_ms"]<=ahead["waits_ms"]<=80


REAL = ROOT.parent/"shared"/"data"

@pytest.mark.skipif(not REAL.is_dir(), reason="real recordings are not here")
def test_every_labelled_recording_is_judged():
    c = ears.contents(ears.real(REAL))
    assert (c["clips"], c["frames"], c["closures"])==(6, 934, 22) and .16<c["shares"]["SIL"]<.19


def test_what_is_absent_is_left_out(tmp_path):
    assert ears.real(tmp_path)==[] and ears.networks(tmp_path)=={}
