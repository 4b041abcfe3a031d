"One call for every encoder: rows on the clock's time, no network unasked, no weight by chance, long sounds without a seam."
import hashlib
import json
import math
import os
import pickle
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from test_assets import shop  # noqa: F401 (a fixture)
from torch import nn
from torch.testing import assert_close

from talkinglab.audio import encoders
from talkinglab.audio.encoders import (ENCODERS, AudioAttention, AudioNet, EncoderStream, Pretrained, Small, SmallEncoder, audio_windows, encode, hear,
                                       load_encoder, load_small, paired)
from talkinglab.audio.features import RATE, Features
from talkinglab.core import assets
from talkinglab.core.assets import Asset, AssetError, register, samples
from talkinglab.core.clock import frame_count, frame_times
from talkinglab.core.media import Audio, open_audio, read_audio, write_audio

TINY = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,)*7, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2)
KINDS = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}


def noise(n, seed=0, level=0.1): return level*torch.randn(n, generator=torch.Generator().manual_seed(seed))


class Ear(nn.Module):
    "The cut of wav2vec 2.0, but each convolution is a mean, so that what a row hears is known exactly."
    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(model_type="ear", conv_kernel=(10,3,3,3,3,2,2), conv_stride=(5,2,2,2,2,2,2), hidden_size=1, num_hidden_layers=1)
        self.gain = nn.Parameter(torch.ones(1))
        self.heard = []
    def forward(self, x, output_hidden_states=False):
        self.heard.append(x.shape[1])
        for k, s in zip(self.config.conv_kernel, self.config.conv_stride): x = F.avg_pool1d(x, k, s)
        return SimpleNamespace(last_hidden_state=self.gain*x[..., None], hidden_states=(x[..., None], 2*x[..., None]))


@pytest.fixture(scope="module")
def transformers(): return pytest.importorskip("transformers", reason="transformers is not installed (pip install 'talkinglab[speech]')")


def hatch(folder, kind="hubert", normalize=True, **kw):
    "A model of the real architecture with weights by lot, saved as its makers would."
    import transformers
    torch.manual_seed(0)
    name = KINDS[kind]
    model = getattr(transformers, name+"Model")(getattr(transformers, name+"Config")(**dict(TINY, **kw))).eval()
    model.save_pretrained(folder)
    (folder/"preprocessor_config.json").write_text(json.dumps(dict(do_normalize=normalize, sampling_rate=RATE)))
    return model


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*a, **kw): raise AssertionError("the network was opened")
    for name in ("connect", "connect_ex"): monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# Rows and time

def test_a_click_is_heard_on_time():
    "Over every place between two rows the rows' middle is the click's own time, to a tenth of a millisecond."
    hear, late = Pretrained(Ear(), normalize=False), []
    for at in range(8000, 8320, 5):
        click = torch.zeros(RATE)
        click[at] = 1
        rows = hear(Audio(click, RATE)).x[:, 0]
        late.append(float(rows@frame_times(50, 50)/rows.sum())-(at+2.5)/RATE)
    assert abs(sum(late)/len(late))<1e-4 and max(map(abs, late))<0.0105


@pytest.mark.parametrize("kind", KINDS)
def test_a_click_reaches_the_rows_whose_400_samples_hold_it(transformers, tmp_path, kind):
    "Row i of the real architecture hears samples 320 i - 40 to 320 i + 360, centred where the clock puts frame i."
    hatch(tmp_path, kind, normalize=False, feat_extract_norm="layer", conv_bias=True, num_conv_pos_embeddings=1, num_conv_pos_embedding_groups=1)
    hear = load_encoder(tmp_path, layer=0)
    still = hear(Audio(torch.zeros(RATE), RATE)).x
    for at in (0, 39, 3200, 3239, 3240, 3399, 3520, 8123, RATE-1):
        click = torch.zeros(RATE)
        click[at] = 1
        moved = (hear(Audio(click, RATE)).x-still).abs().amax(1)>1e-6
        assert moved.nonzero()[:, 0].tolist()==[i for i in range(50) if 320*i-40<=at<320*i+360]


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 50, 60])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_one_row_a_frame_at_any_rate(fps, rate):
    for n in (1, 2, rate//50, rate//25+1, rate//2+123):
        audio = Audio(noise(n), rate)
        heard = encode(audio, Pretrained(Ear()), fps)
        assert len(heard)==frame_count(audio.seconds, fps) and heard.fps==fps and heard.x.isfinite().all()


def test_at_25_frames_a_second_a_frame_is_the_mean_of_its_two_rows():
    audio, hear = Audio(noise(RATE), RATE), Pretrained(Ear())
    assert_close(encode(audio, hear).x, hear(audio).x.reshape(25, 2, 1).mean(1), atol=1e-7, rtol=0)
    two = paired(hear(audio))
    assert two.fps==25 and two.names==("ear", "ear") and torch.equal(two.x, hear(audio).x.reshape(25, 2))
    assert len(paired(Features(torch.zeros(7, 3), 50, ("a",)*3)))==4


# The real architecture

@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [True, False])
def test_rows_are_those_of_transformers(transformers, tmp_path, kind, normalize):
    "Bit for bit the model's own hidden states, for the sound that its own preprocessor makes, between 40 zeros and 40."
    model, audio = hatch(tmp_path, kind, normalize), Audio(noise(RATE)+0.05, RATE)
    extract = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    x = F.pad(torch.from_numpy(extract(audio.samples.numpy(), sampling_rate=RATE).input_values[0]), (40, 40))
    with torch.no_grad(): states = model(x[None], output_hidden_states=True).hidden_states
    want = {0: states[0], 1: states[1], 2: states[2], None: states[2], "mean": (states[1]+states[2])/2}
    for layer, rows in want.items():
        heard = load_encoder(tmp_path, layer)(audio)
        assert heard.names==(kind,)*24 and heard[kind].shape==(50, 24)
        assert_close(heard.x, rows[0], atol=2e-5, rtol=1e-4)


def as_published(folder, kind):
    "The same weights as checkpoints of 2021 hold them: a .bin, a head that is not asked for, names of the old weight norm."
    from safetensors.torch import load_file
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    weights = {}
    for k, v in load_file(folder/"model.safetensors").items():
        for new, name in old.items(): k = k.replace(new, name)
        weights[f"{kind}.{k}"] = v
    torch.save(dict(weights, **{"lm_head.weight": torch.zeros(32, 24), "lm_head.bias": torch.zeros(32)}), folder/"pytorch_model.bin")
    (folder/"model.safetensors").unlink()


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_as_published_gives_the_same_rows(transformers, tmp_path, kind, no_network):
    hatch(tmp_path, kind)
    audio = Audio(noise(8000), RATE)
    before = load_encoder(tmp_path)(audio).x
    as_published(tmp_path, kind)
    assert_close(load_encoder(str(tmp_path))(audio).x, before)


def test_loading_leaves_transformers_as_it_was(transformers, tmp_path, capfd):
    hatch(tmp_path)
    log = transformers.utils.logging
    capfd.readouterr()
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    load_encoder(tmp_path)
    assert (log.get_verbosity(), log.is_progress_bar_enabled())==before and capfd.readouterr()==("", "")


# Long sounds

def test_pieces_join_without_a_seam():
    audio = Audio(noise(30*RATE+77), RATE)
    whole, short = Pretrained(Ear(), window=100.), Pretrained(Ear(), window=2.)
    assert_close(short(audio).x, whole(audio).x, atol=1e-6, rtol=0)
    assert max(short.model.heard)<=1.4*2*RATE+400<max(whole.model.heard)


def test_every_row_counts_once():
    for n in (1, 9, 10, 14, 15, 22, 23, 100, 1234):
        total = torch.zeros(n)
        for a, b, share in encoders._pieces(n, 10):
            assert 0<=a<b<=n and b-a<=14
            total[a:b] += share
        assert_close(total, torch.ones(n))


def test_a_transformer_in_pieces_is_near_the_whole_and_smooth_where_they_join(transformers, tmp_path):
    hatch(tmp_path, normalize=False, feat_extract_norm="layer", conv_bias=True)
    audio = Audio(noise(8*RATE), RATE)
    whole, short = load_encoder(tmp_path, window=100.)(audio).x, load_encoder(tmp_path, window=2.)(audio).x
    off = (short-whole).norm(dim=1)/whole.std()
    step = (short-whole).diff(dim=0).norm(dim=1)/whole.diff(dim=0).norm(dim=1)
    assert off.max()<1 and step.max()<0.2


def test_a_file_and_memory_agree_and_a_file_is_never_whole(tmp_path):
    audio = Audio(noise(5*44100), 44100)
    write_audio(tmp_path/"x.flac", audio)
    hear = Pretrained(Ear(), window=1.)
    assert_close(hear(open_audio(tmp_path/"x.flac")).x, hear(audio).x, atol=1e-3, rtol=0) # FLAC rounds to 16 bits


def test_level_and_offset_do_not_matter_to_a_model_that_normalises():
    x = noise(3*RATE)
    hear = Pretrained(Ear(), window=1.)
    assert_close(hear(Audio(100*x, RATE)).x, hear(Audio(x, RATE)).x, atol=1e-4, rtol=0)
    assert_close(hear(Audio(x+.3, RATE)).x[1:-1], hear(Audio(x, RATE)).x[1:-1], atol=1e-4, rtol=0)


# Bad sounds

@pytest.mark.parametrize("kind", KINDS)
def test_odd_sounds_give_finite_rows(transformers, tmp_path, kind):
    hatch(tmp_path, kind)
    hear = load_encoder(tmp_path)
    for x in (torch.zeros(RATE), torch.ones(1), torch.zeros(1), torch.full((500,), .2), noise(RATE).sign(), noise(321, level=1e-6), noise(100, level=1e6)):
        for rate in (8000, 16000, 96000):
            heard = encode(Audio(x, rate), hear)
            assert heard.x.isfinite().all() and len(heard)==frame_count(len(x)/rate, 25)


def test_nan_is_refused_before_anything_hears_it():
    with pytest.raises(ValueError, match="1 of 3 samples"): encode(Audio(torch.tensor([0., float("nan"), 0.]), RATE), Pretrained(Ear()))
    with pytest.raises(ValueError, match="fps=0"): encode(Audio(noise(100), RATE), Pretrained(Ear()), 0)


# Bad folders

def test_names_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no encoder 'wav2vec3'.*small-causal.*path of a folder"): load_encoder("wav2vec3")
    with pytest.raises(ValueError, match="config.json among 0 files"): load_encoder(tmp_path)
    with pytest.raises(ValueError, match="no layers to choose"): load_encoder("small", layer=2)
    assert {"small", "small-causal"}<set(ENCODERS)


@pytest.mark.parametrize("said, message", [("{", "not readable"), ("[]", "None: this reads"), ('{"model_type": "bert"}', "'bert': this reads"), ('{"model_type": "hubert"}', "no weights")])
def test_folders_that_are_none(tmp_path, said, message):
    (tmp_path/"config.json").write_text(said)
    with pytest.raises(ValueError, match=message): load_encoder(tmp_path)


def test_a_model_for_another_rate_is_refused(tmp_path):
    (tmp_path/"config.json").write_text('{"model_type": "hubert"}')
    (tmp_path/"preprocessor_config.json").write_text('{"sampling_rate": 8000}')
    with pytest.raises(ValueError, match="hears 8000 Hz"): load_encoder(tmp_path)


def test_missing_transformers_names_the_remedy(tmp_path, monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path/"config.json").write_text('{"model_type": "hubert"}')
    (tmp_path/"model.safetensors").write_bytes(b"")
    with pytest.raises(ImportError, match=r"talkinglab\[speech\].*small"): load_encoder(tmp_path)


def test_a_missing_weight_is_an_error_and_not_a_random_number(transformers, tmp_path):
    from safetensors.torch import load_file, save_file
    hatch(tmp_path)
    weights = load_file(tmp_path/"model.safetensors")
    lost = weights.pop("encoder.layers.1.attention.k_proj.weight")
    save_file(weights, tmp_path/"model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights are missing.*layers\.1\.attention\.k_proj"): load_encoder(tmp_path)
    save_file(dict(weights, **{"encoder.layers.1.attention.k_proj.weight": lost[:5].clone()}), tmp_path/"model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="k_proj"): load_encoder(tmp_path)
    (tmp_path/"model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match="cannot be read"): load_encoder(tmp_path)


class Trouble:
    def __reduce__(self): return os.mkdir, (Trouble.path,)


def test_a_bin_that_holds_code_is_refused(transformers, tmp_path):
    hatch(tmp_path)
    (tmp_path/"model.safetensors").unlink()
    Trouble.path = str(tmp_path/"owned")
    for write in (lambda f: torch.save({"x": Trouble()}, f), lambda f: f.write_bytes(pickle.dumps({"x": Trouble()}))):
        write(tmp_path/"pytorch_model.bin")
        with pytest.raises(ValueError, match="cannot be read"): load_encoder(tmp_path)
        assert not Path(Trouble.path).exists()


def test_layers_that_are_not_there():
    for layer in (2, -1, "last", 1.5):
        with pytest.raises((ValueError, Exception), match="layer|violates"): Pretrained(Ear(), layer)


# Published ones

def test_published_encoders_are_pinned_and_whole():
    for name in set(ENCODERS)-{"small", "small-causal"}:
        _, commit, _, files = encoders._PUBLISHED[name]
        assert len(commit)==40 and {"config.json", "preprocessor_config.json"}<files.keys()
        for file, (size, sha256) in files.items():
            asset = next(a for a in assets.known() if a.name==f"{name}--{file}")
            assert asset.size==size and asset.sha256==sha256 and commit in asset.url and asset.url.startswith("https://")


def test_a_published_encoder_is_not_fetched_unasked(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TALKINGLAB_ASSETS", str(tmp_path/"none"))
    with pytest.raises(AssetError, match=r"378 MB.*download=True.*model\.safetensors"): load_encoder("wav2vec2-base-960h")
    assert not (tmp_path/"none").exists()


def test_a_published_encoder_comes_once_when_asked(transformers, tmp_path, monkeypatch, shop):  # noqa: F811
    hatch(tmp_path/"maker")
    files = {f: (tmp_path/"maker"/f).read_bytes() for f in ("config.json", "preprocessor_config.json", "model.safetensors")}
    shop.shelf.update({"/"+f: data for f, data in files.items()})
    for f, data in files.items(): register(Asset(f"tiny--{f}", f"{shop.url}/{f}", "CC0", len(data), hashlib.sha256(data).hexdigest(), "ears"))
    monkeypatch.setitem(encoders._PUBLISHED, "tiny", ("someone/tiny", "0"*40, "CC0", {f: (len(data), "") for f, data in files.items()}))
    with pytest.raises(AssetError, match="download=True"): load_encoder("tiny")
    assert not shop.visits
    audio = Audio(noise(3000), RATE)
    first = load_encoder("tiny", download=True)(audio).x
    assert sorted(shop.visits)==sorted("/"+f for f in files)
    assert_close(load_encoder("tiny")(audio).x, first)
    assert_close(load_encoder(tmp_path/"maker")(audio).x, first)
    (assets.asset_folder()/"tiny--config.json").unlink() # And again, into the same folder
    load_encoder("tiny", download=True)
    assert len(shop.visits)==4 and (assets.asset_folder()/"tiny"/"config.json").samefile(assets.asset_folder()/"tiny--config.json")


# Windows and their networks

def test_windows_are_centred_on_their_frames_and_hold_the_ends():
    x = audio_windows(Features(torch.arange(101.)[:, None], 50, ("row",)))
    assert x.shape==(51, 16, 1)
    assert_close(x.mean(1)[4:-5, 0], 2*torch.arange(51.)[4:-5]+.5)
    assert x[0, :, 0].tolist()==[0]*7+list(range(9)) and (x[-1, 8:]==100).all()
    assert audio_windows(Features(torch.arange(40.)[:, None], 100, ("row",)), 25, first=0, width=4)[3, :, 0].tolist()==[12, 13, 14, 15]
    assert audio_windows(Features(torch.ones(1, 3), 50, ("a",)*3)).shape==(1, 16, 3)
    with pytest.raises(ValueError, match="fps=60 first"): audio_windows(Features(torch.ones(9, 1), 50, ("a",)), 30)


def test_ad_nerf_windows_are_theirs():
    "Eight zeros before and behind, then rows 2 j to 2 j + 15 of that: -8 in our count, but for the ends."
    rows = noise(60).reshape(60, 1)
    theirs = F.pad(rows, (0, 0, 8, 8)).unfold(0, 16, 2).transpose(1, 2)[:30]
    ours = audio_windows(Features(rows, 50, ("row",)), first=-8)
    assert torch.equal(ours[4:27], theirs[4:27])


@pytest.mark.parametrize("columns", [29, 44, 48, 768, 1024])
def test_audio_net_makes_one_code_a_frame(columns):
    torch.manual_seed(0)
    net, x = AudioNet(columns), noise(7*16*columns).reshape(7, 16, columns)
    assert net(x).shape==(7, 32)
    assert_close(net(x)[3:4], net(x[3:4]), atol=1e-5, rtol=1e-4)
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_audio_net_has_the_size_that_is_told_of_it():
    "30.7 thousand numbers on DeepSpeech; HuBERT large adds 455 thousand (InsTaG)."
    count = lambda columns: sum(p.numel() for p in AudioNet(columns).parameters())
    assert count(29)==30_720 and abs(count(1024)-count(29)-455_000)<500


@pytest.mark.parametrize("t", [1, 3, 8, 40])
def test_attention_weights_sum_to_one_and_keep_what_is_constant(t):
    torch.manual_seed(0)
    smooth, x = AudioAttention(), noise(32*t, level=1.).reshape(t, 32)
    assert smooth.weights(x).shape==(t, 8)
    assert_close(smooth.weights(x).sum(1), torch.ones(t))
    assert_close(smooth(x[:1].expand(t, -1)), x[:1].expand(t, -1), atol=1e-6, rtol=1e-5)
    out = smooth(x)
    assert (out<=x.amax(0)+1e-6).all() and (out>=x.amin(0)-1e-6).all()


def test_attention_hears_four_frames_back_and_three_ahead():
    torch.manual_seed(0)
    smooth, x = AudioAttention(), noise(32*30, level=1.).reshape(30, 32)
    changed = x.clone()
    changed[15] += 1
    moved = ((smooth(changed)-smooth(x)).abs().amax(1)>1e-7).nonzero()[:, 0].tolist()
    assert moved==list(range(12, 20))


def test_the_whole_chain_runs_and_learns():
    torch.manual_seed(0)
    rows = Pretrained(Ear())(Audio(torch.sin(3*torch.arange(2*RATE)/RATE), RATE)) # An ear that hears a mean hears a slow wave
    net, smooth = AudioNet(1), AudioAttention()
    target = torch.sin(frame_times(50, 25)*3)[:, None].expand(-1, 32)
    adam, losses = torch.optim.Adam([*net.parameters(), *smooth.parameters()], 3e-3), []
    for _ in range(30):
        losses.append((smooth(net(audio_windows(rows)))-target).square().mean())
        adam.zero_grad()
        losses[-1].backward()
        adam.step()
    assert losses[-1]<0.5*losses[0] and math.isfinite(losses[-1])


def test_a_small_one_is_an_encoder_like_any_other():
    torch.manual_seed(0)
    ear = SmallEncoder(Small(16))
    for n in (1, 161, RATE+1):
        heard = encode(Audio(torch.zeros(n), RATE), ear, 30)
        assert len(heard)==frame_count(n/RATE, 30) and heard.x.isfinite().all()
        assert_close(heard["visemes"].sum(1), torch.ones(len(heard)))


# The small one, live

@pytest.fixture(scope="module")
def causal():
    torch.manual_seed(0)
    return Small(16, causal=True).eval()


@pytest.mark.parametrize("fps", [25., 50.])
def test_a_frame_comes_80_ms_after_its_end_and_no_later(causal, fps):
    "In blocks of 5 ms: frame k once its end and 80 ms more were pushed, and not before."
    stream, given = EncoderStream(causal, fps), 0
    for i, block in enumerate(noise(RATE).split(RATE//200)):
        given += len(stream.push(block))
        assert given==max(0, (5*(i+1)-80)//round(1000/fps))


@pytest.mark.parametrize("fps", [10., 24., 29.97, 30., 60., 100.])
def test_at_other_rates_a_frame_waits_30_ms_more_at_most(causal, fps):
    stream, given = EncoderStream(causal, fps), 0
    for i, block in enumerate(noise(RATE).split(RATE//1000)):
        for _ in stream.push(block):
            given += 1
            assert i+1-1000*given/fps<110


@pytest.mark.parametrize("fps", [24., 25., 30., 50., 100.])
def test_live_is_offline_however_short(causal, fps):
    for n in (1, 161, 320, 321, 480, 640, 1000, 16161):
        stream, x = EncoderStream(causal, fps), noise(n)
        live = torch.cat([*[stream.push(b) for b in x.split(333)], stream.push(torch.zeros(0)), stream.finish()])
        assert_close(live, encode(Audio(x, RATE), SmallEncoder(causal), fps).x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_live_is_offline_at_any_rate(causal, rate):
    stream, audio = EncoderStream(causal, rate=rate), Audio(noise(rate//2+7), rate)
    live = torch.cat([*[stream.push(b) for b in audio.samples.split(777)], stream.finish()])
    assert_close(live, encode(audio, SmallEncoder(causal)).x, atol=1e-5, rtol=0)


def test_bad_streams_are_refused(causal):
    with pytest.raises(ValueError, match="whole clip"): EncoderStream(Small(16))
    with pytest.raises(ValueError, match="fps=0"): EncoderStream(causal, 0.)
    with pytest.raises(ValueError, match="1 of 2 samples"): EncoderStream(causal).push(torch.tensor([0., float("nan")]))
    with pytest.raises(ValueError, match="no sound"): EncoderStream(causal).finish()


def test_a_stream_does_not_drop_out():
    torch.manual_seed(0)
    net, x = Small(16, causal=True).train(), noise(RATE)
    first, second = (EncoderStream(net).push(x) for _ in range(2))
    assert torch.equal(first, second) and not net.training


def test_the_network_is_asked_where_it_is_and_answers_where_the_sound_is(causal):
    "Weights of another kind stand for weights on another device."
    import copy
    double, mel = copy.deepcopy(causal).double(), noise(100*80, level=1.).reshape(100, 80)-5
    assert hear(double, mel).dtype==torch.float32
    assert_close(hear(double, mel), hear(causal, mel), atol=1e-4, rtol=0)
    assert_close(EncoderStream(double).push(noise(RATE)), EncoderStream(causal).push(noise(RATE)), atol=1e-4, rtol=0)


def test_weights_make_the_round_trip(tmp_path, causal):
    from safetensors.torch import save_file
    save_file({k: v.half() for k, v in causal.state_dict().items()}, tmp_path/"x.safetensors", dict(width="16", causal="True"))
    net = load_small(tmp_path/"x.safetensors")
    assert net.causal and not net.training
    for k, v in net.state_dict().items(): assert_close(v, causal.state_dict()[k].half().float())
    for kind in ({}, dict(width="24", causal="True")):
        save_file(causal.state_dict(), tmp_path/"y.safetensors", kind)
        with pytest.raises(ValueError, match="not the weights"): load_small(tmp_path/"y.safetensors")
    with pytest.raises(ValueError, match="not the weights"): load_small(tmp_path/"none.safetensors")


def test_a_path_and_a_name_will_do():
    path = samples("gym.flac")
    assert_close(encode(path).x, encode(read_audio(path)).x, atol=1e-5, rtol=0)
    live = EncoderStream("small-causal")
    live.push(torch.zeros(16000))
    live.finish()
    for call in (lambda: live.push(torch.zeros(9)), live.finish):
        with pytest.raises(ValueError, match="begin a new EncoderStream"): call()
    with pytest.raises(ValueError, match="small-causal"): EncoderStream("small")
