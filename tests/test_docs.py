"Notebooks become pages: what is hidden stays hidden, what is shown is whole, and nothing is asked of the network."
import json
import re
import shutil
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from project import CHAPTERS, NBS, ROOT

sys.path.insert(0, str(ROOT/"tools"))
import build_docs  # noqa: E402
from dialect import lists, relink  # noqa: E402
from signatures import Module  # noqa: E402


def site_of(folder, *cells, name="99_any.thing.ipynb"):
    "A site of one notebook, and that notebook's page."
    (folder/"nbs").mkdir()
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A claim\n\n> One line."), *cells]), folder/"nbs"/name)
    site = build_docs.Site(folder/"nbs", ROOT/"talkinglab", folder/"pages")
    return site, site.markdown(site.chapters[0])


def test_a_chapter_keeps_its_signatures_and_pictures_and_loses_its_directives(tmp_path):
    (tmp_path/"nbs").mkdir()
    shutil.copy(ROOT/"nbs"/"00_core.rotation.ipynb", tmp_path/"nbs")
    site = build_docs.Site(tmp_path/"nbs", ROOT/"talkinglab", tmp_path/"pages")
    page = site.markdown(site.chapters[0])
    assert "#|" not in page and "default_exp" not in page and "show_doc" not in page
    assert "| parameter | type, shape |" in page and '<code>Float[Tensor,&nbsp;"*b&nbsp;4"]</code>' in page
    pictures = re.findall(r"!\[[^\]]*\]\((00_core\.rotation_files/[^)]+\.png)\)", page)
    assert pictures and all((tmp_path/"pages"/p).read_bytes().startswith(b"\x89PNG") for p in pictures)
    api = site.modules["core.rotation"].page("A claim", "../00_core.rotation.md")
    assert all(f"## {name} {{ #{name} " in api for name in site.modules["core.rotation"].public)


def test_directives_hide_what_they_say(tmp_path):
    printed = lambda text: [new_output("stream", name="stdout", text=text)]
    _, page = site_of(tmp_path, new_code_cell("#| hide\nsecret = 1", outputs=printed("gone")), new_code_cell("#| export\nimport dull"),
        new_code_cell("#| hide_input\nunseen()", outputs=printed("seen")), new_code_cell("#| hide_output\nrun()", outputs=printed("silent")),
        new_code_cell("#| echo: false\nunheard()"), new_code_cell("#| output: false\nquiet()", outputs=printed("silent")),
        new_code_cell("#| code-fold: true\n# solution: forty-two\nx = 42", outputs=printed("42")))
    for word in ("secret", "gone", "dull", "unseen", "silent", "unheard", "#|"): assert word not in page
    for word in ("seen", "run()", "quiet()"): assert word in page
    assert '??? solution "Solution"\n\n    ```python\n    # solution: forty-two' in page and "\n    42" in page


def test_html_and_figures_are_kept_away_from_markdown(tmp_path):
    site, page = site_of(tmp_path, new_code_cell("table", outputs=[new_output("display_data", data={"text/html": "<div>\n\n<b>*raw*</b></div>"})]),
        new_code_cell("figure", outputs=[new_output("display_data", data={build_docs.PLOTLY: {"data": [], "layout": {"title": "</script>"}}, "text/html": "<i>"})]))
    table, figure = site.aside.values()
    assert table == "<div>\n\n<b>*raw*</b></div>" and "raw" not in page
    assert json.loads(figure.partition(">")[2].rpartition("</script>")[0])["layout"]["title"] == "</script>" and figure.count("</script>") == 1


def test_links_follow_the_files(tmp_path):
    _, page = site_of(tmp_path, new_markdown_cell("[a](00_core.rotation.ipynb#x) [b](../docs/honest-use.md) ![c](images/c.png) [d](../Makefile) [e](#here) `x[0](1)` $f[1](2)$"))
    assert "[a](00_core.rotation.md#x) [b](about/honest-use.md) ![c](images/c.png) d [e](#here) `x[0](1)` $f[1](2)$" in page
    same = lambda p: p
    assert relink("[![m](images/m.png)](01_core.camera.ipynb)", "nbs/index.ipynb", same) == "[![m](nbs/images/m.png)](nbs/01_core.camera.ipynb)"
    assert relink('<img width="9" src="images/m.png">', "nbs/index.ipynb", same) == '<img width="9" src="nbs/images/m.png">'
    assert lists("Say:\n* one\n  * two") == "Say:\n\n* one\n    * two"


def test_signatures_are_read_as_written():
    m = Module("a.b", '''__all__ = ['f', 'C']
def f(
    a:Float[Tensor, "h w"], b:Float[Tensor, "h w"], # Pictures
    *, mode:int|None=None, # Way, or none
    **kw,
)->Float[Tensor, ""]: # dB
    "Does. Raises `ValueError` if not."
class C:
    "Holds."
    x:int=3 # px
    @property
    def y(self)->int: # Twice, px
        "Double."
        return 2*self.x
''')
    f, c = m.public["f"], m.public["C"]
    assert m.parameters(f) == [(["a", "b"], 'Float[Tensor, "h w"]', "", "Pictures"), (["mode"], "int|None", "None", "Way, or none"),
                               (["**kw"], "", "", ""), (["returns"], 'Float[Tensor, ""]', "", "dB")]
    assert m.call(f, "f") == "f(a, b, mode=None, **kw)" and m.call(c, "C") == "C(x=3)"
    assert m.call(m.find("C.y"), "C.y") == "C.y" and m.parameters(m.find("C.y")) == [(["returns"], "int", "", "Twice, px")]
    assert "**Raises** `ValueError`" in m.words(f) and "int&#124;None" in m.table(f)


def test_readme_is_the_index_notebook():
    assert (ROOT/"README.md").read_text(encoding="utf-8") == build_docs.readme(), "run: python tools/build_docs.py --readme"


def test_readme_points_only_at_files_that_are_there():
    text = (ROOT/"README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s#]+)", text)+re.findall(r'\bsrc="([^"]+)"', text)
    missing = [t for t in targets if not re.match(r"[a-z]+:", t) and (t.startswith("/") or not (ROOT/t).exists())]
    assert targets and not missing, missing


def test_a_request_to_another_host_is_found(tmp_path):
    (tmp_path/"page.html").write_text('<a href="https://a.org">ok</a> <img src="data:image/png;base64,//8="> <script async src=//cdn.b.org/x.js></script>')
    (tmp_path/"site.css").write_text("@import 'https://fonts.c.org/x.css'; p { background: url('data:image/svg+xml,<svg xmlns=\"http://www.w3.org/2000/svg\">') }")
    assert build_docs.outside_requests(tmp_path) == ["page.html: //cdn.b.org/x.js", "site.css: https://fonts.c.org/x.css"]


def test_without_npm_formulas_stay_as_source(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_docs, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path/"assets").mkdir()
    assert build_docs.browser_libraries(tmp_path/"assets") is False
    assert "LaTeX source" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path/"assets").iterdir()) == ["plotly.min.js"] and not list((tmp_path/".cache").iterdir())


@pytest.mark.slow
def test_the_whole_site_builds_strictly_and_asks_nothing_of_the_network(tmp_path):
    pytest.importorskip("mkdocs", reason="the docs extra is not installed: make docs")
    site = build_docs.build(tmp_path/"site", tmp_path/"work")
    out = tmp_path/"site"
    for path in NBS: assert (out/path.relative_to(ROOT/"nbs").with_suffix(".html")).exists(), path.name
    for path in CHAPTERS:
        text = (out/f"{path.stem}.html").read_text(encoding="utf-8")
        assert "#| " not in text and "<h1" in text
    for m in site.modules.values():
        text = (out/"api"/f"{m.name}.html").read_text(encoding="utf-8")
        assert all(f'id="{name}"' in text for name in m.public), m.name
    assert build_docs.outside_requests(out) == []
    index = json.loads((out/"search"/"search_index.json").read_text(encoding="utf-8"))
    assert any("quaternion" in d["text"].lower() and d["location"].startswith("00_core.rotation.html") for d in index["docs"])
