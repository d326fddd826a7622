"""The profiles of the papers' settings hold what the papers and their scripts say, and run when scaled down."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lassi_lib.display.certificates import history_curve
from lassi_lib.errors import StudyError
from lassi_lib.flow.glow import GlowConfig
from lassi_lib.study import params
from lassi_lib.study.batch import plan_of
from lassi_lib.study.claims import published_beside
from lassi_lib.study.experiment import Experiment, experiments_of
from lassi_lib.study.faces import flow_history, label_table, traversals, vector_table
from lassi_lib.study.params import load_notebook_params, load_pipeline, notebooks_of
from lassi_lib.study.provenance import provenance
from lassi_lib.study.published import published
from lassi_lib.study.statistics import summarise
from lassi_lib.study.study import Study
from tests.flow.flows import random_glow

MEAN, MAKEUP = "mean_difference", ("Wearing_Earrings", "Heavy_Makeup")
ANY = ("Smiling", "Young")
# Supp. Table 11 (ECCV 2022) and the authors' scripts. Profile, vectors, pair, method; then epsilon, sigma_cs,
# lambda_1, lambda_2, lambda_3, sigma_rs, epochs, batch.
SETTINGS = [
    ("celeba", MEAN, ANY, "Naive", 1, 0.65, 1, 0, 0, 10, 5, 500),
    ("celeba", MEAN, ANY, "DataAug", 1, 0.65, 1, 0, 0, 10, 5, 500),
    ("celeba", MEAN, ANY, "LASSI", 1, 0.65, 1, 0.05, 0, 2.5, 5, 500),
    ("celeba", MEAN, ("Smiling", "Heavy_Makeup"), "LASSI", 1, 0.65, 1, 0.05, 0, 2.5, 5, 500),
    ("celeba", MEAN, MAKEUP, "LASSI", 1, 0.65, 1, 0.25, 0, 2.5, 5, 500),
    ("celeba", MEAN, MAKEUP, "DataAug", 1, 0.65, 1, 0, 0, 10, 5, 500),
    ("celeba", "perpendicular", ANY, "LASSI", 10, 6.5, 1, 0.05, 0, 2.5, 5, 500),
    ("celeba", "ramaswamy", ANY, "LASSI", 1, 0.65, 1, 0.05, 0, 2.5, 5, 500),
    ("celeba", "discovered", ("Smiling", "biased_attr_0"), "Naive", 10, 6.5, 1, 0, 0, 10, 5, 500),
    ("celeba", MEAN, ANY, "LASSI_transfer", 1, 0.65, 0, 0.05, 0.1, 0.5, 20, 500),
    ("celeba128", MEAN, ANY, "DataAug", 1, 0.65, 1, 0, 0, 10, 5, 500),
    ("celeba128", MEAN, ("Smiling", "Pale_Skin+Young"), "DataAug", 1, 0.65, 1, 0, 0, 10, 5, 250),
    ("celeba128", MEAN, ("Smiling", "Pale_Skin+Young+Blond_Hair"), "DataAug", 1, 0.65, 1, 0, 0, 10, 5, 250),
    ("celeba128", MEAN, ("Smiling", "Pale_Skin+Young"), "LASSI", 1, 0.65, 1, 0.05, 0, 2.5, 5, 500),
    ("celeba128", MEAN, MAKEUP, "LASSI", 1, 0.65, 1, 0.25, 0, 2.5, 5, 500),
    # FairFace with fewer images: ten epochs in batches of 100 instead of five in batches of 500
    ("fairface", MEAN, ("Age-2", "Race=Black"), "Naive", 0.5, 0.325, 1, 0, 0, 5, 10, 100),
    ("fairface", MEAN, ("Age-3", "Race=Black"), "Naive", 0.5, 0.325, 1, 0, 0, 0.1, 10, 100),
    ("fairface", MEAN, ("Age-9", "Race=Black"), "Naive", 0.5, 0.325, 1, 0, 0, 0.1, 10, 100),
    ("fairface", MEAN, ("Age-2", "Race=Black"), "DataAug", 0.5, 0.325, 1, 0, 0, 5, 10, 100),
    ("fairface", MEAN, ("Age-3", "Race=Black"), "DataAug", 0.5, 0.325, 1, 0, 0, 2.5, 10, 100),
    ("fairface", MEAN, ("Age-9", "Race=Black"), "DataAug", 0.5, 0.325, 1, 0, 0, 1, 10, 100),
    ("fairface", MEAN, ("Age-2", "Race=Indian"), "LASSI", 0.5, 0.325, 1, 0.1, 0, 0.25, 10, 100),
    ("fairface", MEAN, ("Age-3", "Race=Indian"), "LASSI", 0.5, 0.325, 1, 0.1, 0, 0.25, 10, 100),
    ("fairface", MEAN, ("Age-3", "Race=Black"), "LASSI_transfer", 0.5, 0.325, 0, 0.1, 0.1, 0.1, 20, 100),
]


@pytest.mark.parametrize("row", SETTINGS, ids=lambda r: "-".join([r[0], r[1], *r[2], r[3]]))
def test_every_setting_is_the_published_one(row, tmp_path):
    profile, kind, (task, sensitive), method, *expected = row
    study = Study(profile, device="cpu", cache=tmp_path)
    e = Experiment("", task, tuple(sensitive.split("+")), kind, method, 0)
    m, encoder = study.settings(e), study.pipeline.encoder
    spec = study.spec(method, kind, task, e.sensitive)
    found = [spec.epsilon, spec.sigma_cs, m.lambda_1, m.lambda_2, m.lambda_3, spec.sigma_rs]
    assert [*found, m.epochs or encoder.epochs, m.batch_size or encoder.batch_size] == pytest.approx(expected)
    assert m.augment == (method == "DataAug")
    assert (m.batch_norm, m.sampling, m.radius_scale, encoder.n_candidates) == ("separate", "ball", 1, 10)


@pytest.mark.parametrize("profile", ["celeba", "celeba128", "fairface"])
def test_what_all_experiments_share_is_the_published_setting(profile):
    p = load_pipeline(profile)
    assert (p.encoder.hidden, p.encoder.output, p.encoder.learning_rate) == ([2048, 1024], 512, 1e-3)
    assert (p.classifier.epochs, p.classifier.batch_size, p.classifier.learning_rate) == (1, 128, 1e-3)
    c = p.certification
    assert (c.n_center, c.n_radius, c.alpha_cs, c.delta) == (10_000, 10_000, 0.01, 0.05)
    assert (c.n_class, c.n_votes, c.alpha_rs, c.bound) == (2_000, 100_000, 0.001, "hoeffding")
    assert (p.data.bits, p.data.max_images, c.test_every, p.glow.affine) == (5, 0, 1, False)
    if profile != "fairface":
        sizes = {"celeba": (64, 4), "celeba128": (128, 5)}[profile]
        assert (p.data.image_size, p.glow.n_blocks, p.glow.n_steps, p.glow.width) == (*sizes, 32, 512)
        assert p.glow.checkpoint == f"saved_models/glow_celeba_{p.data.image_size}"


TABLES = {
    "celeba": {
        "01": ["Table 1", "Supp. Table 12"],
        "02": ["Table 2", "Supp. Table 17", "Supp. Table 18"],
        "03": ["Table 3", "Table 5", "Supp. Table 16"],
        "04": ["Table 4"],
    },
    "celeba128": {"01": ["Supp. Table 14"]},
    "fairface": {"01": ["Table 1"], "04": ["Table 4"]},
}


@pytest.mark.parametrize("profile", TABLES)
def test_every_row_of_the_published_tables_is_asked_for_with_its_own_settings(profile, tmp_path):
    study, keys = Study(profile, device="cpu", cache=tmp_path), ["task", "sensitive", "vector_type", "method"]
    seeds = sorted([0, 10, 42] if profile == "fairface" else [42, 0, 10, 20, 30, 1, 2, 3, 4, 5])
    for number, tables in TABLES[profile].items():
        name = next(n for n in notebooks_of(profile) if n.startswith(number))
        asked = experiments_of(study.pipeline, load_notebook_params(profile, name))
        assert sorted({e.seed for e in asked}) == seeds
        dataset = "FairFace" if profile == "fairface" else "CelebA"
        rows = published(source=["merk2023", "eccv2022"], table=tables, dataset=dataset)
        rows = rows.drop_duplicates([*keys, "source"])
        by_key = {tuple(e.columns()[k] for k in keys): e for e in asked}
        assert len(rows)
        for row in rows.to_dict("records"):
            e = by_key[tuple(row[k] for k in keys)]
            spec = study.spec(e.method, e.vector_type, e.task, e.sensitive)
            assert (spec.sigma_cs, spec.sigma_rs) == pytest.approx((row["sigma_cs"], row["sigma_rs"]))
            assert study.settings(e).lambda_2 == pytest.approx(row["lambda2"])


# ---- exceptions ----------------------------------------------------------------------------------


@pytest.fixture
def spoilt(tmp_path, monkeypatch):
    """Load params/smoke with other exceptions."""
    content = params.read_yaml(params.PARAMS / "smoke" / "pipeline.yaml")
    monkeypatch.setattr(params, "PARAMS", tmp_path)

    def load(exceptions):
        import yaml

        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "mine" / "pipeline.yaml").write_text(yaml.safe_dump(content | {"exceptions": exceptions}))
        return load_pipeline("mine")

    return load


def test_a_pairs_exception_is_stronger_than_its_tasks_and_knows_no_order(spoilt):
    p = spoilt(
        {
            "Smiling/Young+Pale_Skin": {"LASSI": {"lambda_2": 1}},
            "Smiling": {"LASSI": {"sigma_rs": 3, "lambda_2": 0.5}},
        }
    )
    pair = p.settings("LASSI", "Smiling", ("Pale_Skin", "Young"))
    assert (pair.lambda_2, pair.sigma_rs) == (1.0, 3.0) and isinstance(pair.lambda_2, float)
    assert p.settings("LASSI", "Smiling", ("Young",)).lambda_2 == 0.5
    assert p.settings("LASSI", "Wearing_Hat", ("Young",)) == p.methods["LASSI"]
    assert p.settings("Naive", "Smiling", ("Pale_Skin", "Young")) == p.methods["Naive"]


@pytest.mark.parametrize(
    ("exceptions", "words"),
    [
        ({"Smiling": {"LASI": {"sigma_rs": 1.0}}}, ["exceptions.Smiling.LASI", "did you mean 'LASSI'"]),
        ({"Smiling": {"LASSI": {"sigma": 1.0}}}, ["exceptions.Smiling.LASSI.sigma", "sigma_rs"]),
        ({"Smiling": {"LASSI": {"lambda_2": "1e-3"}}}, ["exceptions.Smiling.LASSI.lambda_2", "1.0e-3"]),
        ({"Smiling": {"LASSI": {"sigma_rs": 0.0}}}, ["exceptions.Smiling.LASSI.sigma_rs", "positive"]),
        ({"Smiling/": {"LASSI": {"sigma_rs": 1.0}}}, ["exceptions.Smiling/", "Task/Attribute"]),
        ({"Smiling": {"LASSI": 3}}, ["exceptions.Smiling.LASSI", "a mapping"]),
    ],
)
def test_a_mistaken_exception_is_one_line(spoilt, exceptions, words):
    with pytest.raises(StudyError) as error:
        spoilt(exceptions)
    assert "\n" not in str(error.value)
    for word in ["pipeline.yaml", *words]:
        assert word in str(error.value)


def test_an_exception_for_an_unknown_attribute_is_found_before_anything_is_computed(spoilt):
    spoilt({"Smilling/Young": {"LASSI": {"sigma_rs": 1.0}}})
    with pytest.raises(StudyError, match=r"params/mine/pipeline.yaml.*did you mean 'Smiling'"):
        plan_of("mine", {}, "cpu")


def test_an_exception_changes_the_keys_of_its_own_experiments_alone(tmp_path):
    plain = load_pipeline("smoke")
    changed = {"Smiling/Young": {"LASSI": {"lambda_2": 0.1}, "DataAug": {"batch_size": 50}}}
    one, two = (Study(p, cache=tmp_path) for p in (plain, replace(plain, exceptions=changed)))
    for method, sensitive, same in [
        ("LASSI", "Young", False),
        ("DataAug", "Young", False),
        ("Naive", "Young", True),
        ("LASSI", "Bald", True),
    ]:
        e = Experiment("synthfaces", "Smiling", (sensitive,), MEAN, method, 0)
        assert (one.certificates_stage(e).key == two.certificates_stage(e).key) is same


# ---- scaled down ---------------------------------------------------------------------------------


def tiny(profile, image_size, n_blocks, **certification):
    """Return a profile's pipeline with tiny models; its method, noise and exceptions stay."""
    p = load_pipeline(profile)
    glow = replace(p.glow, n_steps=2, n_blocks=n_blocks, width=8, n_images=64, batch_size=16, threads=1)
    return replace(
        p,
        data=replace(p.data, image_size=image_size),
        glow=replace(glow, checkpoint="", learning_rate=1e-3),
        encoder=replace(p.encoder, hidden=[16, 16], epochs=1, batch_size=20, threads=1),
        classifier=replace(p.classifier, threads=1),
        certification=replace(
            p.certification, n_center=2000, n_radius=2000, n_class=500, n_votes=5000, **certification
        ),
    )


@pytest.fixture(scope="module")
def celeba128(tmp_path_factory):
    """The 128 pixels profile, tiny, on 60 rendered faces, with a checkpoint in the authors' format."""
    base = tmp_path_factory.mktemp("celeba128")
    state = {f"module.{k}": v for k, v in random_glow(GlowConfig(128, 2, 5, 8)).state_dict().items()}
    (base / "glow_celeba_128").mkdir()
    torch.save(state, base / "glow_celeba_128" / "model_last.pth")
    p = tiny("celeba128", 128, 5, test_every=4)
    data = replace(p.data, name="synthfaces", n_train=60, n_valid=20, n_test=10)
    glow = replace(p.glow, checkpoint=str(base / "glow_celeba_128"), n_images=0)
    return Study(replace(p, data=data, glow=glow), device="cpu", cache=base / "cache", workers=1)


def test_faces_of_128_pixels_go_all_the_way_through(celeba128):
    study = celeba128
    assert study.latents("test").shape == (10, 3 * 128 * 128)
    assert study.facts()["max_reconstruction_error"] < 1e-3
    pairs = ["Smiling/Pale_Skin+Young", "Wearing_Earrings/Heavy_Makeup"]
    asked = {"pairs": pairs, "methods": ["Naive", "DataAug", "LASSI"], "seeds": [42]}
    rows = study.run(experiments_of(study.pipeline, asked))
    assert sorted(rows["index"].unique()) == [0, 4, 8]  # every 4th of ten
    assert len(summarise(rows)) == 6
    cells, printed = published_beside(study, "Table 1")
    assert cells["merk"].isna().all() and cells["eccv_std"].notna().all()
    assert set(printed["table"]) == {"Supp. Table 14"} and set(printed["image_size"]) == {128}


def test_the_authors_checkpoint_has_no_history_and_that_is_said(celeba128):
    assert flow_history(celeba128).empty
    history_curve(flow_history(celeba128), x="step", y="bits_per_dim")
    table = provenance(celeba128).set_index("")["this run"]
    assert "does not say" in table["Glow training"]
    assert table["certified test points"] == "every 4th, 3"


def test_every_kth_test_point_gets_the_certificate_it_gets_among_all(celeba128):
    e = Experiment("synthfaces", "Smiling", ("Pale_Skin", "Young"), MEAN, "Naive", 42)
    few = celeba128.certificates(e)
    p = celeba128.pipeline
    whole = replace(p, certification=replace(p.certification, test_every=1))
    rows = Study(whole, device="cpu", cache=celeba128.cache.root, workers=1).certificates(e)
    assert len(rows) == 10
    pd.testing.assert_frame_equal(rows[rows["index"] % 4 == 0].reset_index(drop=True), few)


def test_fairface_in_miniature_with_two_and_three_classes(fairface_root, tmp_path):
    p = tiny("fairface", 64, 4, test_every=4)
    p = replace(p, data=replace(p.data, max_images=150))
    study = Study(p, data_root=fairface_root, device="cpu", cache=tmp_path, workers=1)
    asked = {"pairs": ["Age-3/Race=Indian"], "methods": ["Naive", "LASSI"], "seeds": [42]}
    rows = study.run(experiments_of(p, asked))
    assert set(rows["label"]) == {0, 1, 2} and set(rows["prediction"]) <= {-1, 0, 1, 2}
    table = summarise(rows)
    assert table["predicted_positive"].isna().all()
    ceiling = 3.9 * np.array([0.1, 0.25])  # d_rs cannot exceed 3.9 sigma_rs at any sample size used here
    assert (rows.groupby("method")["d_rs"].max()[["Naive", "LASSI"]].fillna(0) <= ceiling).all()
    named = label_table(study, ["Race=Indian", "Age-3"])
    assert named["attribute"].tolist() == [
        "Race=Indian", "Age-3: 0-19", "Age-3: 20-39", "Age-3: 40 or more",
    ]  # fmt: skip
    shares = named[[c for c in named if c.endswith("%")]]
    np.testing.assert_allclose(shares[1:].sum(), 100)
    assert named["train positives"][1:].sum() == len(study.latents("train"))
    assert vector_table(study, ["Race=Indian", "Age-3", "Age-2"])["attribute"].tolist() == [
        "Race=Indian", "Age-2",
    ]  # fmt: skip
    strips, _ = traversals(study, ["Age-3", "Race=Indian"], index=0, t=np.array([0.0, 1.0]))
    assert list(strips) == ["Race=Indian"]
    cells, printed = published_beside(study, "Table 4")
    assert set(cells["sensitive"]) == {"Race=Black", "Race=Indian"} == set(printed["sensitive"])
    papers = provenance(study).set_index("")["papers"]
    assert papers["epsilon, sigma_cs"] == "0.5, 0.325" and "10,954" in papers["images (train / valid / test)"]


def test_the_tuning_grid_and_the_base_classifiers_are_the_published_ones():
    grid, base = (load_notebook_params("celeba", n) for n in ("08_sensitivity", "09_base_classifiers"))
    rows = published(table=["Supp. Table 8", "Supp. Table 9", "Supp. Table 10"])
    for name, column in (("lambda_2", "lambda2"), ("sigma_cs", "sigma_cs"), ("sigma_rs", "sigma_rs")):
        assert grid[name] == pytest.approx(sorted(rows[column].dropna().unique()))
    assert set(grid["pairs"]) == set(rows["task"] + "/" + rows["sensitive"])
    assert set(grid["methods"]) == set(rows["method"])
    for names, tables in (("base_pairs", "Supp. Table 7"), ("pairs", "Supp. Table 13")):
        rows = published(table=tables)
        assert set(base[names]) == set(rows["task"] + "/" + rows["sensitive"])
    assert set(base["tasks"]) == set(published(table=["Supp. Table 6", "Supp. Table 15"])["task"])
    assert (base["resnet_pairs"], base["resnet_tasks"]) == (base["base_pairs"], base["tasks"])
