"Audio-driven 3D Gaussian talking heads, in notebooks that run on any machine."
__version__ = "0.1.0"

# Everything is loaded on first use: `import talkinglab` does no work and pulls neither numba nor matplotlib.
_lazy = {
    "load": "talkinglab.systems.talkers", "talkers": "talkinglab.systems.talkers",
    "Gaussians": "talkinglab.gs.gaussians", "Camera": "talkinglab.core.camera", "render": "talkinglab.gs.render",
    "Audio": "talkinglab.core.media", "read_audio": "talkinglab.core.media",
    "Clip": "talkinglab.core.clip", "Motion": "talkinglab.core.clip", "load_clip": "talkinglab.core.clip",
}
__all__ = list(_lazy)

def __getattr__(name):
    if name not in _lazy: raise AttributeError(f"module 'talkinglab' has no attribute '{name}'")
    from importlib import import_module
    return getattr(import_module(_lazy[name]), name)

def __dir__(): return sorted(__all__)
