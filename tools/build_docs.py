"""Build the website and the README from the notebooks: nbdev's processors -> Markdown -> mkdocs-material, offline.

    python tools/build_docs.py            the site, in _docs/
    python tools/build_docs.py --readme   README.md, from nbs/index.ipynb
    python tools/build_docs.py --check    fail if README.md is not what --readme would write

A page asks nothing of the network: plotly.js comes from the plotly wheel, KaTeX from `npm pack` (kept in .cache/).
No cell is run: outputs are those in the notebooks, signatures are read from the exported source.
"""
import argparse
import base64
import html
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import yaml
from dialect import block, callouts, fence, lists, outside_code, relink
from nbdev import processors as nbdev
from nbdev.process import NBProcessor
from signatures import Module

ROOT = Path(__file__).resolve().parent.parent
KATEX = "0.19.1"
LAYERS = dict(core="maths, media and records", gs="Gaussians without faces", audio="what a mouth hears", face="a head that moves", nn="Lego parts",
              measure="claims, measured", systems="one readable file a talker", app="use it", tutorials="worked examples")
ABOUT = {"docs/honest-use.md": "about/honest-use.md", "CONTRIBUTING.md": "about/contributing.md", "CHANGELOG.md": "about/changelog.md",
         "data_samples/README.md": "about/samples.md", "LICENSE": "about/license.md"}
PROCESSORS = [nbdev.populate_language, nbdev.add_show_docs, nbdev.strip_ansi, nbdev.hide_line, nbdev.filter_stream_, nbdev.rm_header_dash,
              nbdev.rm_export, nbdev.clean_magics, nbdev.hide_, nbdev.mv_exports]
PLOTLY = "application/vnd.plotly.v1+json"
PICTURES = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}


def site_page(place: str) -> str|None:
    "Where a file of the repository stands on the site, if it does."
    if place.startswith("nbs/"): return re.sub(r"\.ipynb$", ".md", place.removeprefix("nbs/"))
    return {"README.md": "index.md", "data_samples": "about/samples.md", **ABOUT}.get(place)


def relative(page: str, frm: str) -> str: return Path(os.path.relpath(page, os.path.dirname(frm) or ".")).as_posix()


# -- Notebooks ------------------------------------------------------------------------------------------------------

class Chapter:
    "A notebook that nbdev's processors have been through, without its title and its lead (kept beside it)."
    def __init__(self, path: Path, place: str):
        processor = NBProcessor(path, PROCESSORS)
        self.module = next((c.directives_["default_exp"][0] for c in processor.nb.cells if "default_exp" in c.directives_), "")
        seen = "\n".join(c.source for c in processor.nb.cells if "exports" in c.directives_)
        self.seen = set(re.findall(r"^(?:def|class) (\w+)", seen, re.M))   # Definitions whose source the reader sees
        processor.process()
        self.place, self.page, self.cells = place, site_page(place), processor.nb.cells
        self.number = next(iter(re.findall(r"^(\d+)_", path.name)), "")
        self.layer = self.module.split(".")[0] or (Path(place).parent.name if self.page.count("/") else "")
        self.picture = None
        first = next((c for c in self.cells if c.cell_type == "markdown"), None)
        head = re.match(r"\s*# +(.+)\n*((?:>.*\n?)*)", first.source if first else "")
        if not head: raise ValueError(f"{place}: its first Markdown cell must begin with a '# title'")
        self.title, self.lead = head[1].strip(), " ".join(line.lstrip("> ") for line in head[2].splitlines())
        first.source = first.source[head.end():].strip()


def notebooks(folder: Path) -> list[Chapter]:
    paths = [p for p in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
    return [Chapter(p, "nbs/"+p.relative_to(folder).as_posix()) for p in paths]


class Site:
    "What the pages share: modules, names that can be linked, and HTML that Markdown must not touch."
    def __init__(self, nbs: Path, package: Path, work: Path):
        self.work, self.aside, self.chapters = work, {}, notebooks(nbs)
        sources = {c.module: package/(c.module.replace(".", "/")+".py") for c in self.chapters if c.module}
        self.modules = {name: Module(name, path.read_text(encoding="utf-8")) for name, path in sources.items()}
        self.names = {}     # A name as prose may write it -> where the API has it
        for m in self.modules.values():
            self.names[m.name] = [(m.name, "")]
            for full in [f for name, node in m.public.items() for f in (name, *m.methods(node))]:
                for written in (full, f"{m.name}.{full}"): self.names.setdefault(written, []).append((m.name, "#"+full))

    def prose(self, text: str, place: str, module: str = "") -> str:
        "Markdown of the file at `place` for mkdocs, with `names` linked to the API (those of `module` first)."
        page = site_page(place)
        def name(m):
            found = self.names.get(re.sub(r"^(talkinglab|tl)\.", "", m[1]), [])
            found = [f for f in found if f[0] == module] or found
            return f"[{m[0]}]({relative(f'api/{found[0][0]}.md', page)}{found[0][1]}){{ .api }}" if len(found) == 1 else m[0]
        def change(s):
            s = relink(lists(s), place, lambda p: site_page(p) and relative(site_page(p), page)).replace("<details>", '<details markdown="1">')
            return "\n".join(line if re.match(r"\s*#|.*\]\(", line) else re.sub(r"(?<!`)`([\w.]+)(?:\([^`]*\))?`(?!`)", name, line) for line in s.split("\n"))
        return outside_code(callouts(text), change)

    def output(self, out, chapter: Chapter, stem: str, alt: str) -> str:
        "One output of a cell."
        data, text = out.get("data", {}), "".join
        if out.output_type == "stream": return fence(text(out.text), "{ .text .nb-out }")
        if out.output_type == "error": return fence(f"{out.ename}: {out.evalue}", "{ .text .nb-out .nb-error }")
        if PLOTLY in data or "text/html" in data:
            figure = json.dumps(data.get(PLOTLY)).replace("</", "<\\/")
            key = f"{chapter.page}:{stem}"
            self.aside[key] = f'<script type="application/json">{figure}</script>' if PLOTLY in data else text(data["text/html"])
            return f'<div class="nb-html{" nb-plotly" if PLOTLY in data else ""}" data-key="{key}"></div>'
        if "text/markdown" in data: return self.prose(text(data["text/markdown"]), chapter.place, chapter.module)
        for mime, end in PICTURES.items():
            if mime not in data: continue
            path = self.work/(chapter.page.removesuffix(".md")+"_files")/f"{stem}.{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text(data[mime]).encode() if end == "svg" else base64.b64decode(text(data[mime])))
            chapter.picture = chapter.picture or path.relative_to(self.work).as_posix()
            return f"![{alt}]({path.parent.name}/{path.name}){{ .nb-fig loading=lazy }}"
        return text(data["text/latex"]) if "text/latex" in data else fence(text(data.get("text/plain", "")), "{ .text .nb-out }")

    def card(self, name: str, chapter: Chapter) -> str:
        "Call and table of an exported definition; folded where the reader sees its source."
        module = self.modules[chapter.module]
        node = module.find(name)
        if not node: return ""
        folded, more = name in chapter.seen, f"[In the API]({relative(f'api/{module.name}.md', chapter.page)}#{name})"
        body = "\n\n".join(filter(None, ["" if folded else module.words(node), module.table(node), more]))
        return f'<span id="{name}"></span>\n\n'+block("api", f"`{module.call(node, name)}`".replace('"', "'"), body, folded)

    def code(self, cell, chapter: Chapter, stem: str, alt: str) -> str:
        "A code cell and its outputs, as its directives ask."
        has = {k.rstrip(":")+("="+v[0] if v else "") for k, v in (cell.get("directives_") or {}).items()}
        if shown := re.match(r"show_doc\(([\w.]+)\)", cell.source): return self.card(shown[1], chapter)
        if "include=false" in has: return ""
        source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()
        parts = [fence(source, cell.metadata.get("language", "python"))] if source and not has & {"hide_input", "echo=false"} else []
        if not has & {"hide_output", "output=false"}: parts += [self.output(o, chapter, f"{stem}-{i}", alt) for i, o in enumerate(cell.get("outputs", []))]
        if "code-fold=true" not in has or not parts: return "\n\n".join(parts)
        summary = re.search(r"^#\| *code-summary: *\"?([^\"\n]+)", cell.source, re.M)
        solution = re.match(r"# *solution", source, re.I)
        return block("solution" if solution else "code", summary[1] if summary else "Solution" if solution else "Code", "\n\n".join(parts))

    def markdown(self, chapter: Chapter) -> str:
        "The page of a chapter."
        out, alt = [f"---\ntitle: {json.dumps(chapter.title)}\ndescription: {json.dumps(chapter.lead)}\n---", f"# {chapter.title}"], chapter.title
        if chapter.lead: out.append(self.prose(chapter.lead, chapter.place, chapter.module)+"\n{ .lead }")
        if chapter.module:
            api = relative(f"api/{chapter.module}.md", chapter.page)
            out.append(f"Chapter {chapter.number} · notebook `{chapter.place}` · module [`talkinglab.{chapter.module}`]({api})\n{{ .nb-meta }}")
        for i, cell in enumerate(chapter.cells):
            if cell.cell_type == "markdown":
                alt = (re.findall(r"^#+ +(.+)$", cell.source, re.M) or [alt])[-1].translate(str.maketrans("", "", "[]`$"))
                out.append(self.prose(cell.source, chapter.place, chapter.module))
            elif cell.cell_type == "code": out.append(self.code(cell, chapter, f"c{i:03d}", alt))
        return "\n\n".join(filter(None, out))+"\n"

    def contents(self) -> str:
        "The overview: a card with the first picture of every chapter."
        out = ["# Chapters", "Each is a notebook that explains one idea and exports one module of the library.\n{ .lead }"]
        for layer, chapters in self.layers().items():
            out += [f"## {layer}", LAYERS[layer].capitalize()+".\n{ .nb-meta }" if layer in LAYERS else "", '<div class="chapters">']
            for c in chapters:
                picture = f'<img src="../{c.picture}" alt="" loading="lazy">' if c.picture else ""
                out[-1] += f'<a href="../{c.page[:-3]}.html"><span>{picture}</span><b>{html.escape(c.title)}</b><small>{c.number} {c.module}</small></a>'
            out[-1] += "</div>"
        return "\n\n".join(out)+"\n"

    def api(self) -> str:
        "Every public name on one page."
        out = ["# API", "Every public name, by module. Shapes, frames and units stand beside each parameter.\n{ .lead }"]
        for m in self.modules.values():
            out += [f"### [{m.name}]({m.name}.md)", m.doc, " ".join(f"[`{name}`]({m.name}.md#{name})" for name in m.public)+"\n{ .api-names }"]
        return "\n\n".join(out)+"\n"

    def layers(self) -> dict[str, list[Chapter]]:
        found = {}
        for c in sorted(self.chapters, key=lambda c: c.layer == "tutorials"):
            if c.page != "index.md": found.setdefault(c.layer, []).append(c)
        return found


def led(text: str) -> str:
    "The `> line` under a title as the page's lead."
    return re.sub(r"\A(# .+\n+)((?:>.*\n)+)", lambda m: m[1]+re.sub(r"^> ?", "", m[2], flags=re.M)+"{ .lead }\n", text)


# -- The site -------------------------------------------------------------------------------------------------------

def browser_libraries(assets: Path) -> bool:
    "plotly.js from the plotly wheel, KaTeX from npm; False where KaTeX could not be had."
    plotly = Path(importlib.util.find_spec("plotly").origin).parent/"package_data"/"plotly.min.js"
    shutil.copy(plotly, assets)
    cache = ROOT/".cache"/f"katex-{KATEX}"
    if not cache.exists():
        fresh = cache.with_name(f"{cache.name}.{os.getpid()}")
        fresh.mkdir(parents=True)
        try:
            subprocess.run(["npm", "pack", f"katex@{KATEX}", "--silent", "--pack-destination", fresh], check=True, capture_output=True, timeout=120, cwd=fresh)
            with tarfile.open(fresh/f"katex-{KATEX}.tgz") as tar:
                for m in tar.getmembers():
                    keep = re.fullmatch(r"package/(?:dist/(katex\.min\.(?:js|css)|fonts/[\w-]+\.woff2)|(LICENSE))", m.name)
                    if not keep or not m.isfile(): continue
                    path = fresh/(keep[1] or keep[2])
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(tar.extractfile(m).read())
            (fresh/f"katex-{KATEX}.tgz").unlink()
            if not cache.exists(): fresh.rename(cache)
        except (OSError, subprocess.SubprocessError, tarfile.TarError) as e:
            print(f"KaTeX {KATEX} could not be fetched by npm ({type(e).__name__}): formulas are shown as their LaTeX source.\n"
                  "Install Node.js (which brings npm), be online once, and build again.", file=sys.stderr)
        finally: shutil.rmtree(fresh, ignore_errors=True)
    if cache.exists(): shutil.copytree(cache, assets/"katex")
    return cache.exists()


def outside_requests(site: Path) -> list[str]:
    "What a page or a style sheet of `site` would load from another host."
    tag = re.compile(r"<(?:script|link|img|iframe|video|audio|source|embed|object)\b[^>]*?\b(?:src|href|srcset|data|poster)\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)", re.I)
    css = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", re.I)
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix not in (".html", ".css"): continue
        text = path.read_text(encoding="utf-8")
        hits = tag.findall(text)+css.findall(text) if path.suffix == ".html" else css.findall(text)
        found += [f"{path.relative_to(site)}: {url}" for url in hits]
    return found


def build(out: Path, work: Path, nbs: Path = ROOT/"nbs", package: Path = ROOT/"talkinglab") -> Site:
    "Write the site to `out` by way of `work`; both are made anew."
    for folder in (out, work): shutil.rmtree(folder, ignore_errors=True)
    pages = work/"pages"
    shutil.copytree(ROOT/"docs"/"assets", pages/"assets")
    if (nbs/"images").exists(): shutil.copytree(nbs/"images", pages/"images")
    site = Site(nbs, package, pages)
    texts = {c.page: site.markdown(c) for c in site.chapters}
    by_module = {c.module: c for c in site.chapters}
    texts |= {f"api/{m.name}.md": m.page(by_module[m.name].title, "../"+by_module[m.name].page) for m in site.modules.values()}
    texts |= {page: site.prose(led((ROOT/place).read_text(encoding="utf-8")), place) for place, page in ABOUT.items() if place != "LICENSE"}
    texts |= {"chapters/index.md": site.contents(), "api/index.md": site.api(), "about/license.md": "# License\n\n"+fence((ROOT/"LICENSE").read_text(encoding="utf-8"), "{ .text .nb-out }")}
    for page, text in texts.items():
        (pages/page).parent.mkdir(parents=True, exist_ok=True)
        (pages/page).write_text(text, encoding="utf-8")
    config = yaml.safe_load((ROOT/"docs"/"mkdocs.yml").read_text(encoding="utf-8"))
    katex = browser_libraries(pages/"assets")
    layers = site.layers()
    config |= dict(docs_dir=str(pages), site_dir=str(out),
        extra_css=["assets/katex/katex.min.css"]*katex+["assets/site.css"], extra_javascript=["assets/katex/katex.min.js"]*katex+["assets/nb.js"],
        nav=[{"Home": "index.md"}, {"Chapters": ["chapters/index.md", *({k: [{f"{c.number} {c.title}".strip(): c.page} for c in v]} for k, v in layers.items())]},
             {"API": ["api/index.md", *({k: [{c.module: f"api/{c.module}.md"} for c in v if c.module]} for k, v in layers.items() if any(c.module for c in v))]},
             {"About": [{Path(page).stem.replace("-", " ").capitalize(): page} for page in ABOUT.values()]}])
    (work/"mkdocs.yml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    run = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "-f", work/"mkdocs.yml"], env=dict(os.environ, NO_MKDOCS_2_WARNING="true"),
                         capture_output=True, text=True)    # Not --quiet: that would keep warnings from --strict as well
    if run.returncode: raise SystemExit(run.stdout+run.stderr)
    for path in out.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        filled = re.sub(r'(data-key="([^"]+)">)', lambda m: m[1]+site.aside[m[2]], text)
        if filled != text: path.write_text(filled, encoding="utf-8")
    if loads := outside_requests(out): raise SystemExit("pages may not load from other hosts:\n"+"\n".join(loads))
    return site


# -- The README -----------------------------------------------------------------------------------------------------

def readme(index: Path = ROOT/"nbs"/"index.ipynb") -> str:
    "The index notebook as README.md: text, code, printed results; pictures by their path in the repository."
    c = Chapter(index, "nbs/index.ipynb")
    out = [f"# {c.title}", f"> {c.lead}" if c.lead else ""]
    for cell in c.cells:
        prose = lambda text: outside_code(text, lambda s: relink(s, c.place, lambda p: p))
        if cell.cell_type == "markdown": out.append(prose(cell.source))
        elif cell.cell_type == "code":
            if not re.search(r"^#\| *echo: *false", cell.source, re.M): out.append(fence(re.sub(r"^#\|.*\n?", "", cell.source, flags=re.M).strip()))
            for o in cell.get("outputs", []):
                if "text/markdown" in o.get("data", {}): out.append(prose("".join(o["data"]["text/markdown"])))
                else:
                    text = o.get("text") or (o.get("data", {}).get("text/plain") if not {PLOTLY, "text/html", *PICTURES} & set(o.get("data", {})) else None)
                    if text: out.append(fence("".join(text), "text"))
    return "\n\n".join(part.strip() for part in out if part.strip())+"\n"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--readme", action="store_true", help="write README.md from nbs/index.ipynb")
    p.add_argument("--check", action="store_true", help="fail if README.md is stale")
    a = p.parse_args()
    if a.readme: (ROOT/"README.md").write_text(readme(), encoding="utf-8")
    elif a.check:
        if not (ROOT/"README.md").exists() or (ROOT/"README.md").read_text(encoding="utf-8") != readme(): sys.exit("README.md is stale: run python tools/build_docs.py --readme")
    else:
        build(ROOT/"_docs", ROOT/"_proc")
        print("the site is in _docs/: look at it with\n    python -m http.server -d _docs 8000    and open http://localhost:8000")


if __name__ == "__main__": main()
