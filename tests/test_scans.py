"Scans of others, in files made up by hand as the public scripts write them: parts, units, rates, what is missing, what is wrong, and nothing that runs."
import os
import pickle
import struct
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from talkinglab.core.media import Audio, MediaError
from talkinglab.face.rig_files import read_arrays
from talkinglab.face.scans import BIWI, VOCASET, Layout, inner_lips, read_biwi, read_mesh, read_scans, read_vocaset, write_scans

V = 7
FACES = np.array([[0, 1, 2], [2, 1, 3], [4, 5, 6]])
RATE = 16000


def frames(seed, t, v=V): return np.random.default_rng(seed).normal(size=(t, v, 3))


def wav(path, seconds):
    with wave.open(str(path), "wb") as f:
        f.setparams((1, 2, RATE, 0, "NONE", ""))
        f.writeframes((1000*np.sin(np.arange(round(seconds*RATE))/20)).astype("<i2").tobytes())


def ply(path, v=V, kind="ascii"):
    head = f"ply\nformat {kind} 1.0\ncomment made up\nelement vertex {v}\nproperty float x\nproperty float y\nproperty float z\nproperty uchar red\nelement face {len(FACES)}\nproperty list uchar int vertex_indices\nend_header\n"
    x = frames(9, 1, v)[0]
    order = "<" if "little" in kind else ">"
    if kind == "ascii": body = "".join(f"{a} {b} {c} 7\n" for a, b, c in x)+"".join(f"3 {a} {b} {c}\n" for a, b, c in FACES)
    else: body = b"".join(struct.pack(order+"fffB", *p, 7) for p in x)+b"".join(struct.pack(order+"Biii", 3, *f) for f in FACES)
    path.write_bytes(head.encode()+(body.encode() if kind == "ascii" else body))


def folder(root, names, t, kind=np.float32, protocol=2):
    "wav/, vertices_npy/ with rows of 3 v numbers, templates.pkl: as process_voca_data.py and load_mat_to_*.py leave them."
    for part in ("wav", "vertices_npy", "templates", "regions"): (root/part).mkdir(parents=True)
    people = sorted({n.rsplit("_", 1)[0] for n in names})
    for k, name in enumerate(names):
        np.save(root/"vertices_npy"/name, frames(k, t).reshape(t, -1).astype(kind))
        wav(root/"wav"/f"{name}.wav", 1.)
    (root/"templates.pkl").write_bytes(pickle.dumps({who: frames(100+k, 1)[0] for k, who in enumerate(people)}, protocol=protocol))
    return root


@pytest.fixture
def voca(tmp_path):
    a, b, c = (VOCASET.parts[k][0][0] for k in ("train", "val", "test"))
    return folder(tmp_path/"vocaset", [f"{a}_sentence01", f"{a}_sentence40", f"{b}_sentence20", f"{b}_sentence21", f"{c}_sentence21"], 61)


@pytest.fixture
def biwi(tmp_path): return folder(tmp_path/"BIWI", ["F2_e01", "F2_e33", "F2_e37", "F1_e01", "F1_e37", "M6_e40"], 25, np.float64, protocol=4)


# Who learns from what -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("layout", [VOCASET, BIWI], ids=lambda x: x.name)
def test_no_clip_is_in_two_parts(layout):
    parts = [set(layout.clips(k)) for k in layout.parts]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(layout.clips())
    assert len(set(layout.people)) == len(layout.people) == dict(VOCASET=12, BIWI=14)[layout.name]


def test_parts_are_those_of_the_papers():
    assert {k: len(VOCASET.clips(k)) for k in VOCASET.parts} == dict(train=320, val=40, test=40)
    assert {k: len(BIWI.clips(k)) for k in BIWI.parts} == {"train": 192, "val": 24, "test-a": 24, "test-b": 32}
    assert VOCASET.parts["test"][0] == ("FaceTalk_170809_00138_TA", "FaceTalk_170731_00024_TA") and VOCASET.parts["val"][0] == ("FaceTalk_170811_03275_TA", "FaceTalk_170908_03277_TA")
    assert not set(VOCASET.parts["train"][0]) & {*VOCASET.parts["val"][0], *VOCASET.parts["test"][0]}
    assert BIWI.parts["train"][0] == BIWI.parts["test-a"][0] and not set(BIWI.parts["train"][0]) & set(BIWI.parts["test-b"][0])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_layout_that_leaks_cannot_be_made(a, b, n, same):
    parts = dict(train=(("x", "y"), range(a, a+n)), test=((("x",) if same else ("z",)), range(b, b+n)))
    if same and set(range(a, a+n)) & set(range(b, b+n)):
        with pytest.raises(ValueError, match="must not be learned"): Layout("l", "_e", 25., 1., parts)
    else: assert not set(Layout("l", "_e", 25., 1., parts).clips("train")) & set(Layout("l", "_e", 25., 1., parts).clips("test"))


# What is read ---------------------------------------------------------------------------------------------------------

def test_vocaset_reads_every_second_row_in_metres(voca):
    train, val = read_vocaset(voca, "train"), read_vocaset(voca, "val")
    assert [c.name[-2:] for c in train] == ["01", "40"] and [c.sentence for c in val] == [21]
    clip = train[0]
    assert (len(clip), clip.fps, clip.person) == (31, 30., VOCASET.people[0])
    assert_close(clip.vertices, torch.from_numpy(frames(0, 61)[::2].astype(np.float32)))
    assert_close(clip[4:20:3], clip.vertices[4:20:3])
    assert clip[5:5].shape == (0, V, 3) and torch.equal(clip[-1:], clip.vertices[-1:]) and torch.equal(clip[::-1], clip.vertices.flip(0))
    assert clip.audio.rate == RATE and len(clip.audio.samples) == RATE
    people = sorted(c.person for c in read_vocaset(voca).clips)
    assert_close(clip.template, torch.from_numpy(frames(100+sorted({*people}).index(clip.person), 1)[0].astype(np.float32)))


@pytest.mark.parametrize("fps,rows", [(60., 61), (30., 31), (20., 21), (15., 16)])
def test_rates_are_whole_fractions_and_count_every_row_they_reach(voca, fps, rows):
    clip = read_vocaset(voca, "test", fps)[0]
    assert len(clip) == rows == len(clip.vertices)
    with pytest.raises(ValueError, match="whole number"): read_vocaset(voca, fps=25.)


def test_biwi_comes_near_metres_from_double_precision(biwi):
    near, raw = read_biwi(biwi, "test-a"), read_biwi(biwi, "test-a", scale=1.)
    assert [c.name for c in near] == ["F2_e37"] and near[0].fps == 25. and near[0].vertices.dtype == torch.float32
    assert_close(near[0].vertices, .2*raw[0].vertices)
    assert_close(near[0].template, .2*raw[0].template)
    assert_close(raw[0].vertices, torch.from_numpy(frames(2, 25).astype(np.float32)))
    assert {c.name for c in read_biwi(biwi, "test-b")} == {"F1_e37", "M6_e40"} and len(read_biwi(biwi)) == 5 # F1_e01 is in no part


def test_nothing_is_read_before_somebody_asks(biwi):
    clip = read_biwi(biwi, "val")[0]
    np.save(clip.places, 2*frames(1, 25).reshape(25, -1))
    assert_close(clip.vertices, torch.from_numpy((.4*frames(1, 25)).astype(np.float32)))


@pytest.mark.parametrize("how", [lambda x: x, np.asfortranarray, lambda x: np.asfortranarray(x.reshape(25, -1)), lambda x: x.astype(">f4"), lambda x: x.astype(np.float16)], ids=["vertices", "columns3", "columns", "big_endian", "half"])
def test_rows_may_lie_in_any_order(how, biwi):
    np.save(biwi/"vertices_npy"/"F2_e33.npy", how(frames(1, 25)))
    if how(frames(1, 25)).dtype == np.float16: return assert_close(read_biwi(biwi, "val", scale=1.)[0].vertices, torch.from_numpy(frames(1, 25).astype(np.float32)), rtol=0, atol=2e-3)
    assert_close(read_biwi(biwi, "val", scale=1.)[0].vertices, torch.from_numpy(frames(1, 25).astype(np.float32)))


def test_masks_come_from_the_files_that_are_there(voca, biwi):
    (biwi/"regions"/"lve.txt").write_text("5, 1, 2, 2")
    (biwi/"regions"/"fdd.txt").write_text("0, 6")
    r = read_biwi(biwi, "val")
    assert r.lips.tolist() == [1, 2, 5] and r.upper.tolist() == [0, 6] and r.masks == "lve.txt+fdd.txt"
    none = read_vocaset(voca)
    assert none.lips is None and none.upper is None and none.masks == "" and none.faces is None
    (voca/"regions"/"lve.txt").write_text("3,  4") # PTalker's own list has two blanks
    (voca/"FLAME_masks.pkl").write_bytes(pickle.dumps({"lips": np.array([4, 1, 4]), "forehead": np.array([6]), "eye_region": np.array([0, 6]), "nose": np.arange(3)}, protocol=1))
    r = read_vocaset(voca)
    assert r.lips.tolist() == [1, 4] and r.upper.tolist() == [0, 6] and r.masks == "FLAME_masks.pkl"


def test_masks_serve_the_measures(voca):
    from talkinglab.measure.motion import Masks, MotionMeter
    (voca/"regions"/"lve.txt").write_text("1, 2")
    (voca/"regions"/"fdd.txt").write_text("0, 6")
    r = read_vocaset(voca, "test")
    m = Masks(r.masks, torch.arange(V), r.lips, r.upper, r.upper, (1, 2), V)
    assert MotionMeter(m, r[0].fps, .1).add(r[0].vertices, r[0].vertices, r[0].template).scores().lve_mm2 == 0


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_triangles_come_from_any_ply_and_from_obj(voca, kind):
    ply(voca/"templates"/"FLAME_sample.ply", kind=kind)
    assert read_vocaset(voca).faces.tolist() == FACES.tolist()
    assert_close(read_mesh(voca/"templates"/"FLAME_sample.ply").vertices, torch.from_numpy(frames(9, 1)[0].astype(np.float32)))
    (voca/"f.obj").write_text("".join(f"v {a} {b} {c}\n" for a, b, c in frames(9, 1)[0])+"f 1 2 3\nf 4 5 6 7\n")
    assert read_mesh(voca/"f.obj").faces.tolist() == [[0, 1, 2], [3, 4, 5], [3, 5, 6]]


# What is missing is listed --------------------------------------------------------------------------------------------

def test_clips_without_sound_or_vertices_are_left_out_by_name(biwi):
    (biwi/"wav"/"F1_e37.wav").unlink()
    (biwi/"vertices_npy"/"M6_e40.npy").unlink()
    with pytest.raises(MediaError, match="no clip of BIWI test-b is whole"): read_biwi(biwi, "test-b")
    r = read_biwi(biwi)
    assert r.left_out["F1_e37"] == "no wav/F1_e37.wav" and r.left_out["M6_e40"] == "no vertices_npy/M6_e40.npy" and len(r)+len(r.left_out) == 272


def test_what_others_left_in_the_folders_is_ignored(biwi):
    for name in ("notes.txt", "F2_01.wav", ".hidden_e01.wav", "F2_e01_old.npy"): (biwi/"wav"/name).write_text("")
    assert len(read_biwi(biwi)) == 5


# What is wrong is named -----------------------------------------------------------------------------------------------

def spoil_columns(r): np.save(r/"vertices_npy"/"F2_e33.npy", np.zeros((25, 3*V-1)))
def spoil_length(r): (r/"vertices_npy"/"F2_e33.npy").write_bytes((r/"vertices_npy"/"F2_e33.npy").read_bytes()[:-9])
def spoil_header(r): (r/"vertices_npy"/"F2_e33.npy").write_bytes((r/"vertices_npy"/"F2_e33.npy").read_bytes()[:40])
def spoil_empty(r): (r/"vertices_npy"/"F2_e33.npy").write_bytes(b"")
def spoil_none(r): np.save(r/"vertices_npy"/"F2_e33.npy", np.zeros((0, 3*V)))
def spoil_whole_numbers(r): np.save(r/"vertices_npy"/"F2_e33.npy", np.zeros((25, 3*V), int))
def spoil_flat(r): np.save(r/"vertices_npy"/"F2_e33.npy", np.zeros(3*V))
def spoil_stranger(r): wav(r/"wav"/"F9_e01.wav", .1)
def spoil_template_gone(r): (r/"templates.pkl").unlink()
def spoil_template_person(r): (r/"templates.pkl").write_bytes(pickle.dumps(dict(F1=frames(0, 1)[0])))
def spoil_template_sizes(r): (r/"templates.pkl").write_bytes(pickle.dumps(dict(F1=frames(0, 1)[0], F2=frames(0, 1, 8)[0])))
def spoil_template_nan(r): (r/"templates.pkl").write_bytes(pickle.dumps(dict(F2=frames(0, 1)[0]*np.nan)))
def spoil_template_text(r): (r/"templates.pkl").write_bytes(pickle.dumps(dict(F2="F2.obj")))
def spoil_template_none(r): (r/"templates.pkl").write_bytes(pickle.dumps({}))
def spoil_template_torn(r): (r/"templates.pkl").write_bytes((r/"templates.pkl").read_bytes()[:60])
def spoil_wav(r): [p.rename(r/p.name) for p in [r/"wav"]] and (r/"wav").rename(r/"sound")
def spoil_list(r): (r/"regions"/"lve.txt").write_text("1, two")
def spoil_list_far(r): (r/"regions"/"lve.txt").write_text("1, 7")
def spoil_list_empty(r): (r/"regions"/"fdd.txt").write_text(" ")
def spoil_masks(r): (r/"FLAME_masks.pkl").write_bytes(pickle.dumps(dict(lips=np.array([.5]))))
def spoil_mesh(r): ply(r/"BIWI.ply", v=8)
def spoil_quads(r): (r/"BIWI.ply").write_text("ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"+"0 0 0\n"*4+"4 0 1 2 3\n")


WRONG = {spoil_columns: "20 columns", spoil_length: "announces 25 frames, holds 24.9", spoil_header: "cut within its header", spoil_empty: "no .npy file", spoil_none: "no frames", spoil_whole_numbers: "float32",
         spoil_flat: "not frames by", spoil_stranger: "BIWI has no F9", spoil_template_gone: "no such file", spoil_template_person: "no template of F2", spoil_template_sizes: "different meshes",
         spoil_template_nan: "NaN", spoil_template_text: "not v x 3", spoil_template_none: "no template", spoil_template_torn: "not a file we read", spoil_wav: "wav: no such folder", spoil_list: "'two' is no vertex number",
         spoil_list_far: "vertex 7, the mesh has 7", spoil_list_empty: "names no vertex", spoil_masks: "float64, not vertex numbers", spoil_mesh: r"BIWI.ply \(8\)", spoil_quads: "not all faces are triangles"}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda f: f.__name__[6:])
def test_a_spoilt_folder_is_one_line_that_names_it(spoil, biwi, unchecked):
    spoil(biwi)
    with pytest.raises(MediaError, match=WRONG[spoil]) as e: read_biwi(biwi, "val")
    assert str(biwi) in str(e.value) and "\n" not in str(e.value)


def test_faults_within_a_file_wait_until_it_is_read(biwi):
    clip = read_biwi(biwi, "val")[0]
    x = frames(1, 25).reshape(25, -1)
    x[20, 4] = np.inf
    np.save(clip.places, x)
    assert clip[:20].isfinite().all()
    with pytest.raises(MediaError, match=r"1 of 25 frames .* row 20, vertex 1"): clip.vertices # noqa: B018
    wav(clip.sound, 0.)
    with pytest.raises(MediaError, match="no sound"): clip.audio # noqa: B018


def test_unknown_parts_rates_and_folders_are_refused(biwi, tmp_path):
    with pytest.raises(ValueError, match="it has train, val, test-a, test-b"): read_biwi(biwi, "test")
    for scale in (0., -1., float("nan")):
        with pytest.raises(ValueError, match="metres in one unit"): read_biwi(biwi, scale=scale)
    for fps in (0., 26., float("nan"), float("inf")):
        with pytest.raises(ValueError, match="whole number"): read_scans(biwi, BIWI, fps=fps)
    with pytest.raises(MediaError, match="nowhere: no such folder"): read_biwi(tmp_path/"nowhere")
    with pytest.raises(ValueError, match="no clip with"): read_biwi(biwi).where(person="F8")
    with pytest.raises(MediaError, match="no PLY file"): read_mesh(biwi/"templates.pkl")
    with pytest.raises(MediaError): read_mesh(biwi/"none.ply")


# Nothing runs ---------------------------------------------------------------------------------------------------------

def test_no_file_of_the_layout_runs_anything(biwi, tmp_path):
    hit = tmp_path/"hit"
    class Trap:
        def __reduce__(self): return os.system, (f"touch {hit}",)
    whole = (biwi/"templates.pkl").read_bytes()
    for name in ("templates.pkl", "FLAME_masks.pkl"):
        (biwi/name).write_bytes(pickle.dumps(dict(F2=Trap(), lips=Trap())))
        with pytest.raises(MediaError, match="system"): read_biwi(biwi, "val")
        (biwi/"templates.pkl").write_bytes(whole)
    (biwi/"FLAME_masks.pkl").unlink()
    np.save(biwi/"vertices_npy"/"F2_e33.npy", np.array([[Trap()]*3*V], dtype=object), allow_pickle=True)
    with pytest.raises(MediaError, match="objects are not read"): read_biwi(biwi, "val")
    assert not hit.exists()


def test_pickles_of_the_fifth_protocol_give_numbers_only(tmp_path):
    class Call:
        def __init__(self, *answer): self.answer = answer
        def __reduce__(self): return self.answer
    core = np._core.numeric if hasattr(np, "_core") else np.core.numeric
    (tmp_path/"p.pkl").write_bytes(pickle.dumps(dict(F2=frames(0, 1)[0]), protocol=5))
    assert np.array_equal(read_arrays(tmp_path/"p.pkl", "remedy")["F2"], frames(0, 1)[0])
    for args in ((b"A"*8, np.dtype("O"), (1,), "C"), (b"A"*8, np.dtype("f8"), (1 << 20,), "C"), (5, np.dtype("f8"), (1,), "C"), (b"A"*8,)):
        (tmp_path/"p.pkl").write_bytes(pickle.dumps(dict(F2=Call(core._frombuffer, args))))
        with pytest.raises(MediaError, match="not a file we read"): read_arrays(tmp_path/"p.pkl", "remedy")


# Written and read -----------------------------------------------------------------------------------------------------

def test_what_is_written_is_read_again_and_nothing_is_overwritten(tmp_path):
    layout = Layout("mine", "_e", 25., .2, dict(train=(("a_b", "c"), range(1, 3)), test=(("c",), range(3, 4))))
    g = torch.Generator().manual_seed(0)
    rest = {who: torch.randn(V, 3, generator=g) for who in layout.people}
    clips = [(who, i, Audio(torch.zeros(800), 8000), torch.randn(4, V, 3, generator=g)) for who in layout.people for i in (1, 3)]
    out = write_scans(tmp_path/"o", layout, rest, clips, torch.from_numpy(FACES), torch.tensor([1, 2]), torch.tensor([3]))
    r = read_scans(out, layout)
    assert [c.name for c in r] == ["a_b_e01", "c_e01", "c_e03"] and r.people == ("a_b", "c") and r.faces.tolist() == FACES.tolist() and r.lips.tolist() == [1, 2]
    for who, i, _, x in clips[:1]+clips[2:]:
        c = r.where(person=who, sentence=i)[0]
        assert_close(c.vertices, x)
        assert_close(c.template, rest[who])
    with pytest.raises(MediaError, match="exists already"): write_scans(out, layout, rest, clips)
    with pytest.raises(ValueError, match="no template of 'd'"): write_scans(tmp_path/"p", layout, rest, [("d", 1, clips[0][2], clips[0][3])])
    assert not (tmp_path/"p").exists()


def test_inner_lips_are_where_the_mouth_opens(biwi):
    "Two rows of three vertices; the lower one drops, the outer corners stay."
    x = torch.tensor([[-1., .1, 0], [0, .1, 0], [1, .1, 0], [-1, -.1, 0], [0, -.1, 0], [1, -.1, 0], [0, .3, 0], [0, -.3, 0], [0, 5, 0]])
    t = torch.stack([x, x, x])
    t[1, [4, 7], 1] -= .8
    lips = torch.arange(8)
    assert inner_lips(t, lips) == (1, 4) == inner_lips(100*t+7, lips)
    with pytest.raises(ValueError, match="shuts and opens"): inner_lips(t[:1], lips)
    with pytest.raises(ValueError, match="wider strip"): inner_lips(t, lips[[0, 2, 3, 5]])
    assert replace(read_biwi(biwi, "val")[0], scale=1.).scale == 1.
