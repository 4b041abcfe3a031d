"How far a filmed mouth is open, and how well that follows a sound: measured on pixels and samples of a written file."
import torch

from talkinglab.core.camera import orbit, project_points
from talkinglab.core.media import read_audio, read_video
from talkinglab.systems.hello import VIEW, hear


def box(size: int) -> tuple[int, int, int, int]:
    "Rows and columns around the mouth of the smallest talker's head, seen from the front; room for its small movements."
    at, _ = project_points(orbit(width=size, height=size, **VIEW), torch.tensor([[-.034, -.028, .09], [.034, -.088, .09]]))
    (x0, y0), (x1, y1) = at.round().long().tolist()
    return y0, y1, x0, x1


def opening(frames) -> torch.Tensor:
    "Share of dark pixels in the mouth's box: the inside of a mouth is darker than lips and skin. t"
    y0, y1, x0, x1 = box(frames.shape[1])
    light = frames[:, y0:y1, x0:x1].float().mean(-1)/255
    return (light < .33).float().mean((1, 2))


def follow(a, b, reach=5) -> tuple[float, int]:
    "Correlation of two curves, and the lag of `a` behind `b` (frames) at which they agree best."
    a, b = a[:min(len(a), len(b))], b[:min(len(a), len(b))]
    r = lambda x, y: float(torch.corrcoef(torch.stack([x, y]))[0, 1])
    shifted = {k: r(a[max(0, k):len(a)+min(0, k)], b[max(0, -k):len(b)-max(0, k)]) for k in range(-reach, reach+1)}
    return shifted[0], max(shifted, key=shifted.get)


def measure(path) -> dict:
    "Everything `make demo` promises about a file, from the file alone."
    frames, fps = read_video(path)
    audio = read_audio(path)
    loud = hear(audio, fps)[:, 0]
    correlation, lag = follow(opening(frames), loud)
    return dict(frames=len(frames), fps=fps, video=len(frames)/fps, sound=audio.seconds, correlation=correlation, lag=lag)
