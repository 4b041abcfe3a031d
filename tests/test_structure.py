"The layers hold, third parties stay where the design put them, the public names are known."
import importlib
import json
import subprocess
import sys

import pytest
from project import NUMBER, ROOT, imports, modules

# Beyond the standard library, torch, numpy and jaxtyping: who may import what.
ALLOWED = {
    "core.media": {"av", "PIL"}, "core.show": {"matplotlib", "plotly", "IPython"}, "core.assets": {"pooch"}, "core.clip": {"safetensors"},
    "core.fit": {"accelerate", "tqdm"}, "gs.tiles": {"numba", "llvmlite"}, "gs.render": {"gsplat"}, "gs.field": {"gsplat"}, "gs.io": {"plyfile", "zstandard"}, "audio.encoders": {"librosa", "safetensors", "transformers"},
    "face.mesh": {"numba"}, "nn.graph": {"numba"}, "face.sculpt": {"scipy"}, "face.sync": {"safetensors"}, "measure.image": {"safetensors", "face_alignment", "mediapipe"}, "measure.disentangle": {"sklearn", "threadpoolctl"}, "app.cli": {"tqdm", "av"},
}
EVERYWHERE = {"torch", "numpy", "jaxtyping", "talkinglab"} | set(sys.stdlib_module_names)


@pytest.mark.parametrize("m", modules(), ids=lambda m: m.name)
def test_a_module_imports_only_earlier_chapters(m):
    late = [i for i in imports(m) if i in NUMBER and NUMBER[i] >= m.number and not i == m.name]
    own = [i for i in late if NUMBER[i] == m.number]
    assert not [i for i in late if i not in own], f"{m.name} (chapter {m.number:02}) imports later chapters: {late}"


@pytest.mark.parametrize("m", modules(), ids=lambda m: m.name)
def test_third_parties_stay_inside_their_fence(m):
    chapter = next(k for k, v in NUMBER.items() if v == m.number).removeprefix("talkinglab.")
    foreign = {i.split(".")[0] for i in imports(m)} - EVERYWHERE
    assert foreign <= ALLOWED.get(chapter, set()), f"{m.name} imports {foreign - ALLOWED.get(chapter, set())}"


def public_names() -> dict[str, list[str]]:
    return {m.name: sorted(importlib.import_module(m.name).__all__) for m in modules() if m.exported}


def test_public_names_are_the_ones_we_promised():
    "A change here is a change for users: `python tests/test_structure.py` writes the list anew, and the CHANGELOG says why."
    assert public_names() == json.loads((ROOT/"tests"/"public_api.json").read_text())


def test_top_level_names_resolve():
    import talkinglab
    for name in talkinglab.__all__: assert getattr(talkinglab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"): talkinglab.nothing  # noqa: B018


def test_no_device_is_hard_coded_and_no_pickle_is_trusted():
    for m in modules():
        text = m.path.read_text(encoding="utf-8")
        assert ".cuda()" not in text, m.name
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, f"{m.name}: {line}"


def test_importing_the_package_runs_nothing():
    code = "import sys, talkinglab; print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch','numba','matplotlib','librosa','av')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    (ROOT/"tests"/"public_api.json").write_text(json.dumps(public_names(), indent=1)+"\n")
