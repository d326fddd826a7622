"""What can be said against a page without opening a browser: for tests of pages, wherever they come from."""

import re
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup

from lassi_lib.study.render import MAX_BYTES

LOADING = ("src", "srcset", "data", "poster", "background", "xlink:href")


def complaints(path: Path) -> list[str]:
    """Return what is wrong with a page and its links, one line each."""
    found = complaints_of_text(path.read_text(encoding="utf-8"), path.parent)
    if path.stat().st_size >= MAX_BYTES:
        found.append(f"{path.stat().st_size / 1e6:.1f} MB")
    return [f"{path.name}: {line}" for line in found]


def complaints_of_text(text: str, folder: Path | None = None) -> list[str]:
    soup = BeautifulSoup(text, "html.parser")
    found = [
        f"<{tag.name}>" for tag in soup.find_all(["script", "link", "iframe", "object", "embed", "base"])
    ]
    found += ["style loads something"] * bool(re.search(r"@import|url\(", str(soup.style)))
    if not (soup.html.get("lang") and soup.title.text and soup.find("meta", attrs={"name": "viewport"})):
        found.append("language, title or viewport is missing")
    found += [
        f"{len(soup.find_all(name))} <{name}>" for name in ("main", "h1") if len(soup.find_all(name)) != 1
    ]
    levels = [int(h.name[1]) for h in soup.find_all(re.compile(r"h[1-6]$"))]
    found += ["headings skip a level"] * any(b > a + 1 for a, b in zip([0, *levels], levels, strict=False))
    ids = [tag["id"] for tag in soup.find_all(id=True)]
    found += [f"id {i} twice" for i in set(ids) if ids.count(i) > 1]
    for tag in soup.find_all(True):
        outside = [n for n in LOADING if re.match(r"\s*([a-z]+:)?//", str(tag.get(n, "")))]
        found += [f"<{tag.name}> loads {tag[n][:80]}" for n in outside]
        found += [f"{name} of <{tag.name}>" for name in tag.attrs if name.startswith("on")]
    found += [
        f"picture without text: {str(i)[:80]}" for i in soup.find_all("img") if not i.get("alt", "").strip()
    ]
    for table in soup.find_all("table"):
        found += ["table without caption"] * (not table.caption)
        found += ["table that does not scroll by itself"] * ("table" not in table.parent.get("class", ()))
        found += [
            f"header without scope or text: {h}"
            for h in table.find_all("th")
            if not (h.get("scope") and h.text.strip())
        ]
    for link in soup.find_all("a"):
        href, words = link.get("href", ""), link.text.strip() or (link.img and link.img.get("alt"))
        found += [f"link without words: {href}"] * (not words)
        if href.startswith("#"):
            found += [f"link to nowhere: {href}"] * (href[1:] not in ids)
        elif folder and not re.match(r"[a-z]+:", href):
            found += [f"dead link: {href}"] * (not (folder / unquote(href).partition("#")[0]).is_file())
    for cell in soup.select(".code_cell .input, pre, code"):
        cell.decompose()
    found += [f"TeX: {t[:60]}" for t in re.findall(r"\$[^$\n]+\$|\\[(\[].+?\\[)\]]", soup.main.get_text())]
    return found
