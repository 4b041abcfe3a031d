"The laws of chapter 04: pictures change no values, keep no state, and hide nothing."
import base64
import json
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from talkinglab.core.media import Audio, read_video
from talkinglab.core.show import cloud, curves, play, sketch, strip, wave


def some(*shape): return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def png(fig):
    data = fig._repr_png_()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return data


@pytest.mark.parametrize("draw", [
    lambda: strip([some(8, 8, 3), some(8, 9)], ["a", "b"]), lambda: curves({"a": some(9), "b": (some(4), some(4))}, fps=25.),
    lambda: wave(Audio(some(5000)-0.5, 16000), [(0., 0.1, "a")]), lambda: sketch([{"a": some(9, 2), "_b": some(3, 9, 2)}], ["t"])])
def test_a_picture_shows_itself_and_is_the_same_twice(draw):
    assert png(draw()) == png(draw())


def test_showing_needs_no_global_state():
    code = ("import sys, torch; from talkinglab.core.show import strip; strip([torch.zeros(4,4,3)])._repr_png_();"
            "print('matplotlib.pyplot' in sys.modules, 'plotly' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == ["False", "False"]


def test_strip_shows_the_pixels_it_was_given():
    images = [some(6, 5, 3), some(6, 5)]
    rgb, values = (torch.as_tensor(ax.images[0].get_array()) for ax in strip(images).axes)
    assert_close(rgb.float()/255, images[0], atol=0.51/255, rtol=0)
    assert_close(values.float(), images[1], atol=0, rtol=0)


def test_strip_with_limits_gives_every_map_one_scale():
    fig = strip([some(4, 4), 9*some(4, 4)], limits=(0., 2.))
    assert {ax.images[0].get_clim() for ax in fig.axes} == {(0., 2.)}


def test_strip_breaks_into_rows_and_leaves_no_axes_empty_handed():
    fig = strip([some(4, 4, 3)]*5, cols=2)
    assert len(fig.axes) == 6 and sum(bool(ax.images) for ax in fig.axes) == 5 and not any(ax.axison for ax in fig.axes)


@pytest.mark.parametrize("images, says", [([], "no images"), ([torch.full((4, 4, 3), torch.nan)], "48 values")])
def test_strip_refuses_nothing_and_holes(images, says):
    with pytest.raises(ValueError, match=says): strip(images)


def test_curves_keep_values_and_clock():
    y, at = some(50), some(7)
    line, dots = curves({"a": y, "b": (at, 2*at)}, fps=25.).axes[0].lines
    assert_close(torch.tensor(line.get_ydata()), y) and abs(line.get_xdata()[25]-1) < 1e-12
    assert_close(torch.tensor(dots.get_xdata()), at)


@pytest.mark.parametrize("count", [1, 1499, 1500, 16001, 100_003])
@pytest.mark.parametrize("at", [0, -1])
def test_wave_loses_no_peak(count, at):
    x = torch.zeros(count)
    x[at] = -0.9
    fig = wave(Audio(x, 16000))
    drawn = fig.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert abs(drawn.min()+0.9) < 1e-6


def test_sketch_is_to_scale_and_flat():
    fig = sketch([{"a": some(9, 2)}, {"b": some(9, 2), "a": some(9, 2)}], box=(0., 4., 2., 0.))
    left, right = fig.axes
    assert left.get_aspect() == right.get_aspect() == 1 and left.get_ylim() == (2., 0.)
    assert left.lines[0].get_color() == right.lines[1].get_color() != right.lines[0].get_color()
    with pytest.raises(ValueError, match="project"): sketch([{"a": some(9, 3)}])


def test_cloud_is_no_mirror_and_has_a_still():
    points = torch.tensor([[0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]])
    fig = cloud(points, some(3, 3))
    d = fig.data[0]
    drawn = torch.tensor([list(d.x), list(d.y), list(d.z)]).T
    assert_close(torch.linalg.det(drawn), torch.linalg.det(points))
    bundle = fig._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG"
    assert "application/vnd.plotly.v1+json" in bundle


def test_cloud_thins_by_lot_and_stays_light():
    points = torch.arange(30_000.).reshape(-1, 3)/1e5
    fig = cloud(points, some(10_000, 3))
    x = torch.tensor(fig.data[0].x)
    assert len(x) == 1500 and len(x.unique()) == 1500
    assert abs(x.median()-points[:, 0].median()) < 0.02
    assert len(json.dumps(fig._repr_mimebundle_())) < 100_000
    with pytest.raises(ValueError, match="no points"): cloud(torch.zeros(0, 3))


def test_play_carries_every_frame_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    levels = torch.linspace(0.1, 0.9, 7)
    page = play((torch.full((32, 32, 3), float(v)) for v in levels), 25., Audio(torch.zeros(4480), 16000))
    assert not any(tmp_path.iterdir())
    path = tmp_path/"a.mp4"
    path.write_bytes(base64.b64decode(page.data.split("base64,")[1].split('"')[0]))
    frames, fps = read_video(path)
    assert fps == 25 and len(frames) == 7
    assert_close(frames.float().mean((1, 2, 3))/255, levels, atol=0.02, rtol=0)
