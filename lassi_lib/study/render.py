"""Pages a reader opens from the file system: one per notebook, and an index over them.

nbconvert's full template brings 260 KB of styles and links to four content networks, so only its bare
body is used, inside a page of our own: no script, no request, light and dark, readable on a phone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from lassi_lib.files import whole

MAX_BYTES = 2_000_000  # of one page


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a notebook may bring into its page. Of other tags only the text stays, of `_DROPPED` nothing: their
# content is read by rules of its own, in which text can turn into tags.
_TAGS = _words(
    "a abbr b blockquote br caption cite code col colgroup dd del details div dl dt em figcaption figure h1 h2 "
    "h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp section small span strong sub summary sup table "
    "tbody td tfoot th thead tr u ul var"
)
_DROPPED = _words(
    "script style iframe object embed noscript noembed noframes plaintext template textarea title xmp svg math "
    "select video audio link meta base frameset"
)
_ATTRIBUTES = _words(
    "alt align border class colspan dir headers height href id lang open role rowspan scope src start style "
    "tabindex title type valign width"
)
_LINKS, _IMAGES = ("http:", "https:", "mailto:"), ("data:image/png", "data:image/jpeg", "data:image/svg+xml")
# browsers are told so too: styles of the page's own, pictures within it or beside it, nothing else
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data: file: 'self'; form-action 'none'"
_PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
_COLOURS = {"supported": "good", "not supported": "bad", "failed": "bad"}
_FOLDER = {"table": "tables", "figure": "figures", "rows": "certificates"}  # of ll.save_...
_CSS = """
:root{--bg:#fff;--fg:#1f2328;--soft:#57606a;--line:#d0d7de;--box:#f6f8fa;--shade:#8c959f66;--link:#0550ae;
--good:#116329;--bad:#b3261e;--warn:#7d4e00;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--bg:#14171c;--fg:#e6e9ee;--soft:#a3acb8;--line:#3a424d;
--box:#1e232b;--shade:#0009;--link:#86b7ff;--good:#6fd18b;--bad:#ff938a;--warn:#e3b341}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:1rem/1.6 system-ui,sans-serif}
body>*{max-width:58rem;margin:0 auto;padding:0 1rem;overflow-wrap:anywhere}
a{color:var(--link)}:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-99rem}.skip:focus{position:static;display:block;padding:.5rem 1rem}
nav,footer{color:var(--soft);font-size:.875rem;padding-block:1rem}footer{border-top:1px solid var(--line)}
main:focus{outline:0}nav ul{margin:.3rem 0;padding-left:1.2rem}
h1,h2,h3{line-height:1.25;margin:1.6em 0 .5em}h1{font-size:1.8rem;margin-top:.6em}
img{max-width:100%;height:auto}figure{margin:1rem 0;overflow-x:auto}
figure img,.entries img{background:#fff;border-radius:6px;display:block}
pre,code{font:.85rem/1.5 ui-monospace,Menlo,Consolas,monospace}:not(pre)>code{background:var(--box)}
pre{margin:.5rem 0;white-space:pre-wrap;overflow-wrap:anywhere}
.highlight{background:var(--box);border-radius:6px}
.highlight pre{padding:.6rem}details{margin:.8rem 0}summary{cursor:pointer;color:var(--soft);font-size:.875rem}
.table{overflow-x:auto;margin:1rem 0;background-image:linear-gradient(to right,var(--bg) 30%,transparent),
linear-gradient(to left,var(--bg) 30%,transparent),linear-gradient(to right,var(--shade),transparent),
linear-gradient(to left,var(--shade),transparent);background-position:0 0,100% 0,0 0,100% 0;
background-repeat:no-repeat;background-size:2.5rem 100%,2.5rem 100%,.7rem 100%,.7rem 100%;
background-attachment:local,local,scroll,scroll}
table{border-collapse:collapse;font-size:.875rem}caption{text-align:left;color:var(--soft);padding:.2rem 0}
td.short{white-space:nowrap}td.long{min-width:min(18rem,60vw)}tbody th{font-weight:400}thead th{vertical-align:bottom}
th,td{vertical-align:top;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);overflow-wrap:normal;text-align:left}
blockquote{margin:1rem 0;padding:.1rem 1rem;border-left:4px solid var(--line);color:var(--soft)}
.output_stderr,.output_error{border-left:4px solid var(--line);padding-left:.8rem}
.alert{border:2px solid var(--bad);padding:.6rem 1rem}.alert,.output_error{border-color:var(--bad)}
.bad{color:var(--bad);font-weight:600}.good{color:var(--good);font-weight:600}.soft{color:var(--soft)}
.warn{color:var(--warn)}.files{color:var(--soft);font-size:.875rem;margin:.3rem 0}
.entries{list-style:none;padding:0}
.entries>li{display:flex;gap:1.2rem;padding:1.2rem 0;border-top:1px solid var(--line)}
.entries>.failed{border-left:6px solid var(--bad);padding-left:1rem}
.entries>li>img,.entries>li>a{flex:none;width:15rem;align-self:flex-start}.entries h2,.entries h3{margin:0 0 .3rem;font-size:1.15rem}
.entries p,.entries details{margin:.3rem 0}.entries div{min-width:0}.entries ul{margin:.3rem 0;padding-left:1.2rem}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.2rem 1.2rem;font-size:.875rem}
dt{color:var(--soft)}dd{margin:0}
.verdict{background:var(--box);border-radius:6px;padding:.6rem 1rem}
@media (max-width:40rem){figure::after{content:"Wide figure: scrolls sideways";position:sticky;left:0;
color:var(--soft);font-size:.8rem}.entries>li{flex-direction:column-reverse}.entries>li>img,.entries>li>a{width:100%}
figure img{max-width:44rem}}
"""


@dataclass(frozen=True)
class IndexEntry:
    """What the index says about one notebook; paths are relative to the index."""

    name: str  # 'NN_question'
    title: str  # its first heading
    ok: bool  # if it failed, its page is NN_question.failed.html and `error` says why
    minutes: float  # of wall-clock time
    error: str = ""
    outcome: str = ""  # the verdict in a word or two ('supported')
    text: str = ""  # and in a sentence
    picture: str = ""
    alt: str = ""  # what the picture shows
    artefacts: tuple[str, ...] = ()  # files it declares; those in tables/ and certificates/ are offered
    stale: str = ""  # why its results are not of the present code and settings
    made: str = ""  # what made it, in a line
    before: dict[str, Any] = field(default_factory=dict)  # what the replaced run said (`changes.previous`)


def title_of(path: str | Path) -> str:
    """Return the first heading of a notebook, or its file name."""
    import nbformat

    return _title(nbformat.read(path, as_version=4), Path(path))


def to_html(
    ipynb: str | Path, html: str | Path, *, note: str = "", verdict: tuple[str, str] = ("", "")
) -> list[str]:
    """Render an executed notebook as a page that needs neither network nor scripts.

    ``X.html`` replaces an older ``X.failed.html``, and the reverse. `note` is a line of provenance for the
    foot of the page; `verdict` (outcome, sentence) stands below its title, since a page is long. Returns
    warnings, one line each; none if the page keeps its limit of 2 MB.
    """
    import nbformat
    from bs4 import BeautifulSoup
    from nbconvert import HTMLExporter

    ipynb, html = Path(ipynb), Path(html)
    notebook = nbformat.read(ipynb, as_version=4)
    title, error = _title(notebook, ipynb), notebook.metadata.get("lassi", {}).get("error", "")
    notebook.metadata.pop("widgets", None)
    notebook.cells = [cell for cell in notebook.cells if "failure" not in cell.metadata.get("tags", ())]
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            _picture_to_html(output)
    options = {f"exclude_{part}": True for part in ("input_prompt", "output_prompt", "anchor_links")}
    exporter = HTMLExporter(template_name="basic", **options)
    soup = BeautifulSoup(exporter.from_notebook_node(notebook)[0], "html.parser")
    _make_inert(soup)
    _offer_files(soup, html.parent)
    _make_accessible(soup, title)
    _fold_code(soup)
    alert = f'<p class="alert" role="alert"><b class="bad">This notebook failed.</b> {escape(error)}</p>'
    sections = ""
    for number, heading in enumerate(soup.find_all("h2"), 1):
        heading["id"] = f"part{number}"
        sections += f'<li><a href="#part{number}">{escape(heading.get_text())}</a></li>'
    if verdict[0] and not error and soup.h1:
        soup.h1.insert_after(BeautifulSoup(_verdict(soup, *verdict), "html.parser"))
    nav = link("index.html", "← All notebooks")
    nav += f"<details><summary>On this page</summary><ul>{sections}</ul></details>" * bool(sections)
    foot = f"{link(ipynb.name, ipynb.name)}. {escape(note)}"
    write_page(html, page(title, f"{alert if error else ''}{soup}", nav=nav, foot=foot))
    stem = html.stem.removesuffix(".failed")
    html.with_name(f"{stem}.failed.html" if html.stem == stem else f"{stem}.html").unlink(missing_ok=True)
    size = html.stat().st_size
    return [f"{html.name} has {size / 1e6:.1f} MB, more than 2: show fewer or smaller pictures"] * (
        size > MAX_BYTES
    )


def _verdict(soup: Any, outcome: str, text: str) -> str:
    """Return what a page found, with the way to the section that judges."""
    judged = next((h for h in soup.find_all("h2") if h.get_text() == "Verdict"), None)
    way = f' <a href="#{judged["id"]}">How it was judged</a>' if judged else ""
    return f'<p class="verdict">This run: {coloured(outcome)}. {escape(text)}{way}</p>'


def coloured(outcome: str) -> str:
    """Return an outcome in the colour that says how it stands with the statement."""
    return f'<b class="{_COLOURS.get(outcome, "")}">{escape(outcome)}</b>'


def write_index(
    folder: str | Path, entries: Sequence[IndexEntry], run_info: dict[str, str], up: str = ""
) -> Path:
    """Write folder/index.html over the pages of a run, results/<profile>.

    `run_info` holds 'profile' and 'first_line' (one honest sentence on what this run is evidence for), then
    any further facts to list; `up` is where the overview over all profiles is, if there is one.
    """
    folder, title = Path(folder), f"LASSI study: {run_info['profile']}"
    facts = {k: v for k, v in run_info.items() if k not in ("profile", "first_line")}
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    glance = [
        [
            f'<a href="#n{escape(quote(e.name))}">{escape(e.title)}</a>',
            _status(e) + ', <span class="warn">stale</span>' * bool(e.stale),
            coloured(e.outcome) if e.ok else "",
            f"{e.minutes:.1f}",
        ]
        for e in entries
    ]
    main = (
        f"<h1>{escape(title)}</h1><p>{escape(run_info['first_line'])}</p>"
        f"{table('Notebooks of this profile', ['notebook', 'status', 'verdict', 'minutes of the notebook alone'], glance)}"
        f'<ol class="entries">{"".join(_entry(folder, entry) for entry in entries)}</ol>'
        f"<h2>This run</h2><dl>{listed}</dl>"
        '<p><a href="run.json">run.json</a>: all parameters and versions that made these results</p>'
    )
    nav = link(up, "← All profiles") if up else ""
    write_page(folder / "index.html", page(title, main, nav=nav))
    return folder / "index.html"


def _status(entry: IndexEntry) -> str:
    return '<b class="good">ok</b>' if entry.ok else '<b class="bad">failed</b>'


def _entry(folder: Path, entry: IndexEntry) -> str:
    """Return one notebook's entry: page, status, verdict, what changed, picture, and its files."""
    stem = f"{entry.name}{'' if entry.ok else '.failed'}"
    text = f"<h2>{link(f'{stem}.html', entry.title)}</h2>"
    text += f'<p class="soft">{_status(entry)}, {entry.minutes:.1f} minutes, {link(f"{stem}.ipynb", "notebook")}</p>'
    if entry.stale:
        text += f'<p class="warn"><b>stale</b>: {escape(entry.stale)}</p>'
    if entry.error:
        text += f'<p class="bad">{escape(entry.error)}</p>'
    if entry.outcome or entry.text:
        text += f"<p>{coloured(entry.outcome)} {escape(entry.text)}</p>"
    text += _changes(entry.before) + _downloads(folder, entry)
    if entry.made:
        text += f"<details><summary>How it was made</summary><p>{escape(entry.made)}</p></details>"
    shown = ""
    if entry.ok and entry.picture and (folder / entry.picture).is_file():
        large = picture(entry.picture, entry.alt or f"A figure of: {entry.title}")
        shown = f'<a href="{escape(quote(entry.picture))}">{large}</a>'
    failed = "" if entry.ok else ' class="failed"'
    return f'<li id="n{escape(entry.name)}"{failed}>{shown}<div>{text}</div></li>'


def _downloads(folder: Path, entry: IndexEntry) -> str:
    """Return links to a notebook's tables (csv, md, tex) and certificates, folded."""
    lines = []
    for file in map(PurePosixPath, entry.artefacts if entry.ok else ()):
        if file.parts[0] in ("tables", "certificates"):
            lines.append(_links(folder, file.parts[0], file.name.partition(".")[0]))
    listed = "".join(f"<li>{line}</li>" for line in lines if line)
    return f"<details><summary>Tables and rows</summary><ul>{listed}</ul></details>" * bool(listed)


def _links(folder: Path, kind: str, name: str) -> str:
    """Return 'NAME: csv, md, tex' with a link to each of these files that is there, or ''."""
    endings = {"tables": ("csv", "md", "tex"), "certificates": ("csv.gz",), "figures": ("png", "svg")}[kind]
    there = [e for e in endings if (folder / kind / f"{name}.{e}").is_file()]
    return f"{escape(name)}: {', '.join(link(f'{kind}/{name}.{e}', e) for e in there)}" if there else ""


def _changes(before: dict[str, Any]) -> str:
    """Return what the replaced run said, beside what this one says, folded."""
    if not before:
        return ""
    said = [before.get("outcome", ""), before.get("verdict", "")] if before["status"] == "ok" else ["failed"]
    text = f"<p>Commit {escape(before['commit'])} ({escape(before['started'][:10])}): {escape(' '.join(said))}</p>"
    cells = [[escape(c[k]) for k in ("table", "row", "column", "before", "now")] for c in before["listed"]]
    if cells:
        text += table("Changed cells", ["table", "row", "column", "before", "now"], cells)
    if before["cells"] > len(cells):
        text += f"<p>and {before['cells'] - len(cells)} further cells</p>"
    summary = f"Differs from an earlier run: {before['cells']} cells"
    return f"<details><summary>{summary}</summary>{text}</details>"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in a box that scrolls by itself; cells are HTML, the first of a row is its header."""
    columns = "".join(f'<th scope="col">{h}</th>' if h else "<td></td>" for h in head)
    lines = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def link(path: str, text: str) -> str:
    """Return a link to a file of the results."""
    return f'<a href="{escape(quote(path))}">{escape(text)}</a>'


def picture(path: str, alt: str) -> str:
    """Return a picture of the results with its alt text."""
    return f'<img src="{escape(quote(path))}" alt="{escape(alt)}">'


def _title(notebook: Any, path: Path) -> str:
    for cell in notebook.cells:
        heading = re.search(r"^#+ +(.+?)\s*#*$", cell.source, re.MULTILINE)
        if cell.cell_type == "markdown" and heading:
            return re.sub(r"[*`]", "", heading[1])
    return path.stem


def _picture_to_html(output: Any) -> None:
    """Turn a picture output into an `<img>` with the figure's own alt text; drop widgets and scripts."""
    data = output.get("data", {})
    for kind in [k for k in data if "javascript" in k or "widget" in k]:
        del data[kind]
    kind = next((k for k in _PICTURES if k in data), None)
    if kind:
        # An SVG goes into an <img> as well: nothing in it runs, and its ids meet no other figure's.
        if kind == "image/svg+xml":  # as text: a quarter less than in base64
            code = "," + quote(" ".join(data[kind].split()), safe=" /:;=,+()@!$*?'")
        else:
            code = ";base64," + "".join(data[kind].split())
        alt = output.metadata.get("alt") or output.metadata.get(kind, {}).get("alt", "")
        picture = f'<figure><img src="data:{kind}{escape(code)}" alt="{escape(alt)}"></figure>'
        output.data = {"text/html": picture}


def _make_inert(soup: Any) -> None:
    """Keep what is known to be harmless: nothing runs, nothing is loaded from outside; plain links stay."""
    from bs4.element import PreformattedString

    for hidden in soup.find_all(string=lambda text: isinstance(text, PreformattedString)):
        hidden.extract()  # comments and declarations: a browser may end them earlier than we do
    for tag in soup.find_all(True):
        if tag.decomposed:
            continue
        if tag.name in _DROPPED:
            tag.decompose()
        elif tag.name not in _TAGS:
            tag.unwrap()
        else:
            tag.attrs = {k: v for k, v in tag.attrs.items() if _harmless(tag.name, k, v)}


def _harmless(tag: str, name: str, value: Any) -> bool:
    """Whether an attribute may stay: known, and neither an address nor a style that could run or load."""
    if name == "style":
        return re.fullmatch(r"[\w\s:;.%#,-]*", str(value)) is not None
    if name not in ("href", "src"):
        return name in _ATTRIBUTES or name.startswith("aria-")
    text = re.sub(r"[\x00-\x20]", "", str(value)).replace("\\", "/").lower()  # as browsers read it
    if re.match(r"[^/?#]*:", text):
        return text.startswith(_LINKS if tag == "a" else _IMAGES)
    return tag == "a" or not text.startswith("/")


def _offer_files(soup: Any, folder: Path) -> None:
    """Put links below every code cell to the tables, figures and rows that it saves and that are there."""
    from bs4 import BeautifulSoup

    for cell in soup.select(".code_cell"):
        found = [_links(folder, _FOLDER[what], name) for what, name in _saves(cell)]
        if line := "; ".join(filter(None, found)):
            cell.append(BeautifulSoup(f'<p class="files">{line}</p>', "html.parser"))


def _saves(cell: Any) -> list[tuple[str, str]]:
    """Return what a code cell saves: table, figure or rows, and under which name."""
    code = cell.select_one(".input")
    saved = re.findall(r'save_(table|figure|rows)\(.*?"(\d\d_\w+)"', code.get_text() if code else "", re.S)
    return list(dict.fromkeys(saved))


def _saved_as(table: Any) -> str:
    """Return ': NAME' if its cell saves one table, so that the tables of a section can be told apart."""
    cell = table.find_parent(class_="code_cell")
    names = [name for what, name in _saves(cell) if what == "table"] if cell else []
    return f": {names[0].partition('_')[2].replace('_', ' ')}" if len(names) == 1 else ""


def _make_accessible(soup: Any, title: str) -> None:
    """Give every picture a text, every table a caption, headers and its own scrolling."""
    for picture in soup.find_all("img"):
        if not picture.get("src"):  # it was to be loaded from outside
            picture.decompose()
        elif picture.get("alt", "").strip() in ("", "No description has been provided for this image"):
            picture["alt"] = f"Figure: {_heading(picture, title)}"
    for figure in soup.find_all("figure"):
        figure["tabindex"] = "0"  # on a small screen it scrolls
    tables, captions = soup.find_all("table"), []
    headings = [_heading(table, title) for table in tables]
    for table, heading in zip(tables, headings, strict=True):
        del table["border"]
        _drop_empty_index(table)
        for header in table.find_all("th"):
            if not header.get_text().strip():
                header.name = "td"  # an empty header would say nothing
                continue
            header["scope"] = "col" if header.find_parent("thead") else "row"
        for cell in table.find_all("td"):  # numbers with their intervals stay on one line
            size = len(cell.get_text())
            if size <= 24 or size > 60:  # long ones need some width
                cell["class"] = "short" if size <= 24 else "long"
        captions.append(heading + (_saved_as(table) if headings.count(heading) > 1 else ""))
        count = captions.count(captions[-1])  # no two of a page are called the same
        heading = captions[-1] + f" ({count})" * (count > 1)
        if not table.caption:
            caption = soup.new_tag("caption")
            caption.string = heading
            table.insert(0, caption)
        region = {"class": "table", "tabindex": "0", "role": "region", "aria-label": f"Table: {heading}"}
        table.wrap(soup.new_tag("div", attrs=region))


def _heading(tag: Any, title: str) -> str:
    heading = tag.find_previous(["h1", "h2", "h3", "h4"])
    return heading.get_text() if heading else title


def _drop_empty_index(table: Any) -> None:
    """Remove the blank column that pandas writes for an index without names; the next one heads the rows."""
    rows = table.find_all("tr")
    first = [row.find(["th", "td"]) for row in rows]
    if any(cell is None or cell.get_text().strip() for cell in first):
        return
    for row, cell in zip(rows, first, strict=True):
        cell.decompose()
        if head := row.find(["th", "td"]):
            head.name = "th"


def _fold_code(soup: Any) -> None:
    """Put every code cell in a fold, open if it is short; the run's parameters and long code closed."""
    for cell in soup.select(".code_cell > .input"):
        lines = cell.get_text().strip().count("\n") + 1
        injected = "celltag_injected-parameters" in cell.parent["class"]
        summary = soup.new_tag("summary")
        summary.string = "Parameters of this run" if injected else f"Code, {lines} line{'s' * (lines > 1)}"
        cell.wrap(soup.new_tag("details", attrs={} if lines > 12 or injected else {"open": ""}))
        cell.insert_before(summary)


def page(title: str, main: str, *, nav: str = "", foot: str = "") -> str:
    """Return a whole page: styles within, no scripts, landmarks and a way past the navigation."""
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in ("default", "github-dark"))
    css = f"{light}\n@media (prefers-color-scheme:dark){{{dark}}}\n{_CSS}"
    way = (
        f'<a class="skip" href="#main">Skip to the content</a><nav aria-label="Study">{nav}</nav>'
        if nav
        else ""
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head>\n"
        f'<body>{way}<main id="main" tabindex="-1">{main}</main>{f"<footer>{foot}</footer>" if foot else ""}'
        "</body></html>\n"
    )


def write_page(path: Path, text: str) -> None:
    """Write a page, the whole of it or nothing."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")
