"From Jupyter's Markdown to the dialect of mkdocs: links, callouts, lists, fences and folding boxes."
import os
import re
from pathlib import Path
from textwrap import indent

FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,}).*?^\1\2[ \t]*$", re.M | re.S)
# Code and maths are matched first, so that `x[0](1)` is no link.
LINK = re.compile(r"(`+[^`\n]*`+|\$[^$\n]+\$)|(!?\[(?:[^\[\]]|!?\[[^\]]*\](?:\([^)]*\))?)*\])\(([^)\s]+)([^)]*)\)")
SRC = re.compile(r'(<(?:img|video|source|audio)\b[^>]*?\b(?:src|poster)=")([^":]+)"')
ITEM = r"(?:[-*+]|\d+\.) "


def fence(body: str, kind: str = "python") -> str:
    "`body` between backticks, more of them than it has itself; `kind` is a language or `{ .classes }`."
    ticks = "`"*max(3, 1+max(map(len, re.findall(r"`+", body)), default=0))
    return f"{ticks}{' '*kind.startswith('{')}{kind}\n{body.rstrip()}\n{ticks}"


def block(kind: str, title: str, body: str, folded: bool = True) -> str:
    "A titled box that opens and closes."
    return f'???{"" if folded else "+"} {kind} "{title}"\n\n'+indent(body, "    ")+"\n"


def relink(text: str, place: str, target) -> str:
    "Point relative links of the file at `place` to `target(path in the repository)`; where that is None only the words stay."
    resolve = lambda path: target(Path(os.path.normpath(os.path.join(os.path.dirname(place), path))).as_posix())
    def one(m):
        code, words, url, rest = m.groups()
        if code: return code
        if words.startswith("[!["): words = "["+relink(words[1:-1], place, target)+"]"
        if re.match(r"[a-z]+:|#", url): return f"{words}({url}{rest})"
        path, hash_, anchor = url.partition("#")
        new = resolve(path)
        return f"{words}({new}{hash_}{anchor}{rest})" if new else words.lstrip("!")[1:-1]
    return SRC.sub(lambda m: f'{m[1]}{resolve(m[2]) or m[2]}"', LINK.sub(one, text))


def callouts(text: str) -> str:
    "Quarto's `::: {.callout-note}` and GitHub's `> [!NOTE]` as admonitions."
    def quarto(m):
        kind, options, body = m.groups()
        title = re.search(r'title="([^"]*)"', options) or re.match(r"\s*#+ +(.+)\n", body)
        if title and "title=" not in options: body = body.replace(title[0], "", 1)
        return f'!!! {kind} "{title[1] if title else kind.capitalize()}"\n\n'+indent(body.strip(), "    ")+"\n"
    def github(m): return f"!!! {m[1].lower()}\n\n"+indent(re.sub(r"^> ?", "", m[2], flags=re.M).strip(), "    ")+"\n"
    text = re.sub(r"^:{3,} *\{\.callout-(\w+)([^}]*)\}\n(.*?)^:{3,} *$", quarto, text, flags=re.M | re.S)
    return re.sub(r"^> \[!(\w+)\] *\n((?:>.*\n?)+)", github, text, flags=re.M)


def lists(text: str) -> str:
    "Lists as Jupyter reads them: no blank line needed before one, and two spaces nest."
    text = re.sub(rf"^((?!\s*{ITEM}|[ \t>|#]).+\n)(?={ITEM})", r"\1\n", text, flags=re.M)
    return re.sub(rf"^(?: {{2,3}}| {{6}})(?={ITEM})", lambda m: " "*(4 if len(m[0]) < 4 else 8), text, flags=re.M)


def outside_code(text: str, change) -> str:
    "Apply `change` to what lies between code fences."
    out, at = [], 0
    for m in FENCE.finditer(text):
        out += [change(text[at:m.start()]), m[0]]
        at = m.end()
    return "".join([*out, change(text[at:])])
