"The training loop: frozen parts, schedules, names, resuming bit for bit, interrupted writes, several processes."
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from project import ROOT, run_two
from talkinglab.core import fit as module
from talkinglab.core.fit import EMA, Hook, Preview, Run, decay, fit, load_checkpoint, save_checkpoint, value
from torch import nn
from torch.testing import assert_close

# The same few lines run here and in the processes that are started below.
COMMON = '''
import torch
from torch import nn
from talkinglab.core.fit import EMA, Stage, decay, fit

class Net(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body, self.head, self.late = nn.Linear(2, 8), nn.Linear(8, 1), nn.Linear(8, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

def loss(net, batch, it):
    x, y = batch
    z = net.body(x).tanh()
    out = net.head(z)+(net.late(z) if it%3==1 else 0)  # `late` has no gradient at most steps
    return dict(fit=(out-y).square().mean(), small=net.head.weight.square().mean()), out

def noisy(net, batch, it):
    terms, aux = loss(net, batch, it)
    net.seen += 1
    return dict(terms, fit=terms["fit"]+0.1*(torch.randn(8)*net.body.bias).sum()), aux  # torch's global random state matters

def batches(i):
    x = torch.rand(16, 2, generator=torch.Generator().manual_seed(i))
    return x, (5*x).sin().sum(-1, keepdim=True)

def stage(steps=20, loss=loss):
    return Stage("small", loss, dict(fit=1., small=lambda it: 0.01 if it>5 else 0.), {"body": decay(1e-2, 1e-3, 20), "head": 1e-2, "late": 1e-2}, steps, (EMA(0.9),))
'''
exec(COMMON)  # noqa: S102


def assert_same_bits(a, b): assert_close(a, b, rtol=0, atol=0)


def finish(seed=0, checkpoint=None, batches=batches, stage=None, every=5, loss=noisy):
    "A run of 20 steps; returns what must agree: weights, Adam's memory, EMA, history."
    net, stage = Net(), stage or globals()["stage"](loss=loss)
    torch.manual_seed(seed)
    run = fit(net, stage, batches, checkpoint=checkpoint, every=every)
    return dict(net=net.state_dict(), adam=run.optimizer.state_dict()["state"], ema=stage.hooks[0].shadow, total=[h["total"] for h in run.history])


@pytest.fixture(scope="module")
def whole(): return finish()


def test_fit_learns(whole):
    assert sum(whole["total"][-4:]) < 0.8*sum(whole["total"][:4]) and whole["net"]["seen"] == 20


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 13, 19])
@pytest.mark.parametrize("every", [1, 5])
def test_a_run_killed_at_any_step_ends_in_the_same_bits(whole, tmp_path, cut, every):
    def dying(i):
        if i == cut: raise KeyboardInterrupt
        return batches(i)
    path = tmp_path/"run.pt"
    with pytest.raises(KeyboardInterrupt): finish(checkpoint=path, batches=dying, every=every)
    assert path.exists() == (cut >= every)
    torch.manual_seed(99)  # whatever the new process starts with
    assert_same_bits(finish(seed=99 if cut >= every else 0, checkpoint=path, every=every), whole)


def test_a_finished_run_is_only_loaded(whole, tmp_path):
    first = finish(checkpoint=tmp_path/"run.pt")
    def never(i): raise AssertionError("asked for a batch")
    assert_same_bits(finish(checkpoint=tmp_path/"run.pt", batches=never), first)


def test_more_steps_go_on_from_a_finished_run(tmp_path):
    finish(checkpoint=tmp_path/"run.pt", stage=stage(12, noisy))
    assert_same_bits(finish(seed=7, checkpoint=tmp_path/"run.pt", stage=stage(20, noisy)), finish())
    with pytest.raises(ValueError, match="at step 20, the stage has 12"): finish(checkpoint=tmp_path/"run.pt", stage=stage(12, noisy))


def test_a_checkpoint_is_data_not_code(tmp_path):
    finish(checkpoint=tmp_path/"run.pt")
    state = torch.load(tmp_path/"run.pt", weights_only=True)
    assert state["it"] == 20 and len(state["history"]) == 20

    class Odd(Hook):
        def state(self): return dict(seen=[1, object()])
    with pytest.raises(ValueError, match=r"state of Odd\['seen'\]\[1\] is a object"): fit(Net(), replace(stage(), hooks=(Odd(),)), batches, checkpoint=tmp_path/"odd.pt")
    assert not (tmp_path/"odd.pt").exists()


def test_an_interrupted_write_leaves_the_old_checkpoint(whole, tmp_path, monkeypatch):
    path, saves = tmp_path/"run.pt", []
    real = torch.save
    def failing(state, part):
        saves.append(part)
        if len(saves) < 3: return real(state, part)
        real(state, part)
        part.write_bytes(part.read_bytes()[:500])
        raise KeyboardInterrupt
    monkeypatch.setattr(torch, "save", failing)
    with pytest.raises(KeyboardInterrupt): finish(checkpoint=path)
    monkeypatch.undo()
    assert torch.load(path, weights_only=True)["it"] == 10 and list(tmp_path.iterdir()) == [path]
    assert_same_bits(finish(seed=3, checkpoint=path), whole)


KILLED = COMMON+'''
import os, signal, sys
real, saves = torch.save, []
def dying(state, part):
    real(state, part)
    saves.append(part)
    if len(saves)==3:
        part.write_bytes(part.read_bytes()[:500])
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = dying
torch.manual_seed(0)
fit(Net(), stage(loss=noisy), batches, checkpoint=sys.argv[1], every=5)
'''


def test_a_process_killed_while_writing_resumes_in_the_same_bits(whole, tmp_path):
    path = tmp_path/"run.pt"
    env = dict(os.environ, OMP_NUM_THREADS=str(torch.get_num_threads()))
    p = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, env=env, capture_output=True, text=True)
    assert p.returncode == -signal.SIGKILL, p.stderr
    assert torch.load(path, weights_only=True)["it"] == 10
    assert_same_bits(finish(seed=3, checkpoint=path), whole)


@pytest.mark.parametrize("change, says", [
    (dict(name="other"), "name is small, here it is other"),
    (dict(lrs={"head": 1e-2}), "parts (has|lacks|are)"),
    (dict(hooks=()), "hooks (has|lacks)"),
])
def test_a_checkpoint_of_another_stage_is_refused(tmp_path, change, says):
    finish(checkpoint=tmp_path/"run.pt")
    with pytest.raises(ValueError, match=says): fit(Net(), replace(stage(), **change), batches, checkpoint=tmp_path/"run.pt")


class Rows(nn.Module):
    "A system with any number of rows: its sum fits a number."
    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.ones(3, 2))

    def _load_from_state_dict(self, state, prefix, *rest):
        self.rows = nn.Parameter(torch.empty_like(state[prefix+"rows"]))
        super()._load_from_state_dict(state, prefix, *rest)


class Grow(Hook):
    "Every fourth step, a noisy row more; from step 12 on, the first one goes: as many rows as before, others."
    def step(self, run):
        if run.it%4: return
        old = run.system.rows
        change = lambda x, new: torch.cat([x[1:] if run.it >= 12 else x, new])
        run.system.rows = nn.Parameter(change(old.detach(), torch.randn(1, 2)))
        memory = run.optimizer.state.pop(old)
        run.optimizer.state[run.system.rows] = {k: v if k == "step" else change(v, torch.zeros(1, 2)) for k, v in memory.items()}
        run.optimizer.param_groups[0]["params"] = [run.system.rows]


def grown(checkpoint=None, batches=batches, seed=0):
    system, ema = Rows(), EMA(0.5)
    loss = lambda system, batch, it: (dict(sum=(system.rows.sum()-batch[0].sum()).square()), None)
    torch.manual_seed(seed)
    run = fit(system, replace(stage(), loss=loss, weights=dict(sum=1.), lrs=dict(rows=1e-2), hooks=(Grow(), ema)), batches, checkpoint=checkpoint, every=3)
    return dict(rows=system.rows.detach(), adam=run.optimizer.state_dict()["state"], ema=ema.shadow, total=[h["total"] for h in run.history])


@pytest.mark.parametrize("cut", [3, 7, 8, 13, 19])
def test_a_system_that_grows_resumes_in_the_same_bits(tmp_path, cut):
    def dying(i):
        if i == cut: raise KeyboardInterrupt
        return batches(i)
    whole = grown()
    with pytest.raises(KeyboardInterrupt): grown(tmp_path/"run.pt", dying)
    assert_same_bits(grown(tmp_path/"run.pt", seed=99), whole)
    assert whole["rows"].shape == (5, 2)


def test_the_mean_of_a_replaced_parameter_begins_anew():
    class Swap(Hook):
        def step(self, run):
            if run.it != 5: return
            run.system.head = nn.Linear(8, 1)
            for g in run.optimizer.param_groups:
                if g["part"] == "head": g["params"] = list(run.system.head.parameters())
            self.then = run.system.head.weight.detach().clone()
    swap, ema = Swap(), EMA(0.9)
    fit(Net(), replace(stage(5), hooks=(swap, ema)), batches)
    assert torch.equal(ema.shadow["head.weight"], swap.then) and not torch.equal(ema.shadow["body.weight"], Net().body.weight)


def test_hooks_put_numbers_on_the_bar(capsys):
    class Gauge(Hook):
        def step(self, run): run.shown["PSNR"] = 31.256
    fit(Net(), replace(stage(10), hooks=(Gauge(),)), batches, progress=True)
    shown = capsys.readouterr().err
    assert "PSNR=31.26" in shown and "loss=" in shown


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    path = tmp_path/"run.pt"
    finish(checkpoint=path)
    whole = path.read_bytes()
    for content in (whole[:len(whole)//2], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no whole checkpoint"): finish(checkpoint=path)
    torch.save(Net().state_dict(), path)
    with pytest.raises(ValueError, match="no whole checkpoint"): finish(checkpoint=path)
    with pytest.raises(ValueError, match="no such folder"): finish(checkpoint=tmp_path/"nowhere"/"run.pt")


def test_a_system_of_other_shapes_is_refused(tmp_path):
    finish(checkpoint=tmp_path/"run.pt")
    wide = Net()
    wide.body = nn.Linear(3, 8)
    with pytest.raises(ValueError, match="does not fit this system"): fit(wide, stage(), batches, checkpoint=tmp_path/"run.pt")


def test_only_named_parts_move():
    net, before = Net(), Net().state_dict()
    fit(net, replace(stage(5), lrs={"head.weight": 1e-2}), batches)
    moved = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"head.weight"}
    assert [n for n, p in net.named_parameters() if p.requires_grad] == ["head.weight"]


def test_the_longer_name_wins_and_a_rate_of_zero_rests():
    net, before = Net(), Net().state_dict()
    fit(net, replace(stage(5), lrs={"head": 1e-2, "head.bias": 0}), batches)
    assert torch.equal(net.head.bias, before["head.bias"]) and not torch.equal(net.head.weight, before["head.weight"])


def test_a_prefix_of_a_name_is_not_a_part():
    with pytest.raises(ValueError, match="under hea: parts are body, head, late"): fit(Net(), replace(stage(), lrs={"hea": 1e-2}), batches)
    with pytest.raises(ValueError, match="names no part"): fit(Net(), replace(stage(), lrs={}), batches)


def test_the_next_stage_thaws():
    net = Net()
    fit(net, replace(stage(2), lrs={"head": 1e-2}), batches)
    before = net.body.weight.detach().clone()
    fit(net, replace(stage(2), lrs={"body": 1e-2}), batches)
    assert not torch.equal(net.body.weight, before) and not net.head.weight.requires_grad


def test_schedules_are_read_at_every_step():
    class Rates(Hook):
        def start(self, run): self.seen = []
        def before_update(self, run): self.seen.append({g["part"]: g["lr"] for g in run.optimizer.param_groups})
    rates = Rates()
    run = fit(Net(), replace(stage(20), hooks=(rates,)), batches)
    assert [r["body"] for r in rates.seen] == [decay(1e-2, 1e-3, 20)(i) for i in range(20)] and {r["head"] for r in rates.seen} == {1e-2}
    for i, h in enumerate(run.history): assert h["total"] == pytest.approx(h["fit"]+(0.01 if i > 5 else 0)*h["small"])
    assert value(3, 0) == 3. and value(lambda it: 2*it, 4) == 8.


def test_decay_falls_by_equal_factors():
    f = decay(2., 0.02, 10)
    assert_close(torch.tensor([f(i+1)/f(i) for i in range(10)]), torch.full((10,), 0.01**0.1))
    assert f(10) == f(99) == pytest.approx(0.02)
    with pytest.raises(ValueError, match="must be positive"): decay(1., 0., 10)


@pytest.mark.parametrize("weights", [dict(fit=1.), dict(fit=1., small=1., extra=1.), {}])
def test_terms_and_weights_carry_the_same_names(weights):
    with pytest.raises(ValueError, match=r"stage 'small', step 0: loss gives \['fit', 'small'\], weights name"): fit(Net(), replace(stage(), weights=weights), batches)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step_and_term_before_it_reaches_a_weight(bad):
    def poisoned(net, batch, it):
        terms, aux = loss(net, batch, it)
        return dict(terms, small=terms["small"]*(bad if it == 7 else 1)), aux
    net = Net()
    with pytest.raises(ValueError, match=f"step 7: loss is {bad} .*small {bad}"): fit(net, replace(stage(loss=poisoned), weights=dict(fit=1., small=1.)), batches)
    assert all(p.isfinite().all() for p in net.parameters())


def test_terms_are_single_numbers_that_depend_on_what_learns():
    with pytest.raises(ValueError, match=r"step 0: fit of shape \(16, 1\): take the mean"): fit(Net(), stage(loss=lambda n, b, it: (dict(fit=b[1], small=b[1].mean()), None)), batches)
    with pytest.raises(ValueError, match="does not depend on"): fit(Net(), stage(loss=lambda n, b, it: (dict(fit=b[1].mean(), small=b[1].mean()), None)), batches)


def test_a_plain_number_may_be_a_term():
    run = fit(Net(), stage(3, lambda n, b, it: (dict(loss(n, b, it)[0], small=0.), None)), batches)
    assert run.history[-1]["small"] == 0


def test_hooks_are_called_in_order_and_see_the_run():
    calls = []
    class Watch(Hook):
        def start(self, run): calls.append(("start", run.it))
        def before_update(self, run): calls.append(("before", run.it, run.system.head.weight.grad is not None, run.aux.shape[0]))
        def step(self, run): calls.append(("step", run.it, sorted(run.terms), run.total == run.history[-1]["total"]))
        def end(self, run): calls.append(("end", run.it))
    fit(Net(), replace(stage(2), hooks=(Watch(),)), batches)
    assert calls == [("start", 0), ("before", 0, True, 16), ("step", 1, ["fit", "small"], True), ("before", 1, True, 16), ("step", 2, ["fit", "small"], True), ("end", 2)]


def test_ema_is_the_weighted_mean_of_the_path():
    class Path(Hook):
        def start(self, run): self.seen = [run.system.head.weight.detach().clone()]
        def step(self, run): self.seen.append(run.system.head.weight.detach().clone())
    path, ema = Path(), EMA(0.8)
    net = Net()
    fit(net, replace(stage(6), hooks=(path, ema)), batches)
    mean = path.seen[0]
    for w in path.seen[1:]: mean = 0.8*mean+0.2*w
    assert_close(ema.shadow["head.weight"], mean)
    ema.copy_to(net)
    assert_close(net.head.weight.data, mean)


def test_hooks_begin_anew_with_a_new_run():
    ema, preview = EMA(0.9), Preview(2, lambda run: run.system.head.weight.clone())
    shared = replace(stage(6), hooks=(ema, preview))
    fit(Net(), shared, batches)
    first, kept = {k: v.clone() for k, v in ema.shadow.items()}, preview.kept
    assert [i for i, _ in kept] == [2, 4, 6] and not kept[0][1].requires_grad
    fit(Net(), shared, batches)
    assert_same_bits(ema.shadow, first)
    assert [i for i, _ in preview.kept] == [2, 4, 6]
    with pytest.raises(ValueError, match="has not watched a run"): EMA().copy_to(Net())


def test_save_and_load_are_inverse(tmp_path):
    run = fit(Net(), stage(4), batches)
    save_checkpoint(tmp_path/"a.pt", run)
    net = Net(seed=5)
    twin = Run(net, stage(4), torch.optim.Adam(module._groups(net, stage().lrs)))
    load_checkpoint(tmp_path/"a.pt", twin)
    assert twin.it == 4 and twin.history == run.history
    assert_same_bits(net.state_dict(), run.system.state_dict())
    assert_same_bits(twin.optimizer.state_dict()["state"], run.optimizer.state_dict()["state"])


def test_one_process_leaves_no_global_state():
    code = COMMON+'''
import sys
fit(Net(), stage(2), batches)
assert "accelerate" not in sys.modules and not torch.distributed.is_initialized()
from accelerate import PartialState
assert PartialState._shared_state=={}  # whoever uses Accelerate next chooses the device
'''
    p = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr


TWO = COMMON+'''
import os, sys
from pathlib import Path
rank, out = int(os.environ["RANK"]), Path(sys.argv[1])
plain, result = stage(), {}
net = Net(seed=rank)                                # different starts: all must take the first one's
run = fit(net, plain, batches)
result["plain"] = dict(net=net.state_dict(), ema=plain.hooks[0].shadow, total=[h["total"] for h in run.history])

def dying(i):
    if i//2==13: raise KeyboardInterrupt
    return batches(i)
def noisy_run(seed, **kw):
    net = Net()
    torch.manual_seed(seed+rank)                    # each process has noise of its own
    run = fit(net, stage(loss=noisy), kw.pop("batches", batches), every=5, **kw)
    return dict(net=net.state_dict(), total=[h["total"] for h in run.history])
result["whole"] = noisy_run(0)
try: noisy_run(0, checkpoint=out/"two.pt", batches=dying)
except KeyboardInterrupt: pass
result["it"] = torch.load(out/"two.pt", weights_only=True)["it"]
torch.distributed.barrier()
result["resumed"] = noisy_run(50, checkpoint=out/"two.pt")

try: fit(Net(), stage(30), batches, checkpoint=out/"two.pt" if rank==0 else out/"not_here.pt")
except ValueError as e: result["apart"] = str(e)
torch.save(result, out/f"rank{rank}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
'''


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    "Two processes on this machine's loopback, as `torchrun --nproc-per-node 2` would start them."
    out = tmp_path_factory.mktemp("two")
    run_two(TWO, out, 120)
    return [torch.load(out/f"rank{r}.pt", weights_only=True) for r in range(2)]


def test_two_processes_are_one_with_both_batches(two):
    both = lambda i: tuple(torch.cat(x) for x in zip(batches(2*i), batches(2*i+1)))
    net, alone = Net(), stage()
    totals = [h["total"] for h in fit(net, alone, both).history]
    assert_close(torch.tensor(two[0]["plain"]["total"]), torch.tensor(totals), atol=1e-4, rtol=0)
    assert_close(two[0]["plain"]["net"], net.state_dict(), atol=1e-4, rtol=0)
    assert_close(two[0]["plain"]["ema"], alone.hooks[0].shadow, atol=1e-4, rtol=0)


def test_two_processes_keep_equal_parameters(two):
    for k in ("plain", "whole", "resumed"): assert_same_bits(two[0][k], two[1][k])


def test_two_processes_resume_in_the_same_bits(two):
    for result in two:
        assert result["it"] == 10
        assert_same_bits(result["resumed"], result["whole"])


def test_processes_that_resume_apart_are_refused(two):
    for result in two: assert "processes start at steps [20, 0]" in result["apart"]


def test_a_launch_that_accelerate_does_not_see_is_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    from accelerate import PartialState
    try:
        with pytest.raises(ValueError, match="2 processes talk, 1 are launched"): fit(Net(), stage(), batches)
    finally: PartialState._reset_state()
