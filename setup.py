"Package talkinglab from settings.ini; every `X_requirements` key there is the extra `X`."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], interpolation=None)
parser.read(here/"settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
tail = "_requirements"
readme = here/"README.md"

# The samples lie beside the package in a clone and inside it once installed: `core.assets.samples` finds both.
samples = here/"data_samples"
sample_files = [str(p.relative_to(samples)) for p in samples.rglob("*") if p.is_file() and "__pycache__" not in p.parts]

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], keywords=cfg["keywords"].split(),
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"], author_email=cfg["author_email"], url=cfg["git_url"], license="Apache-2.0 AND CC0-1.0",
    packages=find_packages(include=["talkinglab", "talkinglab.*"]) + ["talkinglab.data_samples"],
    package_dir={"talkinglab.data_samples": "data_samples"},
    package_data={"talkinglab.data_samples": sample_files, "talkinglab": ["py.typed"]},
    python_requires=f">={cfg['min_python']},<3.14",
    install_requires=cfg["requirements"].split(),
    extras_require={key.removesuffix(tail): value.split() for key, value in cfg.items() if key.endswith(tail)},
    entry_points={"console_scripts": cfg["console_scripts"].split("\n")},
    zip_safe=False,
)
