"""Twenty-four photographs of a sculpted head, 256 px: how good is a static field at places it has not seen, and how long does it take?

    python benchmarks/field.py [--seeds 0 1 2] [--size 256]     writes benchmarks/results/field.json

A seed is a person, drawn by lot. A field starts from grey dots in a box, or from the grey mesh of another person (the plain head). The eight unseen views stand between
the others, in yaw and in pitch; they are drawn once the field is done, and choose nothing. Defaults of `Recipe`; two degrees of spherical harmonics.
"""
import argparse
import time
from dataclasses import replace

import torch
from report import keep, where

WALL = torch.tensor([.55, .60, .65])
DIALS = ("face_width", "jaw_width", "roundness", "chin", "nose_width", "nose_length", "lips", "mouth_width", "eye_size", "eye_space", "eye_tilt", "brow_height", "brow_thick")


def person(seed):
    "Somebody, by lot."
    from talkinglab.face.sculpt import Person
    g = torch.Generator().manual_seed(seed)
    number = lambda low, high: low+(high-low)*float(torch.rand((), generator=g))
    color = lambda: tuple((.2+.6*torch.rand(3, generator=g)).tolist())
    return Person(**{k: number(-.8, .8) for k in DIALS}, skin=number(.05, .95), hair=("short", "crop", "bun")[int(torch.randint(3, (), generator=g))],
                  hair_color=color(), eye_color=color(), shirt_color=color())


def photograph(rig, places, size):
    from talkinglab.core.camera import orbit
    from talkinglab.face.mesh import draw
    from talkinglab.gs.field import posed
    cameras = [orbit(yaw, pitch, 1.2, target=(0, -.035, 0), fov=16, width=size, height=size) for yaw, pitch in places]
    return posed([draw(rig.surface, rig.vertices, c, WALL)[0] for c in cameras], cameras, WALL)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--size", type=int, default=256)
    a = p.parse_args()
    from talkinglab.face.sculpt import sculpt_head
    from talkinglab.gs.field import Recipe, colors_to_sh, evaluate, fit_field, mesh_to_gaussians, points_to_gaussians
    here = where()
    plain, rows = sculpt_head(), []
    learned = [(yaw, pitch) for pitch in (-4, 20) for yaw in range(0, 360, 30)]
    unseen = [(yaw, (8, 0, 14, 4)[i % 4]) for i, yaw in enumerate(range(15, 360, 45))]
    for seed in a.seeds:
        rig = sculpt_head(person(seed))
        views, judges = photograph(rig, learned, a.size), photograph(rig, unseen, a.size)
        g = torch.Generator().manual_seed(seed)
        box = torch.rand(3000, 3, generator=g)*torch.tensor([.30, .34, .30])-torch.tensor([.15, .205, .15])
        starts = dict(points=points_to_gaussians(box), mesh=mesh_to_gaussians(plain.vertices, plain.faces, 8000, g))
        for name, start in starts.items():
            start = colors_to_sh(start, 2)
            if not rows: fit_field(views, start, Recipe(steps=2, growth=None))  # compile the kernels; not timed
            clock = time.perf_counter()
            run = fit_field(views, start, replace(Recipe(), seed=seed), progress=True)
            seconds = time.perf_counter()-clock
            field = run.system()
            seen, fresh = evaluate(field, views), evaluate(field, judges)
            rows.append(dict(seed=seed, start=name, psnr=round(float(fresh["psnr"].mean()), 2), worst_psnr=round(float(fresh["psnr"].min()), 2), ssim=round(float(fresh["ssim"].mean()), 4),
                             psnr_train=round(float(seen["psnr"].mean()), 2), gaussians=len(field), steps=run.it, seconds=round(seconds, 1)))
            print(rows[-1], flush=True)
    result = dict(**here, seeds=a.seeds, size=a.size, views=len(learned),
                  unseen_views=len(unseen), rows=rows)
    keep("field", result)


if __name__ == "__main__": main()
