"""Faces moved along an attribute vector, with their certificates: Figures 2 and 4 of Merk et al."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment, Question, experiments_by
from lassi_lib.study.study import Study


@dataclass(frozen=True)
class Strip:
    """A test face (`index`, with its `label`) along the vector of a pair, 'Task / Attribute'.

    t [m] are coefficients over [-epsilon, epsilon], images uint8 [m, 3, S, S] are D(z + t a), of whose
    values `outside` percent are such as no image has. answers has one row per method: method, status, d_cs,
    d_rs, decision (the exact one), t (where refuted), classes (the unsmoothed ones at the m coefficients).
    """

    pair: str
    index: int
    label: int
    t: np.ndarray
    images: np.ndarray
    outside: float
    answers: pd.DataFrame


def strips(
    study: Study, experiments: Iterable[Experiment], faces_per_pair: int, steps: int = 7
) -> list[Strip]:
    """Return `faces_per_pair` strips per pair, chosen by the last method's d_cs / d_rs.

    Faces stand at equal steps of its order, from the smallest ratio to the largest (abstentions last);
    a single face is the median. So nobody chose them.

    Experiments have one seed and one sensitive attribute; the methods of a pair make the rows of its strips.
    """
    pairs = experiments_by(experiments, lambda e: (e.task, e.sensitive, e.vector_type))
    for _, names, _ in pairs:
        if len(names) > 1:
            raise StudyError(f"strips(): '{'+'.join(names)}' spans no line: name one attribute")
    return [s for group in pairs.values() for s in _strips_of(study, group, faces_per_pair, steps)]


def _strips_of(study: Study, group: list[Experiment], count: int, steps: int) -> list[Strip]:
    import torch

    from lassi_lib.data.preprocess import percent_beyond, to_uint8

    e = group[-1]
    line = study.similarity(e.sensitive, e.vector_type, e.task)
    t = np.linspace(-line.epsilon, line.epsilon, steps)
    sampled = {x.method: study.certificates(x).set_index("index") for x in group}
    decided = {x.method: study.certificates(x, Question("exact_decision")).set_index("index") for x in group}
    ratio = (sampled[e.method]["d_cs"] / sampled[e.method]["d_rs"]).fillna(np.inf)
    order = ratio.sort_values(kind="stable").index
    places = np.linspace(0, len(order) - 1, count) if count > 1 else [(len(order) - 1) / 2]
    found = []
    for index in order[np.round(places).astype(int)]:
        step = torch.as_tensor(t, dtype=torch.float32)[:, None]
        path = (study.latents("test")[int(index)] + step * line.vectors).to(study.device)
        answers = []
        for x in group:
            with torch.no_grad():
                classes = study.classifier(x)(study.representation(x)(path)).argmax(1).tolist()
            row, exact = sampled[x.method].loc[index], decided[x.method].loc[index]
            answer = {"method": x.method, **row[["status", "d_cs", "d_rs"]], "decision": exact["status"]}
            answers.append(answer | {"t": exact["witness_1"], "classes": classes})
        x = study.decode(path)
        pair, label = f"{e.task} / {e.sensitive[0]}", int(sampled[e.method].loc[index, "label"])
        images = to_uint8(x).numpy()
        found.append(Strip(pair, int(index), label, t, images, percent_beyond(x), pd.DataFrame(answers)))
    return found


def strip_table(strips: Iterable[Strip]) -> pd.DataFrame:
    """Return one row per strip and method: what stands below the faces, and the share outside the range."""
    parts = []
    for s in strips:
        changed = [sum(c != row[len(row) // 2] for c in row) for row in s.answers["classes"]]
        part = s.answers.drop(columns="classes").rename(columns={"t": "refuted at t"})
        part = part.assign(**{"frames of another class": changed, "outside range %": s.outside})
        part.insert(0, "pair", s.pair)
        part.insert(1, "face", s.index)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
