"""What each stage depends on, and the small tables around a study."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lassi_lib.certification import certify
from lassi_lib.data.preprocess import quantise
from lassi_lib.errors import StudyError
from lassi_lib.study.experiment import Experiment, Question, experiments_of
from lassi_lib.study.faces import label_table, traversals, vector_table
from lassi_lib.study.params import MethodParams, load_pipeline
from lassi_lib.study.provenance import provenance
from lassi_lib.study.results import results_folder, save_rows, save_verdict
from lassi_lib.study.study import Study, device_name


def experiment(method="LASSI", sensitive=("Young",), task="Smiling", seed=0):
    return Experiment("synthfaces", task, sensitive, "mean_difference", method, seed)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The smoke pipeline with fewer faces, its latents in a cache of its own."""
    pipeline = load_pipeline("smoke")
    data = replace(pipeline.data, n_train=300, n_valid=60, n_test=20)
    return Study(
        replace(pipeline, data=data), device="cpu", cache=tmp_path_factory.mktemp("cache"), workers=2
    )


def test_one_naive_encoder_serves_all_sensitive_attributes_of_a_task_and_seed(study):
    def key(**kind):
        return study.encoder_stage(experiment(**kind)).key

    assert key(method="Naive") == key(method="Naive", sensitive=("Pale_Skin", "Young"))
    assert key(method="LASSI") != key(method="LASSI", sensitive=("Pale_Skin",))
    assert key(method="DataAug") != key(method="DataAug", sensitive=("Pale_Skin",))
    assert len({key(method=m) for m in ("Naive", "DataAug", "LASSI")}) == 3
    assert key(method="Naive") != key(method="Naive", seed=1)
    assert key(method="Naive") != key(method="Naive", task="Wearing_Earrings")


def test_tasks_share_the_centers_of_an_encoder_that_knows_none(study, monkeypatch):
    """It is smoothed once, and every task's certificates are those of a whole computation."""
    tasks = [experiment("LASSI_transfer", task=task) for task in ("Smiling", "Oval_Face")]
    assert len({study.centers_stage(e).key for e in tasks}) == 1
    assert study.centers_stage(tasks[0], Question(sigma_cs=0.75)) != study.centers_stage(tasks[0])
    assert study.centers_stage(replace(tasks[0], sensitive=("Pale_Skin",))) != study.centers_stage(tasks[0])
    assert study.centers_stage(replace(tasks[0], seed=1)) != study.centers_stage(tasks[0])
    assert study.centers_stage(experiment()) is None
    assert study.centers_stage(tasks[0], Question("exact_smoothing")) is None
    smoothed = []
    monkeypatch.setattr(
        certify,
        "smooth_centers",
        lambda *a, f=certify.smooth_centers, **k: (smoothed.append(a), f(*a, **k))[1],
    )
    shared = [study.certificates(e) for e in tasks]
    assert len(smoothed) == 1
    monkeypatch.setattr(study, "centers_stage", lambda *args: None)
    for e, rows in zip(tasks, shared, strict=True):
        pd.testing.assert_frame_equal(rows, study.certificates(e), check_exact=True)
    assert not shared[0].equals(shared[1])


def test_certificates_depend_on_the_vectors_and_sample_sizes(study, tmp_path):
    e = experiment(method="Naive")
    other = replace(study.pipeline, certification=replace(study.pipeline.certification, n_votes=20_000))
    assert study.certificates_stage(e) != study.certificates_stage(experiment("Naive", ("Pale_Skin",)))
    assert study.classifier_stage(e) == study.classifier_stage(experiment("Naive", ("Pale_Skin",)))
    changed = Study(other, device="cpu", cache=tmp_path)
    assert changed.classifier_stage(e) == study.classifier_stage(e)
    assert changed.certificates_stage(e) != study.certificates_stage(e)


def test_the_published_bound_is_no_part_of_the_certificates_key(study, tmp_path):
    """Certificates kept before the setting existed stay valid; others are kept apart."""
    e = experiment(method="Naive")
    stage = study.certificates_stage(e)
    binomial = replace(study.pipeline, certification=replace(study.pipeline.certification, bound="binomial"))
    other = Study(binomial, device="cpu", cache=tmp_path).certificates_stage(e)
    assert set(other.params) - set(stage.params) == {"bound"}
    assert other.key != stage.key
    names = (
        "epsilon sigma_cs n_center n_radius alpha_cs delta n_class n_votes alpha_rs quantile seed sigma_rs"
    )
    assert sorted(stage.params) == sorted(names.split())


def test_the_bound_on_bits_per_dim_is_no_part_of_a_trained_flow(study, tmp_path):
    keys = []
    for bound in (1.0, 2.0):
        glow = replace(study.pipeline.glow, checkpoint="", bits_per_dim_at_most=bound)
        keys.append(Study(replace(study.pipeline, glow=glow), cache=tmp_path).glow_stage().key)
    assert keys[0] == keys[1]


def test_labels_follow_the_data_set(study):
    test = study.dataset("test")
    assert np.array_equal(study.labels("test", "Smiling"), test.label("Smiling"))
    table = label_table(study, ["Smiling", "Young"])
    assert table["test %"][0] == pytest.approx(100 * test.label("Smiling").mean())
    assert table["train positives"][1] == study.dataset("train").label("Young").sum()
    with pytest.raises(StudyError, match="did you mean 'Young'"):
        study.labels("test", "Yuong")


def test_run_refuses_an_unknown_attribute_before_it_computes(study):
    with pytest.raises(StudyError, match="did you mean 'Smiling'"):
        study.run([experiment(task="Smilling")])


def test_a_traversal_passes_through_the_face_and_follows_its_vector(study):
    strips, outside = traversals(study, ["Young"], index=0, t=np.array([-1.0, 0.0, 1.0]))
    assert strips["Young"].shape == (3, 3, 48, 48)
    shown = strips["Young"][1].int()
    assert (shown - study.dataset("test").images[0].int()).abs().max() <= 8  # 5-bit bins
    assert 0 <= outside["outside range %"][0] <= 100
    assert (strips["Young"][0] != strips["Young"][2]).any()


def test_vector_table_states_norms_and_cosines(study):
    table = vector_table(study, ["Young", "Smiling"])
    assert table["norm"][0] == pytest.approx(float(study.vector("Young").double().norm()))
    assert table["cos Young"][0] == pytest.approx(1)
    assert table["cos Young"][1] == pytest.approx(table["cos Smiling"][0])


def test_provenance_states_what_was_used(study):
    table = provenance(study).set_index("")["this run"]
    assert table["images (train / valid / test)"] == "300 / 60 / 20"
    assert table["certified test points"] == "all 20"
    assert table["bits/dim on test images"] == f"{study.facts()['bits_per_dim']:.2f}"


def test_provenance_says_what_a_methods_training_and_a_kinds_vectors_change(study):
    methods = study.pipeline.methods | {
        "LASSI_transfer": MethodParams(1.0, lambda_1=0.0, lambda_3=0.1, epochs=7)
    }
    study = study.of(replace(study.pipeline, methods=methods))
    asked = {"pairs": ["Smiling/Young"], "methods": ["LASSI_transfer"], "seeds": [0]}
    kinds = {"vector_types": ["mean_difference", "perpendicular"]}
    table = provenance(study, experiments_of(study.pipeline, asked | kinds)).set_index("")
    assert table["papers"]["encoder"].endswith("20 epochs")
    assert table["this run"]["encoder"].endswith(", 7 epochs")
    steps = 7 * -(-300 // study.pipeline.encoder.batch_size)
    assert table["this run"]["encoder batch, steps"].endswith(f", {steps}")
    assert table["this run"]["epsilon, sigma_cs"] == "1, 0.65 or 10, 6.5"


def test_results_folder_prefers_the_parameter_then_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("LASSI_OUTPUT", str(tmp_path / "b"))
    assert results_folder("demo", str(tmp_path / "a")) == tmp_path / "a"
    assert results_folder("demo") == tmp_path / "b"
    assert (tmp_path / "b").is_dir()


def test_equal_rows_give_equal_bytes_and_can_be_read_back(tmp_path):
    rows = pd.DataFrame(
        {"index": [0, 1], "d_cs": [1.25, float("nan")], "status": ["CERTIFIED", "ABSTAINED_CENTER"]}
    )
    one, two = (save_rows(rows, tmp_path / n, "rows").read_bytes() for n in "ab")
    assert one == two
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "a/certificates/rows.csv.gz"), rows)
    assert save_verdict(tmp_path, "x", "supported", "Yes.")["outcome"] == "supported"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_gpu_is_called_by_its_own_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert device_name(torch.device("cuda:0")) == "GPU of cuda:0"
    assert torch.backends.cpu.get_cpu_capability() in device_name(torch.device("cpu"))


def test_faces_are_encoded_as_in_the_kept_latents_and_decoded_to_themselves(study):
    faces, z = study.dataset("test").images[:3], study.latents("test")[:3]
    torch.testing.assert_close(study.encode(faces), z, atol=1e-4, rtol=0)
    torch.testing.assert_close(study.decode(z), quantise(faces), atol=1e-3, rtol=0)
