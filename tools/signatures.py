"What an exported module promises, read from its source without importing it: calls, docments as tables, docstrings."
import ast
import html
import io
import re
import tokenize
from textwrap import dedent

from dialect import block, fence

Def, Callable = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef), (ast.FunctionDef, ast.AsyncFunctionDef)
HEAD = ("parameter", "type, shape", "default", "meaning, unit")


class Module:
    "An exported module and its public definitions, in the order of its chapter."
    def __init__(self, name: str, text: str):
        self.name, self.text, self.lines = name, text, text.splitlines()
        tree = ast.parse(text)
        self.doc = ast.get_docstring(tree) or ""
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        self.comments = {t.start[0]: t.string.lstrip("# ").rstrip() for t in tokens if t.type == tokenize.COMMENT}
        defined = {}
        for node in tree.body:
            if isinstance(node, Def): defined[node.name] = node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                for target in getattr(node, "targets", None) or [node.target]:
                    defined |= {t.id: node for t in ast.walk(target) if isinstance(t, ast.Name)}
        names = ast.literal_eval(defined["__all__"].value) if "__all__" in defined else []
        self.public = {k: v for k, v in defined.items() if k in names}

    def find(self, name: str):
        "The definition of `slerp` or `Camera.scaled`, or None."
        top = self.public.get(name.split(".")[0])
        return self.methods(top).get(name) if "." in name else top

    def methods(self, node) -> dict:
        "Public methods of a class by their full names."
        body = node.body if isinstance(node, ast.ClassDef) else []
        return {f"{node.name}.{f.name}": f for f in body if isinstance(f, Callable) and not f.name.startswith("_")}

    def source(self, node) -> str:
        first = min([node.lineno, *[d.lineno for d in getattr(node, "decorator_list", [])]])
        return dedent("\n".join(self.lines[first-1:node.end_lineno]))

    def _code(self, node) -> str: return " ".join((ast.get_source_segment(self.text, node) or "").split()) if node else ""

    def parameters(self, node) -> list[tuple]:
        """(names, type, default, comment) of each parameter or field; last, of the result.

        Neighbours that share a line and a type share a row. The comment after `)->` speaks of the result alone."""
        if isinstance(node, ast.ClassDef):
            init = next((f for f in node.body if isinstance(f, Callable) and f.name == "__init__"), None)
            if init: return self.parameters(init)
            rows = [(n.target.id, n.annotation, n.value, n.end_lineno) for n in node.body if isinstance(n, ast.AnnAssign)]
        else:
            a = node.args
            plain = a.posonlyargs+a.args
            args = [("", p, d) for p, d in zip(plain, [None]*(len(plain)-len(a.defaults))+a.defaults)] + [("*", a.vararg, None)]
            args += [("", p, d) for p, d in zip(a.kwonlyargs, a.kw_defaults)] + [("**", a.kwarg, None)]
            rows = [(star+p.arg, p.annotation, d, (d or p).end_lineno) for star, p, d in args if p and p.arg not in ("self", "cls")]
            closing = [i for i in range(node.lineno, node.body[0].lineno) if self.lines[i-1].lstrip().startswith(")") and i in self.comments]
            if node.returns or closing: rows.append(("returns", node.returns, None, node.returns.end_lineno if node.returns else closing[0]))
        last, out = {line: name for name, _, _, line in rows}, []
        for name, kind, default, line in rows:
            comment = self.comments.get(line, "") if last[line] != "returns" or name == "returns" else ""
            row = ([name], self._code(kind), self._code(default), comment, line)
            if out and name != "returns" and not default and not out[-1][2] and (out[-1][1], out[-1][4]) == (row[1], line): out[-1][0].append(name)
            else: out.append(row)
        return [row[:4] for row in out]

    def call(self, node, name: str) -> str:
        "How it is called, without types: `slerp(a, b, t)`."
        property_ = any("property" in self._code(d) for d in getattr(node, "decorator_list", []))
        bare = isinstance(node, ast.ClassDef) and not self.parameters(node)
        if not isinstance(node, Def) or property_ or bare: return name
        return f"{name}({', '.join(n+('='+d if d else '') for names, _, d, _ in self.parameters(node) for n in names if n != 'returns')})"

    def table(self, node) -> str:
        "Parameters with shapes and units; columns that would be empty are left out."
        rows = [r for r in self.parameters(node) if r[1] or r[3]] if isinstance(node, Def) else []
        if not rows: return ""
        parts = lambda s: re.split(r"(?<=[|,])", s) if len(s) > 34 else [s]     # A shape stays on one line, a union may break
        code = lambda s: f"<code>{'<wbr>'.join(html.escape(p, quote=False) for p in parts(s)).replace(' ', '&nbsp;')}</code>" if s else ""
        cells = [("*returns*" if r[0] == ["returns"] else ", ".join(map(code, r[0])), code(r[1]), code(r[2]), r[3]) for r in rows]
        some = [i for i in range(4) if any(r[i] for r in cells)]
        lines = [[r[i].replace("|", "&#124;") for i in some] for r in (HEAD, *cells)]
        return "\n".join("| "+" | ".join(line)+" |" for line in [lines[0], ["---"]*len(some), *lines[1:]])

    def words(self, node) -> str:
        "The docstring; of a value, the comment beside it."
        text = ast.get_docstring(node) or "" if isinstance(node, Def) else self.comments.get(node.end_lineno, "")
        return re.sub(r"\s*\bSource:", "\n\n**Source.**", re.sub(r"\bRaises (?=`)", "**Raises** ", text))

    def page(self, title: str, url: str) -> str:
        "The module's API page; `title` and `url` are its chapter's."
        out = [f"# {self.name}", self.doc+"\n{ .lead }" if self.doc else "", f"Explained in [{title}]({url}).\n{{ .nb-meta }}"]
        if self.public: out.append(fence(f"from talkinglab.{self.name} import {', '.join(self.public)}"))
        for name, node in self.public.items():
            for full, n in {name: node, **self.methods(node)}.items():
                level, kind = ("###", "method") if "." in full else ("##", "class" if isinstance(n, ast.ClassDef) else "function" if isinstance(n, Def) else "value")
                out += [f"{level} {full.split('.')[-1]} {{ #{full} .api-{kind} }}", fence(self.call(n, full), "{ .python .api-call }"), self.words(n), self.table(n)]
            out.append(block("source", "Source", fence(self.source(node))))
        return "\n\n".join(filter(None, out))+"\n"
