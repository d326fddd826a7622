"""One page over all profiles: what was published, what each run of ours found, and how sure that is.

It is made from what the runs left behind (run.json, verdicts/, tables/) and from published_results.csv;
nothing is computed for it, so ``python run_all.py --overview`` takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study.params import notebooks_of, profiles
from lassi_lib.study.published import PAPERS, published
from lassi_lib.study.questions import JUDGED, SENTENCES, titles
from lassi_lib.study.record import read_json, stale
from lassi_lib.study.render import coloured, link, page, picture, table, write_page
from lassi_lib.study.tables import markdown, present, span
from lassi_lib.study.verdicts import OUTCOMES, without_room

ORDER = ("demo", "celeba20k", "fairface", "shapes3d", "celeba", "celeba128")  # of profiles; then others
ABOUT = {  # what a finding of the audit is about
    "number": "printed numbers cannot be, or are contradicted by another printed number or by the official labels:",
    "comparison": "numbers of the reproduction are farther from the original's than it says, or than its seeds allow:",
    "meaning": "numbers say less than they seem to:",
}
CLAIM_1 = {  # columns of tables/01_verdict.csv, as shown -> their names in the table over all profiles
    "task": "task",
    "sensitive": "sensitive",
    "seeds": "seeds",
    "certified fairness": "certified LASSI",
    "certified fairness baseline": "Naive",
    "fairness gain": "gain",
    "accuracy loss": "accuracy loss",
    "constant would do": "constant would do",
    "outcome": "outcome",
    "outcome these models": "as trained",
}
_LEGEND = (
    '<p class="soft">A verdict follows from its table by a rule that was fixed before the run, and counts '
    "that other training seeds (or another make of processor) would have given other models: with two or three seeds little can be shown "
    "but a large and steady effect, and with one nothing, hence <b>inconclusive</b>. (On celeba20k claim 1's third seed was "
    "added after two had left eight pairs inconclusive, its pairs with Heavy_Makeup last; no bound allows for such second looks.) <b>As trained</b> counts the "
    "pairs that fulfil the rule, on average over the seeds, when the models are taken as they are and only the test faces vary. <b>From print</b>: LASSI's certified fairness here minus the published one, on the same data set. <b>Stale</b>: code "
    "or settings have changed since the run. <b>Not asked here</b>: the profile has no such notebook; <b>not "
    "run</b>: it has one, without a result.</p>"
)


# ---- what we found --------------------------------------------------------------------------------


_OF_THESE_MODELS = ("06", "11")  # their verdicts speak of the trained models, so seeds have no say
_OF_PRINT = ("10",)  # what they judge are the papers' numbers, the same in every profile
_RENDERED = "by experiments on rendered faces"


@dataclass(frozen=True)
class Finding:
    """What one profile says on one question; without `href` the outcome says why there is nothing."""

    profile: str
    outcome: str
    text: str = ""
    held: tuple[str, ...] = ()
    minutes: float = 0.0
    href: str = ""
    image: str = ""
    alt: str = ""
    stale: str = ""


def finding(folder: Path, number: str) -> Finding:
    """Read what results/<profile> says on the question of one notebook."""
    profile, run = folder.name, read_json(folder / "run.json")
    name = next((n for n in run.get("notebooks", {}) if n.startswith(f"{number}_")), "")
    if not name:
        asked = profile not in profiles() or any(n.startswith(f"{number}_") for n in notebooks_of(profile))
        return Finding(profile, "not run" if asked else "not asked here")
    entry = run["notebooks"][name]
    minutes = float(entry.get("minutes", 0))
    if entry.get("status") != "ok":
        return Finding(profile, "failed", entry.get("error", ""), (), minutes, f"{name}.failed.html")
    said = {"text": entry.get("verdict", "")} | entry | read_json(folder / "verdicts" / f"{name}.json")
    given = entry.get("parameters", {})
    fair = "alike" if number == "07" else "certified"
    held, numbers = _numbers(
        folder / "tables" / f"{number}_verdict.csv", fair, given.get("min_fairness_gain", 0.0)
    )
    if number == "08":
        held = _of_step(folder / "tables" / "08_steps.csv", given.get("step", ()))
    if number == "12":
        held = _of_lengths(folder / "tables")
    short, long = _beside_print(folder / "tables", number, given.get("confidence", 0.95))
    held, numbers = (*held[:1], *short, *held[1:]), f"{numbers} {long}"
    single = len(given.get("seeds", ())) == 1 and number not in _OF_THESE_MODELS
    if single and not any("one seed" in h for h in held):
        held = (*held, "one seed")
    return Finding(
        profile,
        said.get("outcome") or "no verdict",
        f"{said['text']} {numbers}".strip(),
        held,
        minutes,
        f"{name}.html",
        said.get("picture", ""),
        said.get("alt", ""),
        stale(folder, name, run),
    )


def _numbers(path: Path, fair: str, asked: float) -> tuple[tuple[str, ...], str]:
    """Return what a table of judged pairs comes to, for a glance and as a sentence: rates, how many hold.

    `asked` is the gain that the rule asks for (`without_room`).
    """
    try:
        t = pd.read_csv(path)
        if "by experiment" in t:
            decided = t[t["outcome"] != "inconclusive"]
            rendered = len(decided) and (decided["by regression"] == "inconclusive").all()
            return ((_RENDERED,) if rendered else ()), ""
        if "kept_fair" in t:  # ground truth
            kept = f"{span(t['kept_fair'].dropna())} % of certified answers kept"
            return (kept, f"supported: {_counted(t, 'outcome')}"), ""
        as_trained = f"as trained: {_counted(t, 'outcome_these_models')}"
        if "certified_fairness" not in t:  # base classifiers: nothing is certified
            return (as_trained,), ""
        rates = []
        for word, column in ((fair, "certified_fairness"), ("accurate", "accuracy")):
            base = f" (Naive {span(t[f'{column}_baseline'])})" if f"{column}_baseline" in t else ""
            rates.append(f"{span(t[column])} % {word}{base}")
        single = (t["n_seeds"] == 1).sum()
        held = [f"supported: {_counted(t, 'outcome')}"] if single < len(t) else []
        held += [as_trained]
        full = len(without_room(t, asked)) if "certified_fairness_baseline" in t else 0
        held += [f"no room for the gain: {_pairs(full)}"] if full else []
        held += [f"one seed: {_pairs(single)}"] if 0 < single < len(t) else []
        seeds = "1 seed" if single == len(t) else f"{span(t['n_seeds'], 0)} seeds"
        size = f"{seeds}, {span(t['n_points'], 0)} test images"
    except (OSError, ValueError, KeyError, TypeError):  # no such table, or one of another kind
        return (), ""
    text = f"{', '.join(rates)}; {'; '.join(held)}; {size}."
    if "constant_would_do" in t and t["constant_would_do"].any():
        text += f" In {_pairs(t['constant_would_do'].sum())} LASSI is not shown to be more accurate than a constant classifier."
    return (rates[0], *held), text


def _of_step(path: Path, step: Sequence[float]) -> tuple[str, ...]:
    """Say what the judged step of lambda_2 brings the models as trained, and which step is the steepest."""
    try:
        t = pd.read_csv(path)
        here = t[(t["from"] == step[0]) & (t["to"] == step[1])]
        steepest = t.loc[t.groupby(["task", "sensitive"])["gain per doubling"].idxmax()]
        where = {f"{a:g} to {b:g}" for a, b in zip(steepest["from"], steepest["to"], strict=True)}
    except (OSError, ValueError, KeyError, IndexError):
        return ()
    held = f"as trained: {_counted(here, 'jumps_these_models')}"
    gain = f"{span(here['fairness_gain'])} points from {step[0]:g} to {step[1]:g}"
    return held, gain, f"steepest from {', '.join(sorted(where))}"


def _of_lengths(tables: Path) -> tuple[str, ...]:
    """Say what the longest training, kept at its last epoch, brings, and what claim 1 comes to after it."""
    try:
        t, equal = (pd.read_csv(tables / f"12_{name}.csv") for name in ("verdict", "claim1"))
        held = [f"{t['fairness_gain'].min():+.1f} to {t['fairness_gain'].max():+.1f} points certified"]
        single = (t["n_seeds"] == 1).sum()
        held += [f"supported: {_counted(t, 'outcome')}"] if single < len(t) else []
        held += [f"as trained: {_counted(t, 'outcome_these_models')}"]
        held += ["one seed" if single == len(t) else f"one seed: {_pairs(single)}"] if single else []
        rates = [span(equal[name]) for name in ("certified_fairness", "certified_fairness_baseline")]
        held += ["claim 1 after it: {} % certified (Naive {})".format(*rates)]
        held += [f"supported: {_counted(equal, 'outcome')}"]
        return (*held, f"as trained: {_counted(equal, 'outcome_these_models')}")
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _beside_print(tables: Path, number: str, confidence: float) -> tuple[tuple[str, ...], str]:
    """Return how LASSI's certified fairness differs from print on the published data set, short and in full.

    Of the pairs that are judged: a page may show others beside them. Without such a table, or for faces of
    another kind, there is nothing to say.
    """
    try:
        pairs = pd.read_csv(tables / f"{number}_verdict.csv")[["task", "sensitive"]].drop_duplicates()
        t = pd.read_csv(tables / f"{number}_comparison.csv").merge(pairs)
        t = t[t["published"].notna() & (t["published_dataset"].str.lower() == t["dataset"])]
        lassi = t["method"].isin(("LASSI", "LASSI_transfer"))  # the page of claim 3 has the latter alone
        by = t.loc[lassi & (t["metric"] == "certified_fairness"), "difference"]
        judged = t["within_prediction"].dropna().astype(bool)
    except (OSError, ValueError, KeyError, AttributeError):
        return (), ""
    if by.empty:
        return (), ""
    range_ = f"{by.min():+.1f} to {by.max():+.1f} points"
    text = f"LASSI's certified fairness lies {range_} from what is printed ({len(by)} numbers)."
    if len(judged):
        text += (
            f" Of all {len(judged)} means printed with a deviation over seeds, {(~judged).sum()} of ours lie outside "
            f"the prediction interval; by chance {(1 - confidence) * len(judged):.1f} would, if ours were repetitions."
        )
    return (f"from print: {range_}",), text


def _counted(t: pd.DataFrame, column: str) -> str:
    """Return how many pairs a column calls supported, and not supported where there are such."""
    good, bad = t[column] == "supported", (t[column] == "not supported").sum()
    text = f"{good.sum()} of {_pairs(len(t))}" + (" and classifiers" if "changed" in t else "")
    if column == "outcome_these_models" and "constant_would_do" in t:
        beyond = (good & ~t["constant_would_do"]).sum()
        text += f", {beyond} beyond a constant classifier" if beyond < good.sum() else ""
    return text + (f", not supported: {bad}" if bad else "")


def _pairs(n: int) -> str:
    return f"{n} {'pair' if n == 1 else 'pairs'}"


# ---- the page -------------------------------------------------------------------------------------


def write_overview(results: str | Path) -> Path:
    """Write results/index.html over the folders results/<profile> and return its path.

    Its first table is written to results/overview.md too, and claim 1's pairs of all profiles to
    results/claim_1.md.
    """
    results = Path(results)
    folders = [p.parent for p in results.glob("[!.]*/run.json") if read_json(p).get("notebooks")]
    if not folders:
        raise StudyError(f"{results} holds no results of any profile: run `python run_all.py` first")
    folders.sort(key=lambda p: (ORDER.index(p.name) if p.name in ORDER else len(ORDER), p.name))
    found = {number: [finding(f, number) for f in folders] for number in SENTENCES}
    asked = titles()
    body = (
        "<h1>Does LASSI give certified individual fairness?</h1>"
        "<p>LASSI (Peychev et al., ECCV 2022) promises image classifiers that provably treat similar people "
        "alike; Merk et al. (2023) repeated it. Here is what of that holds in our own runs.</p>"
        f"<h2>At a glance</h2>{_lead(folders, found)}{_glance(folders, found, asked)}{_LEGEND}"
        f"<h2>Where the published numbers are wrong</h2>{_wrong(folders)}"
        f"<h2>What each run is evidence for</h2><dl>{''.join(map(_evidence, folders))}</dl>{_never_asked(folders)}"
        f'<h2>Question by question</h2><ol class="entries">{"".join(_details(results, found, asked))}</ol>'
    )
    write_page(results / "index.html", page("LASSI reproducibility study", body))
    (results / "overview.md").write_text(_glance_md(folders, found, asked))
    (results / "claim_1.md").write_text(_claim_1_md(folders))
    return results / "index.html"


def _glance_md(folders: list[Path], found: dict[str, list[Finding]], asked: dict[str, str]) -> str:
    rows = []
    for number, title in asked.items():
        cells = ["<br>".join((_outcome_md(f), *f.held)) for f in found[number]]
        rows.append([f"{title}<br>*Judged: {JUDGED[number]}.*", *cells])
    return markdown(pd.DataFrame(rows, columns=["question", *(f.name for f in folders)]), escaped=False)


def _outcome_md(f: Finding) -> str:
    return (f"**{f.outcome}**" if f.href else f.outcome) + (" (stale)" if f.stale else "")


def _claim_1_md(folders: list[Path]) -> str:
    """Return every profile's verdicts on claim 1 in one table: some columns of its tables/01_verdict.csv."""
    parts = [pd.DataFrame(columns=["profile", *CLAIM_1.values()])]
    for folder in folders:
        with suppress(OSError, ValueError, KeyError):  # no such table, or one of another kind
            shown = present(pd.read_csv(folder / "tables" / "01_verdict.csv"))[list(CLAIM_1)]
            parts.append(shown.rename(columns=CLAIM_1).assign(profile=folder.name))
    return markdown(pd.concat(parts))


def _lead(folders: list[Path], found: dict[str, list[Finding]]) -> str:
    """Say how each profile's verdicts fall, and on claim 1 what the models as trained do, in numbers."""
    lines = ""
    for place, folder in enumerate(folders):
        answers = {number: own[place] for number, own in found.items() if own[place].href}
        drawn = read_json(folder / "run.json").get("facts", {}).get("dataset") == "synthfaces"
        outcomes = [
            f.outcome for n, f in answers.items() if n not in _OF_PRINT and (drawn or _RENDERED not in f.held)
        ]
        counted = ", ".join(f"{outcomes.count(o)} {o}" for o in OUTCOMES if o in outcomes)
        judged = f"{len(outcomes)} {'statement' if len(outcomes) == 1 else 'statements'} judged by runs on its own images{f': {counted}' * bool(counted)}."
        lines += f"<dt>{escape(folder.name)}</dt><dd>{judged} {_of_claim_1(folder)}</dd>"
    return f"<dl>{lines}</dl>"


def _of_claim_1(folder: Path) -> str:
    """Say what the models as trained do on claim 1, and how much of it decisions show; '' without that table."""
    try:
        t = pd.read_csv(folder / "tables" / "01_verdict.csv")
        gain, change = t["fairness_gain"], -t["accuracy_loss"]
        said = f"Claim 1, for the models as trained: in {(gain > 0).sum()} of {len(t)} pairs of task and attributes LASSI certifies more test faces than Naive ({span(gain)} points), at an accuracy {change.min():+.1f} to {change.max():+.1f} points from Naive's."
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        exact = pd.read_csv(folder / "tables" / "07_verdict.csv")["certified_fairness_baseline"]
        said += (
            f" Decided exactly instead of certified, Naive already treats {span(exact)} % of the faces alike."
        )
    return said


def _word(f: Finding) -> str:
    """Return the outcome, coloured, marked where it is stale."""
    if not f.href:
        return f'<span class="soft">{escape(f.outcome)}</span>'
    return coloured(f.outcome) + (" (stale)" if f.stale else "")


def _glance(folders: list[Path], found: dict[str, list[Finding]], asked: dict[str, str]) -> str:
    head = ["", *(link(f"{f.name}/index.html", f.name) for f in folders)]
    rows = []
    for number, title in asked.items():
        cells = [
            _word(f) + "".join(f'<br><span class="soft">{escape(h)}</span>' for h in f.held)
            for f in found[number]
        ]
        judged = f'<br><span class="soft">Judged: {escape(JUDGED[number])}.</span>'
        rows.append([f'<a href="#q{number}">{escape(title)}</a>{judged}', *cells])
    return table("Verdicts", head, rows)


def _wrong(folders: list[Path]) -> str:
    """List the certain faults that the audit found, from the profile in which it could check most."""
    tables = {}
    for folder in folders:
        try:
            t = pd.read_csv(folder / "tables" / "10_ranked.csv")
            needed = ["finding", "about", "check", "source", "table", "at_fault", "not_above"]
            tables[t["numbers"].sum()] = folder.name, t, t.loc[t["sure"] == "certain", needed]
        except (OSError, ValueError, KeyError):
            continue
    if not tables:
        return '<p class="soft">The audit has not run yet.</p>'
    profile, t, certain = tables[max(tables)]
    lists = ""
    for about, words in ABOUT.items():
        rows = certain[certain["about"] == about]
        lines = ""
        for r in rows.itertuples():
            said = str(r.finding).partition(" (at fault also by")[0]
            if r.not_above < r.at_fault:
                said += f" ({f'{r.at_fault - r.not_above} of them ' if r.not_above else ''}counted above)"
            where = f"{PAPERS.get(r.source, r.source)}, {r.table}"
            lines += f'<li><b>{escape(where)}</b> <span class="soft">(check: {escape(str(r.check))})</span> '
            lines += f"{escape(said)}</li>"
        if lines:
            lists += f"<p>{rows['not_above'].sum()} {words}</p><ol>{lines}</ol>"
    more = f"{len(t) - len(certain)} further findings could be chance or have a harmless explanation; see"
    return f"{lists}<p>{more} {link(f'{profile}/10_audit.html', 'the audit')}.</p>"


def _evidence(folder: Path) -> str:
    """Say of a profile what its results are evidence for, and how large it is."""
    run = read_json(folder / "run.json")
    facts = run.get("facts", {})
    images = ", ".join(f"{k} {v:,}" for k, v in facts.get("images", {}).items())
    seeds = {s for e in run["notebooks"].values() for s in e.get("parameters", {}).get("seeds", ())}
    said = (
        f"{run.get('first_line', '')} {facts.get('image_size', '?')} pixels; images: {images}; "
        f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}; flow of {facts.get('bits_per_dim', float('nan')):.2f} bits/dim; "
        f"{_machines(run)}."
    )
    return f"<dt>{link(f'{folder.name}/index.html', folder.name)}</dt><dd>{escape(said)}</dd>"


def _never_asked(folders: list[Path]) -> str:
    """Say which printed tables no run repeats, and why."""
    large = any(f.name == "celeba128" for f in folders)
    kinds = {
        "ICLR 2022": ("iclr2022", "an encoder on images"),
        "the newer text": ("fls2025", "another method"),
    }
    parts = [] if large else [f"ECCV 2022, Supp. Table 14 ({len(published(table='Supp. Table 14'))} numbers: images of "
                              "128 pixels, profile celeba128)"]  # fmt: skip
    parts += [f"{name} ({len(published(source=source))}: {why})" for name, (source, why) in kinds.items()]
    return f'<p class="soft">No run here repeats {", ".join(parts[:-1])} and {parts[-1]}.</p>'


def _machines(run: dict) -> str:
    """Say where the notebooks ran; with their numbers, where they ran on several machines."""
    where: dict[str, list[str]] = {}
    for name, entry in run["notebooks"].items():
        where.setdefault(entry.get("device") or run.get("facts", {}).get("device", ""), []).append(name[:2])
    if len(where) < 2:
        return "".join(where)
    return "; ".join(f"{', '.join(numbers)} on {device}" for device, numbers in where.items())


def _details(results: Path, found: dict[str, list[Finding]], asked: dict[str, str]) -> Iterable[str]:
    """Yield each question with what was published, and every profile's answer."""
    for number, title in asked.items():
        lines = ""
        for f in found[number]:
            text = f"{_word(f)} {escape(f.text)}" + (f" Stale: {escape(f.stale)}." if f.stale else "")
            if f.href:
                minutes = f'<span class="soft">{f.minutes:.1f} minutes,</span>'
                text += f" {minutes} {link(f'{f.profile}/{f.href}', 'page')}"
            lines += f"<dt>{escape(f.profile)}</dt><dd>{text}</dd>"
        shown = [f for f in found[number] if f.image and (results / f.profile / f.image).is_file()]
        shown.sort(key=lambda f: f.profile == "demo")  # photographs before rendered faces
        image = "".join(picture(f"{f.profile}/{f.image}", f"{f.alt} ({f.profile})") for f in shown[:1])
        yield (
            f'<li id="q{number}">{image}<div><h3>{escape(title)}</h3>'
            f"<p><b>Published.</b> {escape(SENTENCES[number]())}</p><dl>{lines}</dl></div></li>"
        )
