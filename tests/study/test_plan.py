"""The plan names every stage once, parents first; nothing is planned that is kept."""

import pickle
import re
from dataclasses import replace
from itertools import product

import pytest

from lassi_lib.errors import StudyError
from lassi_lib.study import plan
from lassi_lib.study.base_fairness import base_rows, endpoint_predictions
from lassi_lib.study.batch import _durations
from lassi_lib.study.experiment import Experiment, Question, experiments_of
from lassi_lib.study.ground_truth import true_answers
from lassi_lib.study.params import load_notebook_params, load_pipeline
from lassi_lib.study.plan import (
    OTHER,
    compute,
    describe,
    expected_seconds,
    following,
    missing,
    steps_of,
    steps_of_notebooks,
)
from lassi_lib.study.sensitivity import certificate_grid, variants, varied
from lassi_lib.study.study import Study
from lassi_lib.study.training_length import length_experiments, lengthened, training_history


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=200, n_valid=40, n_test=6)
    return Study(
        replace(pipeline, data=data), device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=1
    )


def experiment(method, kind="mean_difference", sensitive=("Young",), seed=0):
    return Experiment("synthfaces", "Smiling", sensitive, kind, method, seed)


def test_parents_come_before_children_and_no_stage_twice(study):
    kinds = ("mean_difference", "perpendicular", "ramaswamy")
    wanted = [(experiment(m, k), Question()) for m, k in product(("Naive", "LASSI"), kinds)]
    wanted += [(experiment("LASSI", "discovered", ("biased_attr_0",)), Question("exact_decision"))]
    steps = steps_of(study, [*wanted, *wanted])
    keys = [step.stage.key for step in steps]
    assert len(set(keys)) == len(keys)
    for i, step in enumerate(steps):
        assert not set(step.stage.parents) & set(keys[i + 1 :])
    count = {verb: [step.verb for step in steps].count(verb) for verb in {step.verb for step in steps}}
    # one naive encoder serves all vectors; the shipped flow is no step
    assert count == {
        "latents": 3, "boundaries": 1, "base": 1, "discovery": 1, "vector": 4,
        "encoder": 5, "classifier": 5, "certificates": 7,
    }  # fmt: skip


def test_every_step_computes_the_stage_it_names_and_needs_no_other(study):
    wanted = [(experiment("LASSI", "perpendicular"), Question("exact_decision"))]
    steps = steps_of(study, wanted)
    assert missing(study, steps) == steps
    for i, step in enumerate(steps):
        compute(study, step)
        assert missing(study, steps) == steps[i + 1 :], step
    assert str(steps[-1]) == "certificates Smiling/Young perpendicular LASSI seed 0 exact_decision"


def test_the_time_of_a_first_run_comes_from_the_stated_minutes(tmp_path):
    """They were measured with four workers; what is recorded is taken out, the rest is shared."""
    study, name = Study("smoke", cache=tmp_path), "01_claim1_certified_fairness"
    steps = steps_of_notebooks(study, {name: load_notebook_params("smoke", name)})
    pipeline = replace(study.pipeline, minutes={name: 5.0})
    left = _durations(study, steps, pipeline, [name], tmp_path)
    assert len(left) == len(steps) + 1 and sum(left.values()) == pytest.approx(4 * 300)
    (tmp_path / "run.json").write_text(f'{{"notebooks": {{"{name}": {{"minutes": 0.5}}}}}}')
    left = _durations(study, steps, pipeline, [name], tmp_path)
    assert left[name] == 30.0 and sum(left.values()) == pytest.approx(4 * 300)
    unstated = _durations(study, steps, replace(pipeline, minutes={}), [name], tmp_path)
    assert unstated.pop(name) == 30.0 and set(unstated.values()) == {None}


def test_what_is_done_already_is_taken_out_of_the_stated_minutes(tmp_path, monkeypatch):
    study, name = Study("smoke", cache=tmp_path), "01_claim1_certified_fairness"
    steps = steps_of_notebooks(study, {name: load_notebook_params("smoke", name)})
    pipeline = replace(study.pipeline, minutes={name: 5.0})
    monkeypatch.setattr(plan, "missing", lambda study, steps: [])
    for seconds in (10.0, 1000.0):
        monkeypatch.setattr(
            plan, "expected_seconds", lambda s, steps, n=seconds: {x.stage.key: n for x in steps}
        )
        left = _durations(study, steps, pipeline, [name], tmp_path)
        assert left == {name: 4 * 300 - 10 * len(steps) if seconds == 10 else None}


def test_the_notebooks_of_a_profile_share_their_steps(study):
    names = ("01_claim1_certified_fairness", "07_exact_certificates")
    params = {name: load_notebook_params("smoke", name) for name in names}
    both, one = steps_of_notebooks(study, params), steps_of_notebooks(study, {names[0]: params[names[0]]})
    assert {s.stage.key for s in one} <= {s.stage.key for s in both}
    assert [s.verb for s in one].count("encoder") == [s.verb for s in both].count("encoder")


def test_forcing_a_stage_takes_all_that_is_made_from_it(study):
    steps = steps_of(study, [(experiment(m), Question()) for m in ("Naive", "LASSI")])
    assert [s.verb for s in following(steps, "classifier")] == ["classifier", "certificates"] * 2
    assert [s.verb for s in following(steps, "vector")].count("encoder") == 1  # naive ones see no vector
    with pytest.raises(StudyError, match="did you mean 'encoder'"):
        following(steps, "encoders")


def test_the_plan_says_what_is_kept_and_how_long_the_rest_may_take(study):
    steps = steps_of(study, [(experiment("Naive", seed=7), Question("exact_decision"))])
    for step in steps[:-1]:
        compute(study, step)
    text = describe(study, steps)
    assert re.search(r"encoder +1 stages, +0 to compute", text)
    assert re.search(r"certificates exact_decision +1 stages, +1 to compute", text)
    again = following(steps, "encoder")
    assert re.search(r"encoder +1 stages, +1 to compute, about", describe(study, steps, again))
    assert "in all about" in text


def test_minutes_are_those_of_the_stages_most_alike(study, monkeypatch):
    step = steps_of(study, [(experiment("LASSI", sensitive=("Young", "Pale_Skin")), Question())])[-1]
    own, parents = step.stage.params, list(step.stage.parents)
    other_data, shared = ["x"] * len(parents), parents[:1]
    records = [
        ({**own, "seed": 5}, [*shared, *["x"] * (len(parents) - 1)], 10.0),
        ({**own, "seed": 6}, [*shared, *["x"] * (len(parents) - 1)], 14.0),
        ({**own, "n_votes": 5}, [*shared, *["x"] * (len(parents) - 1)], 70.0),  # another size
        ({**own, "seed": 5}, [*shared, "x"], 3.0),  # fewer attributes
        ({**own, "seed": 5, "mode": "exact_decision"}, parents, 1.0),
        ({**own, "n_votes": 5}, other_data, 0.5),  # another profile's
    ]

    def expected(records):
        monkeypatch.setattr(study.cache, "seconds", lambda name: records)
        return expected_seconds(study, [step])[step.stage.key]

    assert expected(records) == 12.0
    assert (expected(records[2:]), expected(records[3:]), expected(records[4:])) == (70.0, 3.0, None)
    assert expected(records[5:]) is None  # another data set's minutes say nothing
    assert "minutes not known yet" in describe(study, [step]) and "in all minutes" in describe(study, [step])


def test_notebooks_with_stages_of_their_own_find_them_planned(tmp_path):
    study = Study("smoke", cache=tmp_path)
    params = {name: load_notebook_params("smoke", name) for name in OTHER}
    steps = steps_of_notebooks(study, params)
    assert {"truth", "decisions", "endpoints", "base"} <= {step.verb for step in steps}
    order = {step.stage.key: i for i, step in enumerate(steps)}
    assert not [s for s in steps for p in s.stage.parents if order.get(p, -1) > order[s.stage.key]]
    pickle.dumps(steps)  # they travel to workers


def compute_what_is_planned(study, params, monkeypatch):
    """From then on a stage that was not planned fails the test."""
    for step in missing(study, steps_of_notebooks(study, params)):
        compute(study.of(step.pipeline), step)
    monkeypatch.setattr(
        study.cache, "_compute", lambda stage, _: pytest.fail(f"{stage.name} was not planned")
    )


def test_planned_stages_are_those_that_notebooks_read(study, monkeypatch):
    pair = {"pairs": ["Smiling/Young"], "methods": ["Naive"], "seeds": [42], "values": [-1.0, 1.0]}
    base = {"resnet_tasks": [], "resnet_pairs": [], "tasks": ["Smiling"], "base_pairs": ["Smiling/Young"]}
    asked = pair | base | {"base_splits": ["test"], "base_seeds": [42]}
    notebooks = ("06_ground_truth", "09_base_classifiers")
    compute_what_is_planned(study, dict.fromkeys(notebooks, asked), monkeypatch)
    experiments = experiments_of(study.pipeline, pair)
    assert len(true_answers(study, experiments, pair["values"]))
    assert len(base_rows(study, ["Smiling/Young"], ["zG_classifier"], [42], ["test"]))
    assert len(base_rows(study, ["Smiling"], ["zG_classifier"], [42], ["valid"]))
    assert len(endpoint_predictions(study, experiments[0]))


def test_08_plans_the_certificates_that_it_reads_and_no_others(tmp_path):
    """Only `smoothed` methods are certified by sampling there: one that is in `methods` alone is not."""
    name = "08_sensitivity"
    given = load_notebook_params("smoke", name) | {"methods": ["Naive", "DataAug"], "smoothed": ["Naive"]}
    steps = steps_of_notebooks(Study("smoke", cache=tmp_path), {name: given})
    asked = {(s.args[0].method, s.args[1].mode) for s in steps if s.verb == "certificates"}
    assert ("DataAug", "exact_smoothing") in asked and ("Naive", "monte_carlo") in asked
    assert ("DataAug", "monte_carlo") not in asked


def test_12_plans_what_it_reads(study, monkeypatch):
    given = load_notebook_params("smoke", "12_training_length")
    given |= {"groups": given["groups"][:1], "longer": {"LASSI": [3]}}
    compute_what_is_planned(study, {"12_training_length": given}, monkeypatch)
    along = lengthened(study, given["longer"])
    experiments = length_experiments(along, given["groups"])
    methods = {"Naive", "LASSI", "LASSI keep=last", "LASSI keep=last epochs=3"}
    assert set(along.run(experiments)["method"]) == methods
    assert len(training_history(along, experiments)) == 2 + 2 + 3


def test_08_plans_the_classifiers_of_its_grids(study, monkeypatch):
    """Each sigma_rs has a classifier of its own: left to the notebook, they came one after the other."""
    name = "08_sensitivity"
    given = load_notebook_params("smoke", name) | {"methods": ["Naive"], "lambda_2": [0.05]}
    compute_what_is_planned(study, {name: given}, monkeypatch)
    along = varied(study, "LASSI", lambda_2=given["lambda_2"])
    for sub, methods in (
        (study, given["methods"]),
        (study, given["smoothed"]),
        (along, variants(along, "LASSI")),
    ):
        experiments = experiments_of(sub.pipeline, given | {"methods": methods})
        assert len(certificate_grid(sub, experiments, [0.65], given["sigma_rs"]))
