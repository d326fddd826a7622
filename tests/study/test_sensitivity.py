"""Variants of a method share what their settings leave alone; grids and verdicts follow from their rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment, Question
from lassi_lib.study.params import load_pipeline
from lassi_lib.study.sensitivity import (
    VOTED,
    beside_supplement,
    certificate_grid,
    jump_verdict,
    knowledge_along,
    lambda_steps,
    readable_grid,
    sampling_text,
    sensitivity_table,
    variants,
    varied,
)
from lassi_lib.study.study import Study
from lassi_lib.study.verdicts import VerdictRule
from tests.study.test_statistics import make_rows


def experiment(method="LASSI", seed=0):
    return Experiment("synthfaces", "Smiling", ("Pale_Skin",), "mean_difference", method, seed)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces and one epoch."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=20)
    pipeline = replace(pipeline, data=data, encoder=replace(pipeline.encoder, epochs=1))
    return Study(pipeline, device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1)


def test_variants_share_the_stages_that_they_leave_alone(study):
    other = varied(study, "LASSI", lambda_2=[0, 0.05, 0.1], sigma_rs=[1], batch_norm=["joint"])
    same, strong, noise = (experiment(f"LASSI {s}") for s in ("lambda_2=0.05", "lambda_2=0.1", "sigma_rs=1"))
    assert variants(other, "LASSI") == [f"LASSI {s}" for s in ("lambda_2=0", "lambda_2=0.05", "lambda_2=0.1",
                                                               "sigma_rs=1", "batch_norm=joint")]  # fmt: skip
    assert other.certificates_stage(same).key == study.certificates_stage(experiment()).key
    assert other.encoder_stage(strong).key != study.encoder_stage(experiment()).key
    assert other.encoder_stage(noise).key == study.encoder_stage(experiment()).key
    assert other.classifier_stage(noise).key != study.classifier_stage(experiment()).key
    plain = other.encoder_stage(experiment("LASSI lambda_2=0"))
    assert plain.key == study.encoder_stage(experiment("Naive")).key
    assert "LASSI lambda_2=0" not in study.pipeline.methods
    with pytest.raises(StudyError, match="did you mean 'lambda_2'"):
        varied(study, "LASSI", lambda2=[0.1])
    with pytest.raises(StudyError, match="did you mean 'LASSI'"):
        varied(study, "LASI", lambda_2=[0.1])


def test_what_a_method_does_differently_for_a_pair_its_variants_do_too(study):
    exceptions = {"Smiling/Pale_Skin": {"LASSI": {"lambda_2": 0.25, "epochs": 2}}}
    other = varied(
        Study(replace(study.pipeline, exceptions=exceptions), device="cpu"), "LASSI", lambda_2=[0.1]
    )
    assert (other.settings(experiment()).lambda_2, other.settings(experiment()).epochs) == (0.25, 2)
    variant = other.settings(experiment("LASSI lambda_2=0.1"))
    assert (variant.lambda_2, variant.epochs) == (0.1, 2)


def test_sigma_cs_counts_in_the_key_only_where_it_is_another(study):
    e = experiment()
    key = study.certificates_stage(e).key
    assert study.certificates_stage(e, Question(sigma_cs=0.65)).key == key
    assert study.certificates_stage(e, Question(sigma_cs=0.75)).key != key
    similarity, spec = study.set_and_spec(e, Question(epsilon=0.5, sigma_cs=0.75))
    assert (similarity.epsilon, spec.epsilon, spec.sigma_cs) == (0.5, 0.5, pytest.approx(0.375))


def test_the_grid_agrees_with_certificates_made_one_by_one(study):
    """Exact smoothing of a classifier's own stage, and votes of the published certificate."""
    experiments = [experiment(m, s) for m in ("Naive", "LASSI") for s in (0, 1)]
    grid = certificate_grid(study, experiments, [0.65, 0.75], [0.5, 2.5])
    assert len(grid) == 2 * 2 * 2 * 2  # methods, sigma_cs, sigma_rs, certificates
    own = sensitivity_table(study, experiments, [0.65, 0.75], "exact_smoothing")
    keys = ["method", "lambda_2", "sigma_cs", "sigma_rs"]
    both = grid[grid["certificate"] == "exact"].merge(own, on=keys, suffixes=("", "_own"))
    assert len(both) == 2  # LASSI with its own sigma_rs, 2.5
    for name in ("accuracy", "certified_fairness", "d_cs_mean"):
        assert both[name].to_numpy() == pytest.approx(both[f"{name}_own"].to_numpy())
    wide = grid.set_index([*keys, "certificate"])["certified_fairness"].unstack()
    assert (wide[VOTED] <= wide["exact"]).all()
    voted = grid[grid["certificate"] == VOTED]
    assert voted["ceiling"].to_numpy() == pytest.approx(3.2 * voted["sigma_rs"].astype(float), rel=0.01)
    told = sampling_text(sensitivity_table(study, [e for e in experiments if e.method == "LASSI"]), grid)
    assert told.startswith("In 1 cells")


def test_a_grid_reads_as_the_supplement_prints_it():
    table = pd.DataFrame(
        {"sigma_rs": ["10", "0.25"], "certified_fairness": [97.34, 50.0], "accuracy": [1.0, 2.0]}
    )
    table = table.assign(method="LASSI", lambda_2="0.05", sigma_cs="0.65", task="Smiling", sensitive="Pale_Skin",
                         certificate="exact")  # fmt: skip
    table["eccv_certified_fairness"] = [95.5, np.nan]
    shown = readable_grid(table)
    assert shown.iloc[0][["sigma_rs = 0.25", "sigma_rs = 10"]].tolist() == ["50.0", "97.3 (95.5)"]


def test_knowledge_stands_along_lambda_2(study):
    other = varied(study, "LASSI", lambda_2=[0.0, 0.05])
    table = knowledge_along(other, [experiment(m) for m in variants(other, "LASSI")], ["Smiling"])
    assert table["lambda_2"].tolist() == ["0", "0.05"]
    assert (table["method"] == "LASSI").all()
    assert (table["effective rank"] > 1).all()
    assert table["AUC Smiling"].between(0, 100).all()


def test_published_cells_stand_beside_the_same_settings():
    cells = [("Naive", "0", "0.65", "10"), ("LASSI", "0", "0.65", "10"), ("LASSI", "0.05", "0.65", "0.25")]
    cells += [("LASSI", "0.07", "0.65", "10")]
    table = pd.DataFrame(cells, columns=["method", "lambda_2", "sigma_cs", "sigma_rs"])
    table = beside_supplement(table.assign(task="Smiling", sensitive="Pale_Skin"))
    assert table["eccv_certified_fairness"].tolist()[:3] == [1.0, 1.0, 97.1]
    assert table["eccv_accuracy"].tolist()[:3] == [88.4, 88.4, 87.8]
    assert table["eccv_d_cs_mean"].tolist()[0] == 33.37
    assert table.iloc[3][["eccv_certified_fairness", "eccv_accuracy"]].isna().all()


def grid_rows(fair, accuracy=0.9, m=5, n=1000):
    """Rows of variants of LASSI: lambda_2 -> share certified, the same points first; the same for all seeds."""
    labels = np.arange(n) % 2
    right = np.random.default_rng(0).permutation(n)
    parts = []
    for value, share in fair.items():
        predictions = np.where(right < (accuracy.get(value, 0.9) if isinstance(accuracy, dict) else accuracy) * n,
                               labels, 1 - labels)  # fmt: skip
        rows = make_rows(
            labels, predictions[None].repeat(m, 0), (np.arange(n) < share * n)[None].repeat(m, 0)
        )
        parts.append(rows.assign(method=f"LASSI lambda_2={value:g}", task="Smiling", sensitive="Young"))
    return pd.concat(parts)


def test_a_jump_is_large_and_steeper_than_every_other_step(study):
    values, rule = [0, 0.01, 0.025, 0.05, 0.1], VerdictRule(20.0, 5.0)
    other = varied(study, "LASSI", lambda_2=values)

    def outcome(fair, accuracy=0.9):
        rows = grid_rows(dict(zip(values, fair, strict=True)), accuracy)
        return jump_verdict(lambda_steps(other, rows, rule), (0.025, 0.05), rule)

    jump = outcome([0.0, 0.30, 0.40, 0.90, 0.95])
    assert jump.outcome == "supported"
    assert jump.table["fairness_gain"].tolist() == pytest.approx([30, 10, 50, 5])
    assert jump.table["gain per doubling"].tolist() == pytest.approx([0, 10 / np.log2(2.5), 50, 5])
    assert jump.headline.endswith("that accuracy stays is supported.")
    assert "over seeds and points" in jump.text
    one = grid_rows(dict(zip(values, [0.0, 0.30, 0.40, 0.90, 0.95], strict=True)), 0.9).query("seed == 0")
    single = jump_verdict(lambda_steps(other, one, rule), (0.025, 0.05), rule)
    assert single.outcome == "inconclusive" and "one seed says nothing" in single.headline
    assert "fairness jumps in 1 of 1 pairs and accuracy stays in 1" in single.text
    fewer = grid_rows(dict(zip(values, [0.0, 0.60, 0.80, 0.90, 0.95], strict=True))).query("seed == 0")
    slower = jump_verdict(lambda_steps(other, fewer, rule), (0.025, 0.05), rule)
    assert slower.outcome == "inconclusive" and "in 0 of 1 pairs, does not in 1, and" in slower.text
    assert "Bonferroni" not in jump.text
    two = pd.concat(
        [
            rows := grid_rows(dict(zip(values, [0.0, 0.3, 0.4, 0.9, 0.95], strict=True))),
            rows.assign(sensitive="Bald"),
        ]
    )
    both = jump_verdict(lambda_steps(other, two, rule), (0.025, 0.05), rule)
    assert "divided over 2 pairs (Bonferroni)" in both.text
    wider = both.table["fairness_gain_low"].to_numpy()[:4] < jump.table["fairness_gain_low"].to_numpy()
    assert wider[2]
    slow = outcome([0.0, 0.60, 0.80, 0.90, 0.95])
    assert slow.outcome == "not supported"
    steeper = outcome([0.0, 0.10, 0.20, 0.45, 0.95])
    assert (steeper.outcome, steeper.table["jumps"].tolist()[2]) == ("not supported", "supported")
    as_steep = outcome([0.0, 0.10, 0.20, 0.45, 0.705])
    assert (as_steep.outcome, as_steep.table["jumps"].tolist()[2]) == ("inconclusive", "supported")
    close = outcome([0.0, 0.30, 0.40, 0.61, 0.70])
    assert close.outcome == "inconclusive"
    dear = outcome([0.0, 0.30, 0.40, 0.90, 0.95], {0.05: 0.8, 0.1: 0.8})
    assert dear.outcome == "not supported"
    assert "jumps is supported, and that accuracy stays is not supported" in dear.text
    with pytest.raises(StudyError, match=r"no step from 0\.05 to 0\.2"):
        jump_verdict(jump.table, (0.05, 0.2), rule)
