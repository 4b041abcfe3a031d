"D3-Talker: nothing moves at first, two fields add, contrast reaches whom it may, runs resume to the bit, two processes are one, a saved talker returns."
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch
from project import run_two
from talkinglab.audio.encoders import encode
from talkinglab.audio.features import Features
from talkinglab.core.assets import samples
from talkinglab.core.camera import orbit
from talkinglab.core.clip import Frames, Motion, read_talker
from talkinglab.core.clock import frame_count
from talkinglab.core.fit import Hook, fit
from talkinglab.core.media import Audio, MediaError, read_audio
from talkinglab.face.actor import embody, perform, shoot
from talkinglab.face.bind import Skin
from talkinglab.gs.field import Growth
from talkinglab.gs.render import render
from talkinglab.nn.fields import DeformField
from talkinglab.systems import d3talker
from talkinglab.systems.d3talker import (FPS, MOUTH, UPPER, VIEW, Codes, Config, Mover, Person, Plan, adapted, batch_of, contrast, draw_batches, follow_stage, heard_by,
                                         learn, move, mover_stage, new_person, new_talker, opening, read, read_film, read_sound, refine_stage, save, speak,
                                         static_stage, talk_stage, train)
from talkinglab.systems.hello import read as read_hello
from torch.testing import assert_close

TINY = Config(size=48, face=300, mouth=60, levels=3, finest=24, map=16, general=16, individual=8, refiner=4)
PLAN = Plan(static=4, follow=2, pretrain=3, adapt=3, refine=2)
ABLATIONS = dict(full={}, similar=dict(negative=0.), negative=dict(similar=0.), none=dict(similar=0., negative=0.), marks=dict(marks=0.), coarse=dict(refiner=0), audio=dict(motion="audio"),
                 lids=dict(upper=False), hook=dict(hook=False), places=dict(attributes=("means",)), bare=dict(similar=0., negative=0., marks=0., refiner=0, upper=False, hook=False))


def assert_same_bits(a, b): assert_close(a, b, rtol=0, atol=0)


def untrained_mover():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Mover().eval()


def said(name, seconds):
    "The beginning of a bundled recording, and its phones."
    sound = read_audio(samples(f"{name}.flac"))
    phones = json.loads(samples(f"{name}.json").read_text(encoding="utf-8"))["phones"]
    return Audio(sound.samples[:round(seconds*sound.rate)], sound.rate), [(a, min(b, seconds), p) for a, b, p in phones if a < seconds]


@pytest.fixture(scope="module")
def films():
    "Two people of 40 frames; the same head, other words, another manner."
    camera = orbit(0, width=48, height=48, **VIEW)
    return [shoot(perform(*said(name, 1.6), style=style), camera, supersample=1) for name, style in (("hello", "neutral"), ("lesson", "lively"))]


@pytest.fixture(scope="module")
def tracks(films): return [read_film(f, TINY, untrained_mover(), depths=True) for f in films]


@pytest.fixture(scope="module")
def body():
    "One resting person: the costly part of `new_person`."
    return new_person(embody(), TINY)


def person(body, cfg):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        return Person(cfg, body.face(), body.mouth(), Skin(**body.skin.state_dict()), body.landmarks.clone(), 101)


def talker(body, people=1, **change):
    cfg = replace(TINY, **change)
    return new_talker(cfg, [person(body, cfg) for _ in range(people)], untrained_mover())


@torch.no_grad()
def awake(system, seed=0):
    "The last layers start at zero; here everybody says something of their own."
    g = torch.Generator().manual_seed(seed)
    for field in system.modules():
        if isinstance(field, DeformField): list(field.then.parameters())[-1].normal_(0, .05, generator=g)
    for p in system.people: p.style.normal_(generator=g)
    for p in system.mover.style.parameters(): p.add_(.05*torch.randn(p.shape, generator=g))
    if system.refiner is not None:
        for p in system.refiner.parameters(): p.add_(.02*torch.randn(p.shape, generator=g))
    return system.eval().requires_grad_(False)


def still(m): return replace(m, rotation=torch.zeros(3), translation=torch.zeros(3), gaze=torch.zeros(2))


# ---- the system

def test_an_untrained_talker_is_the_resting_head(body, tracks):
    t, b = talker(body), batch_of(tracks[0], 0, 20, TINY)
    coarse, fine, rest, o = t(0, still(b.moment), b.camera, b.background)
    for field in (o.general, o.individual):
        assert set(field) == {"face", "mouth"} and set(field["face"]) == set(TINY.attributes) and set(field["mouth"]) == {"means"}
        for part in field.values():
            for x in part.values(): assert not x.any()
    own = t.people[0]
    assert_close(coarse.rgb, render(own.face()+own.mouth(), b.camera, b.background).rgb, atol=1e-4, rtol=0)
    assert_close(fine, coarse.rgb, atol=1e-5, rtol=0)
    assert len(rest.still)+len(rest.face) == len(own.face()) and len(rest.still) > 20 and len(rest.face) > 100


def test_no_gain_is_the_resting_head(body, tracks):
    t, m = awake(talker(body)), still(tracks[0].moment(20, TINY.reach))
    own, rest = t.people[0], t.rest(t.people[0])
    o = t.offsets(own, rest, *t.signals(own, m), m.upper, (0., 0.))
    assert o.general["face"]["means"].abs().max() > 1e-4 and o.individual["mouth"]["means"].abs().max() > 1e-5
    at_rest = rest.still+rest.face+rest.mouth
    for name in ("means", "quats", "scales", "opacities", "colors"): assert_close(getattr(t.gaussians(rest, o, m, (0., 0.)), name), getattr(at_rest, name), atol=1e-6, rtol=0)
    assert_close(t.landmarks(own, o.moved, o.heard, m.upper, (0., 0.)), own.landmarks)


def test_both_fields_offsets_add_and_scale(body, tracks):
    t, m = awake(talker(body, hook=False)), still(tracks[0].moment(20, TINY.reach))
    own, rest = t.people[0], t.rest(t.people[0])
    o = t.offsets(own, rest, *t.signals(own, m), m.upper)
    def off(*gains):
        "What the gains (general, individual) change: places and log scales, landmarks."
        g = t.gaussians(rest, o, m, gains)
        n = rest.still+rest.face+rest.mouth
        return torch.cat([g.means-n.means, (g.scales/n.scales).log(), torch.nn.functional.pad(t.landmarks(own, o.moved, o.heard, m.upper, gains)-own.landmarks, (0, 0))])
    general, individual = off(1., 0.), off(0., 1.)
    assert general.abs().max() > 1e-4 and individual.abs().max() > 1e-4
    for a, b in ((1., 1.), (2., 0.), (0., 2.), (.5, 1.5)): assert_close(off(a, b), a*general+b*individual, atol=2e-6, rtol=1e-4)


def test_the_hook_tells_the_mouth_what_the_lips_do(body, tracks):
    "With it the inside of the mouth hears the gains of the face; without it does not."
    for on in (True, False):
        t, m = awake(talker(body, hook=on)), tracks[0].moment(20, TINY.reach)
        own, rest = t.people[0], t.rest(t.people[0])
        a, b = (t.offsets(own, rest, *t.signals(own, m), m.upper, gains).general["mouth"]["means"] for gains in ((1., 1.), (2., 2.)))
        assert torch.equal(a, b) != on


def test_what_no_expression_moves_stays(body, tracks):
    t, m = awake(talker(body)), still(tracks[0].moment(20, TINY.reach))
    own, rest = t.people[0], t.rest(t.people[0])
    moved = t.gaussians(rest, t.offsets(own, rest, *t.signals(own, m), m.upper), m)
    assert_close(moved.means[:len(rest.still)], rest.still.means, atol=1e-6, rtol=0)
    assert (moved.means[len(rest.still):]-(rest.face+rest.mouth).means).abs().amax(1).gt(1e-6).float().mean() > .9


def test_lids_drive_the_general_field_if_asked(body, tracks):
    for on in (True, False):
        t, m = awake(talker(body, upper=on)), tracks[0].moment(20, TINY.reach)
        own, rest = t.people[0], t.rest(t.people[0])
        a, b = (t.offsets(own, rest, *t.signals(own, m), u) for u in (m.upper, m.upper+1))
        assert torch.equal(a.general["face"]["means"], b.general["face"]["means"]) != on
        assert torch.equal(a.individual["face"]["means"], b.individual["face"]["means"])


# ---- signals

@pytest.mark.parametrize("motion", ["pncc", "audio"])
def test_codes_are_the_signals_of_every_moment(body, films, motion):
    "What is worked out block by block equals the frame's own, and does not depend on the block."
    t, film = awake(talker(body, motion=motion)), films[0]
    track, rows = read_sound(film.audio, film.motion, t.cfg, None), encode(film.audio, t.cfg.encoder, 2*FPS)
    own = t.people[0]
    each = [t.signals(own, track.moment(i, t.cfg.reach)) for i in range(len(track))]
    moved, heard = (torch.stack(x) for x in zip(*each))
    assert moved.std(0).max() > 1e-3 and heard.std(0).max() > 1e-3
    for block in (7, 100):
        codes = Codes(t, own, film.motion, rows, block)
        assert len(codes) == len(track) == 40
        a, b = (torch.stack(x) for x in zip(*[codes[i] for i in range(40)]))
        assert_close(a, moved, atol=2e-5, rtol=1e-4)
        assert_close(b, heard, atol=2e-5, rtol=1e-4)


def test_other_rates_read_between_the_codes(body, films):
    t = awake(talker(body))
    codes = Codes(t, t.people[0], films[0].motion, encode(films[0].audio, t.cfg.encoder, 2*FPS), 10)
    for i in (0, 9, 10, 39): assert_close(codes.at((i+.5)/FPS), codes[i], atol=1e-5, rtol=1e-4)
    for i in (8, 9, 25): assert_close(codes.at((i+1)/FPS), tuple((a+b)/2 for a, b in zip(codes[i], codes[i+1])))
    assert_close(codes.at(0.), codes[0])
    assert_close(codes.at(99.), codes[39])
    i = 13  # at 30 Hz
    u = (i+.5)/30*FPS-.5
    assert_close(codes.at((i+.5)/30), tuple(torch.lerp(a, b, u-int(u)) for a, b in zip(codes[int(u)], codes[int(u)+1])))


def test_ten_minutes_are_heard_in_the_memory_of_one(body):
    t, g, most = awake(talker(body, motion="audio")), torch.Generator().manual_seed(0), []
    for n in (round(60*FPS), round(600*FPS)):
        curves = Motion.still(torch.rand(n, len(MOUTH), generator=g), MOUTH, FPS)
        codes = Codes(t, t.people[0], curves, Features(torch.rand(2*n, 101, generator=g), 2*FPS, tuple("x"*101)), 5)
        kept = []
        for i in range(0, n, n//12):
            codes[i]
            kept.append(sum(x.untyped_storage().nbytes() for block in codes.kept.values() for x in block))
        most.append((max(kept), len(codes.kept)))
    assert most[0] == most[1]


def test_codes_may_be_asked_by_many_threads(body, films):
    t = awake(talker(body, motion="audio"))
    new = lambda: Codes(t, t.people[0], films[0].motion, encode(films[0].audio, t.cfg.encoder, 2*FPS), 4)
    one, many = new(), new()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist()
    with ThreadPoolExecutor(4) as pool: found = list(pool.map(many.__getitem__, order))
    for i, x in zip(order, found): assert_same_bits(x, one[i])


# ---- losses

def test_contrast_teaches_the_general_field_and_the_own_one(body, tracks):
    t, b = awake(talker(body, 2)).requires_grad_(True), batch_of(tracks[0], 0, 20, TINY)
    terms, _ = talk_stage(t, PLAN).loss(t, b, 0)
    (terms["similar"]+terms["negative"]).backward()
    reached = {n for n, p in t.named_parameters() if p.grad is not None and p.grad.any()}
    fields = ("general.face", "people.0.fields.face")
    signals = ("maps", "near", "people.0.ear", "people.0.smooth")  # what they hear
    assert all(n.startswith(fields+signals) for n in reached), sorted(reached)
    assert all(any(n.startswith(f) for n in reached) for f in fields)


def test_each_contrast_keeps_to_its_fields(body, tracks):
    "The negative contrast is about the individual field alone; the person whose frame it is learns, not the others."
    t, m = awake(talker(body, 2)).requires_grad_(True), tracks[1].moment(20, TINY.reach)
    own = t.people[1]
    for k, may in ((0, ("general.face", "people.1.fields.face")), (1, ("people.1.fields.face",))):
        t.zero_grad()
        rest = t.rest(own)
        o = t.offsets(own, rest, *(x.detach() for x in t.signals(own, m)), m.upper)
        contrast(t, 1, rest, o)[k].backward()
        reached = {n for n, p in t.named_parameters() if p.grad is not None and p.grad.any()}
        assert {f for f in may if any(n.startswith(f) for n in reached)} == set(may)
        assert all(n.startswith(may) for n in reached), sorted(reached)


@pytest.mark.parametrize("name", ABLATIONS)
def test_loss_terms_and_weights_agree_in_every_ablation(body, tracks, name):
    "A step of each phase, for one person and for two; `fit` refuses terms and weights of other names."
    for people in (1, 2):
        t = talker(body, people, **ABLATIONS[name])
        batches = draw_batches(tracks[:people], [range(40)]*people, t.cfg, .25, 4)
        stages = [talk_stage(t, PLAN), talk_stage(t, PLAN, geometric=True), refine_stage(t, PLAN), static_stage(t, PLAN)]
        for s in stages[1:2] if people == 1 else stages[::2] if name in ("full", "coarse") else stages[:1]:
            run = fit(t.train(), replace(s, steps=1), batches)
            assert set(run.terms) == set(s.weights) and torch.tensor(list(run.terms.values())).isfinite().all()
        terms, on = set(stages[0].weights), lambda x: getattr(t.cfg, x) > 0
        assert terms == {"l1", "dssim", "lips", "sparse"}|({"similar"} if on("similar") and people > 1 else set())|({"negative"} if on("negative") and people > 1 else set()) \
            | ({"marks"} if on("marks") else set())|({"fine", "look"} if on("refiner") else set())
        assert set(stages[1].weights) == terms|{"depth", "normal"}
    run = fit(t, replace(follow_stage(t, PLAN), steps=1), lambda b: [batches(b), batches(b+1)])
    assert set(run.terms) == {"marks"} and run.total > 0


# ---- training

FRAMES = [range(40)]
GROW = Growth(refine_start_iter=1, refine_stop_iter=4, refine_every=1, grow_grad2d=1e-6, max_count=330)


def test_what_is_learned_falls(body, tracks):
    t = talker(body)
    fixed = [batch_of(tracks[0], 0, i, TINY) for i in (5, 18, 31)]
    def now():
        with torch.no_grad():
            static = sum(static_stage(t, PLAN).loss(t, b, 0)[0]["l1"] for b in fixed)
            follow = follow_stage(t, PLAN).loss(t, fixed, 0)[0]["marks"]
            talk = [talk_stage(t, PLAN).loss(t, b, 1)[0] for b in fixed]
        return dict(static=float(static), follow=float(follow), adapt=float(sum(x["l1"]+x["lips"] for x in talk)), fine=float(sum(x["fine"] for x in talk)))
    state = [now()]
    for phase, steps in (("static", 15), ("follow", 12), ("talk", 20), ("refine", 6)):
        runs = train(t, [tracks[0]], FRAMES, Plan(static=steps, follow=steps, adapt=steps, refine=steps), (phase,))
        assert list(runs) == [phase] and len(runs[phase].history) == steps and not any(p.requires_grad for p in t.parameters()) and not t.training
        state.append(now())
    static, follow, talk, fine = state[1:]
    assert static["static"] < .8*state[0]["static"] and follow["follow"] < .95*static["follow"]
    assert talk["adapt"] < .9*follow["adapt"] and talk["fine"] < .9*follow["fine"] and fine["fine"] < talk["fine"]


def test_phases_move_what_they_are_about(body, tracks):
    moved = {}
    for phase in ("static", "follow", "talk", "refine"):
        t = awake(talker(body, 2))
        before = {k: v.clone() for k, v in t.state_dict().items()}
        train(t, tracks, FRAMES*2, PLAN, (phase,))
        moved[phase] = {k for k, v in t.state_dict().items() if not torch.equal(v, before[k])}
    is_splats = lambda k: ".params." in k
    assert moved["static"] and all(is_splats(k) for k in moved["static"])
    assert moved["follow"] and not any(is_splats(k) or ".mouth" in k or k.startswith("refiner") or ".style" in k for k in moved["follow"])
    for what in ("general.face", "general.mouth", "people.0.fields.mouth", "people.1.fields.face", "people.1.ear", "maps", "near", "refiner", "people.0.face.params.means", "people.0.style"):
        assert any(k.startswith(what) for k in moved["talk"]), what
    assert all(k.startswith("refiner") or ".style" in k or k.endswith((".colors", ".opacities")) for k in moved["refine"])
    assert not any(k.startswith("mover") for k in set().union(*moved.values()))


class Die(Hook):
    "Ctrl-C after some step of some phase."
    def __init__(self, phase=None, it=0): self.at = phase, it
    def step(self, run):
        if (run.stage.name, run.it) == self.at: raise KeyboardInterrupt


def often(monkeypatch, every=2):
    "Write every second step, as a long run does every 500."
    monkeypatch.setattr(d3talker, "fit", lambda system, stage, batches, checkpoint=None, _=500, progress=False: fit(system, stage, batches, checkpoint, every, progress))


def whole_run(body, tracks, folder=None, die=(None, 0)):
    t = talker(body)
    runs = train(t, [tracks[0]], FRAMES, PLAN, growth=GROW, geometric=True, folder=folder, hooks=(Die(*die),))
    return dict(weights=dict(t.state_dict()), history=[h["total"] for r in runs.values() for h in r.history])


def test_a_run_killed_at_every_step_of_every_phase_ends_in_the_same_bits(body, tracks, tmp_path, monkeypatch):
    "Started again eleven times, and killed one step further each time; a step after a checkpoint, and as one is about to be written."
    often(monkeypatch)
    calm = whole_run(body, tracks)
    assert len(calm["weights"]["people.0.face.params.means"]) > 300
    for phase, steps in (("static", 4), ("follow", 2), ("adapt", 3), ("refine", 2)):
        for it in range(1, steps+1):
            with pytest.raises(KeyboardInterrupt): whole_run(body, tracks, tmp_path, (phase, it))
            torch.manual_seed(it)  # whatever the next process begins with
        assert (tmp_path/f"{phase}.pt").exists() == (steps > 2)
    assert_same_bits(whole_run(body, tracks, tmp_path), calm)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapt.pt", "follow.pt", "refine.pt", "settings.json", "static.pt"]


def test_training_leaves_the_random_state_alone(body, tracks):
    before = torch.get_rng_state()
    train(talker(body), [tracks[0]], FRAMES, replace(PLAN, static=1), ("static",))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_are_a_pure_function_of_their_number(tracks):
    frames = [[3, 9, 27], range(10, 30)]
    one, again, other = (draw_batches(tracks, frames, replace(TINY, seed=s), .5, 20) for s in (0, 0, 1))
    seen = [(b.who, b.image) for b in map(one, range(24))]
    assert [w for w, _ in seen] == [0, 1]*12
    for (_, x), b in zip(reversed(seen), map(again, reversed(range(24)))): assert torch.equal(x, b.image)
    assert any(not torch.equal(x, other(i).image) for i, (_, x) in enumerate(seen))
    allowed = {i: [tracks[i].images[k].float()/255 for k in frames[i]] for i in (0, 1)}
    for who, x in seen: assert any(torch.equal(x, y) for y in allowed[who])


def test_mouths_open_as_training_goes_on(tracks):
    wide = opening(tracks[0])
    image = {tracks[0].images[i].float().div(255).numpy().tobytes(): float(wide[i]) for i in range(40)}
    batch = draw_batches(tracks[:1], FRAMES, TINY, 1., 100)
    first, last = (sum(image[batch(b).image.numpy().tobytes()] for b in some)/20 for some in (range(20), range(80, 100)))
    assert first < last


def test_static_growth_grows_and_the_film_goes_on(body, tracks):
    "The static loss leaves the mouth out, so nothing pulls at its inside: the face alone grows. Up to `max_count` in each part."
    t = talker(body)
    growth = replace(GROW, refine_stop_iter=12, refine_every=4, max_count=340)
    run = train(t, [tracks[0]], FRAMES, replace(PLAN, static=14, follow=1, adapt=2, refine=1), growth=growth)["static"]
    own = t.people[0]
    assert 300 < len(own.face()) <= 340 and 60 <= len(own.mouth()) <= 340
    counts = [n for _, n in run.stage.hooks[0].counts]
    assert counts[0] == 360 and counts[-1] == len(own.face())+len(own.mouth())
    clip = speak(t, Audio(torch.zeros(8000), 16000))
    assert clip.frames[3].isfinite().all() and clip.frames[3].shape == (48, 48, 3)


def test_an_adapted_talker_starts_with_what_is_shared(body, tracks):
    prior = awake(talker(body, 2))
    new = adapted(prior, person(body, TINY), replace(TINY, seed=3, refiner=0))
    for part in ("maps", "near", "general", "mover"): assert_same_bits(dict(getattr(new, part).state_dict()), dict(getattr(prior, part).state_dict()))
    rest, m = new.rest(new.people[0]), tracks[0].moment(9, TINY.reach)
    o = new.offsets(new.people[0], rest, *new.signals(new.people[0], m), m.upper)
    assert_same_bits(dict(adapted(prior, person(body, TINY)).refiner.state_dict()), dict(prior.refiner.state_dict()))
    assert len(new.people) == 1 and new.cfg.seed == 3 and new.refiner is None and o.general["face"]["means"].any() and not o.individual["face"]["means"].any()


def test_learn_is_read_adapt_and_train(body, films, tracks, monkeypatch):
    monkeypatch.setattr(d3talker, "new_person", lambda rig, cfg, heard=101: person(body, cfg))
    prior, plan = awake(talker(body, 2)), Plan(static=1, follow=1, adapt=1, refine=1)
    prior.mover = untrained_mover()  # who made the track
    got = learn(films[0], prior, frames=range(30), plan=plan)
    want = adapted(prior, person(body, TINY))
    train(want, [tracks[0]], [list(range(30))], plan, geometric=True)
    assert_same_bits(dict(got.state_dict()), dict(want.state_dict()))


# ---- what goes wrong while training

def test_checkpoints_that_do_not_fit_are_named_and_stay(body, tracks, tmp_path):
    from talkinglab.core.fit import Stage
    short = partial(train, tracks=[tracks[0]], frames=FRAMES, plan=replace(PLAN, static=2), phases=("static",), folder=tmp_path)
    short(talker(body))
    path, good = tmp_path/"static.pt", (tmp_path/"static.pt").read_bytes()
    for change in (dict(codes=16), dict(seed=7)):
        with pytest.raises(ValueError, match="checkpoints of another Config, Plan or film"): short(talker(body, **change))
    (tmp_path/"settings.json").unlink()
    with pytest.raises(ValueError, match=r"static\.pt does not fit this system"): short(talker(body, codes=16))
    (tmp_path/"settings.json").unlink()
    assert path.read_bytes() == good
    path.write_bytes(good[:len(good)//2])
    with pytest.raises(ValueError, match=r"static\.pt is no whole checkpoint"): short(talker(body))
    assert path.read_bytes() == good[:len(good)//2]
    path.unlink()
    net = torch.nn.Linear(1, 1)
    fit(net, Stage("static", lambda s, b, it: (dict(l1=s(torch.ones(1)).square().sum()), None), dict(l1=1.), dict(weight=.1), 1), lambda i: i, path)
    other = path.read_bytes()
    with pytest.raises(ValueError, match=r"static\.pt is of another stage"): short(talker(body))
    assert path.read_bytes() == other and sorted(p.name for p in tmp_path.iterdir()) == ["settings.json", "static.pt"]


def test_a_folder_of_another_film_is_not_gone_on_with(body, tracks, tmp_path):
    "Neither another person's film nor other frames of the same one."
    short = partial(train, plan=replace(PLAN, static=1), phases=("static",), folder=tmp_path)
    short(talker(body), tracks[:1], [range(20)])
    for film, frames in ((tracks[1:], [range(20)]), (tracks[:1], [range(10)])):
        with pytest.raises(ValueError, match="another Config, Plan or film"): short(talker(body), film, frames)


def test_frames_may_be_a_tensor_and_a_sound_longer_than_its_film(body, films):
    long = read_film(replace(films[0], frames=Frames(10, films[0].frames.__getitem__), motion=films[0].motion[:10], masks=None), TINY, untrained_mover())
    assert len(long) == len(long.images) == len(long.maps) == len(long.motion) == 10
    train(talker(body), [long], [torch.arange(10)], replace(PLAN, static=1), ("static",))


def test_a_full_disk_is_one_clear_error_and_keeps_the_last_good_file(body, tracks, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    often(monkeypatch)
    whole = partial(train, tracks=[tracks[0]], frames=FRAMES, plan=PLAN, phases=("static",), folder=tmp_path)
    with pytest.raises(KeyboardInterrupt): whole(talker(body), hooks=(Die("static", 3),))
    path = tmp_path/"static.pt"
    good, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(good)//2, limits[1]))
        with pytest.raises(MediaError, match=r"static\.pt: cannot be written") as e: whole(talker(body), hooks=(Die(),))
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(e.value) and path.read_bytes() == good and sorted(p.name for p in tmp_path.iterdir()) == ["settings.json", "static.pt"]
    t, calm = talker(body), talker(body)
    whole(t, hooks=(Die(),))
    train(calm, [tracks[0]], FRAMES, PLAN, ("static",))
    assert_same_bits(dict(t.state_dict()), dict(calm.state_dict()))


def test_what_training_lacks_is_named(body, tracks, tmp_path):
    one, two, first = talker(body), talker(body, 2), [tracks[0]]
    with pytest.raises(ValueError, match="no phase .*dance"): train(one, first, FRAMES, PLAN, ("static", "dance"))
    with pytest.raises(ValueError, match="1 tracks and 1 lists of frames for 2 people"): train(two, first, FRAMES, PLAN)
    with pytest.raises(ValueError, match="1 tracks and 2 lists"): train(one, first, FRAMES*2, PLAN)
    with pytest.raises(ValueError, match="2 people cannot be grown"): train(two, tracks, FRAMES*2, PLAN, growth=GROW)
    with pytest.raises(ValueError, match="no such folder"): train(one, first, FRAMES, PLAN, folder=tmp_path/"nowhere")


def test_what_a_film_lacks_is_named(films, unchecked):
    film, mover = films[0], untrained_mover()
    for name in ("audio", "motion", "cameras", "background"):
        with pytest.raises(ValueError, match=f"no {name}"): read_film(replace(film, **{name: None}), TINY, mover)
    with pytest.raises(ValueError, match="no audio, background"): read_film(replace(film, audio=None, background=None), TINY, mover)
    with pytest.raises(ValueError, match="runs at 30 Hz.*learns at 25"): read_film(replace(film, fps=30., motion=replace(film.motion, fps=30.)), TINY, mover)
    sound = film.audio
    with pytest.raises(ValueError, match=r"40 frames of picture and 25 of sound: cut the film to 1\.00 s"):
        read_film(replace(film, audio=replace(sound, samples=sound.samples[:sound.rate])), TINY, mover)


def test_a_film_becomes_a_track(films, tracks):
    film, track = films[0], tracks[0]
    assert len(track) == 40 and track.maps.shape == (40, 3, 16, 16) and track.sound.shape == (40, 16, 101) and track.upper.shape == (40, len(UPPER))
    assert (track.images[7].float()/255-film.frames[7]).abs().max() <= .5/255+1e-6
    y = track.landmarks[:, 48:68, 1]  # the lips lie in the box
    assert (track.boxes[:, 1] <= y.amin(1).ceil()).all() and (track.boxes[:, 3] >= y.amax(1).floor()).all()
    inside = track.depths[0].isfinite()
    assert 300 < int(inside.sum()) < 2200 and 1. < float(track.depths[0][inside].float().mean()) < 1.3
    plain = read_sound(film.audio, film.motion, TINY, untrained_mover())
    assert torch.equal(plain.maps, track.maps) and torch.equal(plain.sound, track.sound) and plain.images is None


# ---- many processes

TWO = '''
import os, pickle, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from talkinglab.systems.d3talker import train
out, rank = Path(sys.argv[1]), int(os.environ["RANK"])
with open(out/"given.pkl", "rb") as f: talker, tracks, frames, plan = pickle.load(f)
runs = train(talker, tracks, frames, plan)
torch.save(dict(history={k: [h["total"] for h in r.history] for k, r in runs.items()}, weights=dict(talker.state_dict())), out/f"rank{rank}.pt")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
'''


def test_two_processes_are_one_with_twice_the_batch(body, tracks, tmp_path, monkeypatch):
    "The full system with every loss, all four phases, as `torchrun --nproc-per-node 2` would start them on this machine."
    plan = Plan(static=1, follow=2, pretrain=3, refine=1)
    with open(tmp_path/"given.pkl", "wb") as f: pickle.dump((talker(body, 2), tracks, FRAMES*2, plan), f)
    run_two(TWO, tmp_path)
    two = [torch.load(tmp_path/f"rank{r}.pt", weights_only=True) for r in range(2)]
    assert_same_bits(two[0]["weights"], two[1]["weights"])

    def doubled(system, stage, batches, *rest):
        def loss(system, pair, it):
            both = [stage.loss(system, b, it)[0] for b in pair]
            return {k: (both[0][k]+both[1][k])/2 for k in both[0]}, None
        return fit(system, replace(stage, loss=loss), lambda i: (batches(2*i), batches(2*i+1)), *rest)
    monkeypatch.setattr(d3talker, "fit", doubled)
    alone = talker(body, 2)
    runs = train(alone, tracks, FRAMES*2, plan)
    for name, run in runs.items():
        totals = torch.tensor([h["total"] for h in run.history])
        assert_close(torch.tensor(two[0]["history"][name]), totals, atol=1e-4, rtol=0)
    assert sum(len(r.history) for r in runs.values()) == 8


# ---- files

@pytest.fixture(scope="module")
def pair(body): return awake(talker(body, 2))


HALF = Audio(torch.rand(8000, generator=torch.Generator().manual_seed(0))-.5, 16000)


def test_a_saved_talker_returns(pair, tmp_path):
    save(pair, tmp_path/"pair", "# Two\n")
    config, weights = read_talker(tmp_path/"pair")
    assert config["system"] == "d3talker" and (tmp_path/"pair"/"README.md").read_text() == "# Two\n"
    again = read(config, weights)
    assert again.cfg == pair.cfg and len(again.people) == 2 and not again.training and not any(p.requires_grad for p in again.parameters())
    half = [k for k, v in weights.items() if v.dtype == torch.float16]
    assert len(half) > .7*len(weights) and sum(v.numel()*v.element_size() for v in weights.values()) < .7*4*sum(v.numel() for v in pair.state_dict().values())
    for who in (0, 1):
        a, b = (speak(t, HALF, who=who).frames for t in (pair, again))
        assert max((a[i]-b[i]).abs().max() for i in (0, 6, 11)) <= 2/255
    assert_close(move(again, HALF).expr, move(pair, HALF).expr, atol=2e-3, rtol=0)


def test_one_person_may_be_kept(pair, tmp_path):
    save(pair, tmp_path/"second", people=[1])
    again = read(*read_talker(tmp_path/"second"))
    frame = lambda t, who: speak(t, HALF, who=who).frames[6]
    assert len(again.people) == 1 and (frame(again, 0)-frame(pair, 1)).abs().max() <= 2/255 < (frame(pair, 0)-frame(pair, 1)).abs().max()


def test_a_talker_s_folder_appears_whole_or_not_at_all(pair, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, limits[1]))
        with pytest.raises(MediaError, match="mine: cannot be written"): save(pair, tmp_path/"mine")
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    save(pair, tmp_path/"mine")
    with pytest.raises(MediaError, match="exists already"): save(pair, tmp_path/"mine")
    assert sorted(p.name for p in (tmp_path/"mine").iterdir()) == ["README.md", "config.json", "weights.safetensors"]


def test_a_damaged_talker_is_named(pair, tmp_path):
    save(pair, tmp_path/"mine", people=[0])
    config, weights = read_talker(tmp_path/"mine")
    weights = {k: v.clone() for k, v in weights.items()}  # not the file's own pages: it is cut below
    file = tmp_path/"mine"/"weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:len(whole)//2])
    with pytest.raises(MediaError, match="mine: holds no talker"): read_talker(tmp_path/"mine")
    ours = "not a talker of systems.d3talker"
    for gone in ("general.face.here.weight", "people.0.landmarks", "people.0.skin.grid", "people.0.face.params.means", "mover.plain"):
        with pytest.raises(ValueError, match=f"(?s){ours}.*{gone.removeprefix('people.0.face.params.')}"): read(config, {k: v for k, v in weights.items() if k != gone})
    for change in (dict(cfg={}), dict(people=2), dict(cfg=dict(config["cfg"], widths=3)), dict(cfg=dict(config["cfg"], codes=16)), dict(heard="x")):
        with pytest.raises(ValueError, match=ours): read(dict(config, **change), weights)
    with pytest.raises(ValueError, match=ours): read(config, dict(weights, odd=torch.zeros(1)))
    with pytest.raises(ValueError, match=ours): read(dict(system="d3talker"), {})
    with pytest.raises(ValueError, match="not a talker of systems.hello"): read_hello(config, weights)


# ---- speaking

@pytest.mark.parametrize("fps", [24, 25, 30, 50])
def test_frames_cover_the_sound_at_any_rate(pair, fps):
    clip = speak(pair, HALF, fps=fps)
    assert len(clip) == frame_count(HALF.seconds, fps) == len(clip.motion) and clip.fps == clip.motion.fps == fps
    last = clip.frames[len(clip)-1]
    assert last.shape == (48, 48, 3) and 0 <= last.min() and last.max() <= 1
    at = speak(pair, HALF).frames  # the same moment looks the same: half a frame is little
    if fps == 50: assert (clip.frames[12]-at[6]).abs().mean() < .02


def test_a_style_by_name_is_its_numbers(pair):
    from talkinglab.face.viseme import STYLES
    a, b, c = (speak(pair, HALF, style=s) for s in ("lively", STYLES["lively"], "tender"))
    assert torch.equal(a.frames[5], b.frames[5]) and a.meta["style"] == "lively" and b.meta["style"]["jaw"] == STYLES["lively"].jaw
    assert not torch.equal(a.motion.expr, c.motion.expr)
    json.dumps([x.meta for x in (a, b)])


def test_a_seed_repeats(pair):
    a, b, c = (speak(pair, HALF, seed=s) for s in (3, 3, 4))
    assert torch.equal(a.frames[8], b.frames[8]) and not torch.equal(a.motion.rotation, c.motion.rotation)


def test_sound_and_motion_may_come_from_different_sources(pair, films):
    "Motion drives the general field, sound the individual one."
    own, loud, quiet = films[0].motion[:20], said("hello", .8)[0], Audio(torch.zeros(12800), 16000)
    frame = lambda sound, motion, **kw: speak(pair, sound, motion=motion, **kw).frames[12]
    flat = replace(own, expr=own.expr*0)
    assert (frame(quiet, own)-frame(quiet, flat)).abs().max() > 1e-3 and (frame(quiet, own)-frame(loud, own)).abs().max() > 1e-3
    assert torch.equal(frame(quiet, own, general=0.), frame(quiet, flat, general=0.))
    assert torch.equal(frame(quiet, own, individual=0.), frame(loud, own, individual=0.))
    assert_close(speak(pair, loud, motion=own).motion.expr, own.expr)
    assert len(speak(pair, quiet, motion=own[:10])) == 10 == len(speak(pair, quiet, motion=replace(own, fps=50.)))
    turned = replace(own, rotation=own.rotation+torch.tensor([0., .3, 0.]))
    assert (frame(quiet, own)-frame(quiet, turned)).abs().max() > .1


def test_gains_bend_the_picture(pair):
    frame = lambda **kw: speak(pair, HALF, **kw).frames[6]
    seen = [frame(), frame(general=0.), frame(individual=0.), frame(general=2.), frame(individual=2.)]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_a_camera_a_size_and_a_yaw_are_obeyed(body):
    "Without the refiner, which knows pictures of one size."
    t = awake(talker(body, refiner=0))
    frame = lambda **kw: speak(t, HALF, **kw).frames[6]
    assert frame(size=96).shape == (96, 96, 3) and frame(camera=orbit(20, width=40, height=56, **VIEW)).shape == (56, 40, 3)
    assert_close(frame(yaw=20), frame(camera=orbit(20, width=48, height=48, **VIEW)))
    assert (frame(yaw=20)-frame()).abs().max() > .1
    small = torch.nn.functional.avg_pool2d(frame(size=96).permute(2, 0, 1), 2).permute(1, 2, 0)
    assert (small-frame()).abs().mean() < .05


def test_what_speaking_cannot_do_is_named(pair, tmp_path):
    with pytest.raises(ValueError, match="no style 'grumpy': there are .*neutral"): speak(pair, HALF, "grumpy")
    for who in (2, -1):
        with pytest.raises(ValueError, match=f"who={who}: this talker knows 2 people"): speak(pair, HALF, who=who)
    for gains in (dict(general=2.1), dict(individual=-.1), dict(general=float("nan"))):
        with pytest.raises(ValueError, match="must be from 0 to 2"): speak(pair, HALF, **gains)
    (tmp_path/"broken.wav").write_bytes(b"no sound at all")
    for path in (tmp_path/"broken.wav", tmp_path/"none.wav"):
        with pytest.raises(MediaError, match=path.name): speak(pair, path)


def test_a_motion_from_elsewhere_is_looked_at(pair, unchecked):
    sound = said("hello", .8)[0]
    good = pair.move(sound, "crisp")
    nan = good.expr.clone()
    nan[3] = float("nan")
    for bad, why in ((replace(good, names=tuple(f"x{n}" for n in good.names)), "moves a mouth"), (replace(good, expr=nan), "expr is not finite at 1 of 20"), (sound, "motion is a Audio"), (good[:1], "1 frames")):
        with pytest.raises(ValueError, match=why): pair.speak(sound, motion=bad)
    for bad, why in ((dict(audio=torch.zeros(100)), "a sound is needed"), (dict(style=3), "no style 3"), (dict(fps=float("nan")), "fps=nan"), (dict(size=64.), "whole pixels"), (dict(yaw=180), "yaw=180")):
        with pytest.raises(ValueError, match=why): pair.speak(**(dict(audio=sound)|bad))


def test_a_file_and_its_samples_say_the_same(pair):
    path = samples("hello.flac")
    a, b = speak(pair, path), speak(pair, read_audio(path))
    assert len(a) == len(b) and (a.frames[30]-b.frames[30]).abs().max() < .02


def test_in_silence_nothing_but_lids_and_head_moves(pair):
    "What drives both fields stands still, as far from the ends as they look."
    quiet = Audio(torch.zeros(32000), 16000)
    motion = move(pair, quiet)
    for name in MOUTH: assert motion.curve(name)[12:38].std() < 1e-3
    codes = Codes(pair, pair.people[0], motion, encode(quiet, TINY.encoder, 2*FPS))
    a, b = (torch.stack(x) for x in zip(*[codes[i] for i in range(16, 34)]))
    assert a.std(0).max() < 1e-3 and b.std(0).max() < 1e-3


def test_a_mover_that_learned_is_shut_in_silence():
    "A sentence is enough to know what silence looks like; and to move with the sound."
    sound, phones = said("hello", 6.)
    take = perform(sound, phones)
    truth = torch.stack([take.motion.curve(k) for k in MOUTH], 1)
    heard = heard_by(sound, "small")[0].x[:len(truth)]
    mover = untrained_mover().train()
    run = fit(mover, mover_stage(60), lambda i: (heard, mover.plain, truth))
    assert run.history[-1]["total"] < .4*run.history[0]["total"]
    mover.eval().requires_grad_(False)
    apart = lambda x: mover(heard_by(x, "small")[0].x)[:, :2].diff(dim=1).abs()[:, 0]
    quiet = apart(Audio(torch.zeros(32000), 16000))[12:38]
    assert quiet.mean() < .06 < apart(sound).mean()
    assert mover(heard, None).shape == (len(truth), len(MOUTH)) and mover(heard).min() >= 0 and mover(heard).max() <= 1
