"""Malformed parameters and hostile files: each is one clear line and exit code 2, before anything is written.

Every case runs `batch.main` on a copy of the smoke parameters with one thing wrong. A case names what is
wrong and the words that its message must hold: the file or option, the offending key or value, the remedy.
"""

import gzip
import json
import math
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lassi_lib.study import batch, engine, params

ROOT = Path(__file__).resolve().parents[2]
FLOW = ROOT / "checkpoints" / "synthfaces48.safetensors"
PIPELINE, CLAIM = "pipeline.yaml", "01_claim1_certified_fairness.yaml"
KINDS, TRANSFER = "02_claim2_attribute_vectors.yaml", "03_claim3_transfer.yaml"
OUTLIERS, TRUTH = "05_outlier_analysis.yaml", "06_ground_truth.yaml"
EXACT, SENSITIVITY = "07_exact_certificates.yaml", "08_sensitivity.yaml"
BASE, AUDIT = "09_base_classifiers.yaml", "10_audit.yaml"
REMOVED = object()


class Desk:
    """A copy of params/smoke to spoil, an output folder with old results, an empty cache."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.params, self.out, self.cache = folder / "params", folder / "out", folder / "cache"
        (self.params / "smoke").mkdir(parents=True)
        for path in (ROOT / "params" / "smoke").iterdir():
            (self.params / "smoke" / path.name).write_bytes(path.read_bytes())
        self.change(PIPELINE, "data.n_test", 4)  # faces that the check of names draws
        self.out.mkdir()
        (self.out / "run.json").write_text("{}")
        monkeypatch.setattr(params, "PARAMS", self.params)
        monkeypatch.setattr(engine, "_ANSWER", "1s")
        for name in ("OUTPUT", "DATA_ROOT", "DEVICE", "WORKERS"):
            monkeypatch.setenv(f"LASSI_{name}", "")
        monkeypatch.setenv("LASSI_CACHE", str(self.cache))

    def change(self, file, key, value):
        """Set a dotted key of a params file, or remove it."""
        path = self.params / "smoke" / file
        content = yaml.safe_load(path.read_text())
        *parents, last = key.split(".")
        section = content
        for name in parents:
            section = section.setdefault(name, {})
        section[last] = value
        if value is REMOVED:
            del section[last]
        path.write_text(yaml.safe_dump(content))

    def error(self, *arguments):
        """Run, and return the one line that is said; nothing may have been written."""
        before = self.written()
        given = [] if "--output" in arguments else ["--output", str(self.out)]
        code = batch.main(["--profile", "smoke", "--device", "cpu", *given, *map(str, arguments)])
        lines = self.capsys.readouterr().err.splitlines()
        assert code == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert lines[0].isprintable() and len(lines[0]) < 900
        assert self.written() == before
        return lines[0]

    def written(self):
        files = [p for p in self.folder.rglob("*") if p.is_file() and self.params not in p.parents]
        return {p: p.read_bytes() for p in files}


@pytest.fixture
def desk(tmp_path, monkeypatch, capsys):
    return Desk(tmp_path, monkeypatch, capsys)


def says(line, *words):
    for word in words:
        assert word in line, f"{word!r} is not in: {line}"


# ---- pipeline.yaml: a value that cannot be --------------------------------------------------------

HUGE = 10**12


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("encodr", {"epochs": 3}, ["'encodr'", "did you mean 'encoder'"]),
        ("encoder.lerning_rate", 0.1, ["'encoder.lerning_rate'", "did you mean 'learning_rate'"]),
        ("methods.LASSI.lamda_2", 0.1, ["'methods.LASSI.lamda_2'", "did you mean 'lambda_2'"]),
        ("data.nam\x1b[31me", "x", ["unknown key 'data.nam\\x1b[31me'"]),
        ("data", REMOVED, ["'data' is missing"]),
        ("methods.LASSI.sigma_rs", REMOVED, ["'methods.LASSI.sigma_rs' is missing"]),
        ("glow", 3, ["'glow'", "section"]),
        ("methods", ["LASSI"], ["'methods'", "must be a mapping"]),
        ("methods.LASSI", None, ["'methods.LASSI'", "section", "None"]),
        ("encoder.hidden", 512, ["'encoder.hidden'", "list"]),
        ("encoder.hidden", [64, "x" * 10**5], ["'encoder.hidden[1]'", "whole number", "..."]),
        ("encoder.hidden", [64, 0], ["'encoder.hidden[1]'", "positive"]),
        ("encoder.epochs", True, ["'encoder.epochs'", "whole number", "True"]),
        ("encoder.epochs", 2.5, ["'encoder.epochs'", "whole number"]),
        ("encoder.epochs", 0, ["'encoder.epochs'", "positive"]),
        ("encoder.learning_rate", "1e-3", ["'encoder.learning_rate'", "write 1.0e-3"]),
        ("encoder.learning_rate", math.nan, ["'encoder.learning_rate'", "positive", "nan"]),
        ("encoder.learning_rate", math.inf, ["'encoder.learning_rate'", "at most 10", "inf"]),
        ("encoder.learning_rate", -1.0, ["'encoder.learning_rate'", "positive", "-1.0"]),
        ("encoder.learning_rate", 10**400, ["'encoder.learning_rate'", "a number"]),
        ("methods.Naive.sigma_rs", math.nan, ["'methods.Naive.sigma_rs'", "positive"]),
        ("methods.Naive.lambda_1", -0.5, ["'methods.Naive.lambda_1'", "0 to 1,000,000"]),
        ("methods.Naive.lambda_1", 0.0, ["'methods.Naive'", "no loss", "lambda_2"]),
        ("methods.LASSI.sampling", "bal", ["'methods.LASSI.sampling'", "ball, gaussian, box"]),
        ("methods.LASSI.batch_norm", 1, ["'methods.LASSI.batch_norm'", "separate, joint, frozen"]),
        ("exceptions", {"Smiling": {"LASI": {}}}, ["'exceptions.Smiling.LASI'", "did you mean 'LASSI'"]),
        ("exceptions", {"Smilin": {"LASSI": {}}}, ["'exceptions'", "Smilin", "did you mean 'Smiling'"]),
        ("exceptions", {"Smiling": {"LASSI": 3}}, ["'exceptions.Smiling.LASSI'", "mapping"]),
        ("data.name", "celebb", ["'data.name'", "celebb", "synthfaces, celeba"]),
        ("data.name", ["celeba"], ["'data.name'", "synthfaces, celeba"]),
        ("data.image_size", 50, ["'data.image_size'", "not divisible"]),
        ("data.image_size", HUGE, ["'data.image_size'", "1 to 1024", "1000000000000"]),
        ("data.n_train", HUGE, ["'data.n_train'", "0 to 10,000,000"]),
        ("data.n_test", -1, ["'data.n_test'", "0 to 10,000,000"]),
        ("data.seed", 2**64, ["'data.seed'", "18446744073709551616"]),
        ("data.dial", "Smiling", ["'data.dial'", "attribute ''"]),
        ("data.dial_phi", 2.0, ["'data.dial_phi'", "-1 to 1"]),
        ("glow.n_images", HUGE, ["'glow.n_images'", "10,000,000,000"]),
        ("glow.threads", HUGE, ["'glow.threads'", "1 to 1024"]),
        ("glow.flip", "yes please", ["'glow.flip'", "true or false"]),
        ("glow.n_blocks", 40, ["'glow.n_blocks'", "1 to 8"]),
        ("vector_type", "mean_diference", ["'vector_type'", "did you mean 'mean_difference'"]),
        ("vector_type", "degraded_900", ["'vector_type'", "0..180"]),
        ("certification.n_center", 100, ["n_center", "use at least"]),
        ("certification.n_votes", HUGE, ["'certification.n_votes'", "10,000,000,000"]),
        ("certification.alpha_cs", 1.5, ["'certification.alpha_cs'", "at most 1"]),
        ("certification.epsilon", 50, ["epsilon / sigma_cs", "larger sigma_cs"]),
        ("certification.quantile", "lower", ["'certification.quantile'", "higher, linear"]),
        ("minutes", {"01_claim1_certified_fairness": math.nan}, ["'minutes.01_claim1", "nan"]),
        ("discovery_classifier", "latant", ["'discovery_classifier'", "latant", "resnet18, latent"]),
    ],
)  # fmt: skip
def test_pipeline(desk, key, value, words):
    desk.change(PIPELINE, key, value)
    says(desk.error("--only", "00"), "smoke/pipeline.yaml", *words)


# ---- a notebook's parameters ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "key", "value", "words"),
    [
        (CLAIM, "pair", [], ["'pair'", "did you mean 'pairs'"]),
        (CLAIM, "seeds", REMOVED, ["'seeds' is missing"]),
        (CLAIM, "profile", "demo", ["'profile'", "'smoke'", "'demo'"]),
        (CLAIM, "seeds", [1, 1], ["'seeds'", "without repetitions"]),
        (CLAIM, "seeds", [], ["'seeds'", "not empty"]),
        (CLAIM, "seeds", [-1], ["'seeds[0]'", "0 to 4,294,967,295"]),
        (CLAIM, "seeds", [10**30], ["'seeds[0]'", "0 to 4,294,967,295"]),
        (CLAIM, "seeds", ["42"], ["'seeds[0]'", "whole number", "'42'", "write 42, without quotes"]),
        (CLAIM, "seeds", [True], ["'seeds[0]'", "whole number", "True"]),
        (CLAIM, "seeds", 42, ["'seeds'", "a list", "write [42]"]),
        (CLAIM, "seeds", "42", ["'seeds'", "a list", "write [42]"]),
        (CLAIM, "methods", ["LASI"], ["'methods'", "LASI", "did you mean 'LASSI'"]),
        (CLAIM, "methods", [["LASSI"]], ["'methods[0]'", "text"]),
        (CLAIM, "pairs", ["Smiling/Pale_Skn"], ["'pairs'", "Pale_Skn", "did you mean 'Pale_Skin'"]),
        (CLAIM, "pairs", ["Smilling/Young"], ["'pairs'", "Smilling", "did you mean 'Smiling'"]),
        (CLAIM, "pairs", ["Smiling/Smiling"], ["'pairs'", "twice"]),
        (CLAIM, "pairs", ["Smiling"], ["'pairs'", "'Task/Attribute'"]),
        (CLAIM, "pairs", [{"a": 1}], ["'pairs[0]'", "text"]),
        (CLAIM, "pairs", ["<script>alert(1)</script>/Young"], ["'pairs'", "<script>alert(1)<"]),
        (CLAIM, "pairs", ["a\nb\x1b]0;owned\x07/Young"], ["'pairs'", "a\\nb\\x1b]0;owned\\x07"]),
        (CLAIM, "confidence", 95, ["'confidence'", "0.5 to", "95.0"]),
        (CLAIM, "confidence", math.nan, ["'confidence'", "0.5 to"]),
        (CLAIM, "confidence", "0,95", ["'confidence'", "a number"]),
        (CLAIM, "min_fairness_gain", -3, ["'min_fairness_gain'", "0 to 99.999"]),
        (CLAIM, "device", "gpu", ["'device'", "auto, cpu, cuda"]),
        (CLAIM, "output", "/tmp/elsewhere", ["'output'", "be empty", "--output"]),
        (CLAIM, "interactive", 1, ["'interactive'", "true or false"]),
        (KINDS, "groups", ["x"], ["'groups[0]'", "mapping"]),
        (KINDS, "groups", [{"pair": []}], ["'groups[0].pair'", "did you mean 'pairs'"]),
        (KINDS, "groups", [{"pairs": ["Smiling/Young"], "vector_types": ["meen_difference"]}],
         ["'vector_types'", "did you mean 'mean_difference'"]),
        (KINDS, "task", "Smilng", ["'task'", "did you mean 'Smiling'"]),
        (TRANSFER, "probes", ["Mal"], ["'probes'", "did you mean 'Male'"]),
        (TRANSFER, "min_fairness", math.inf, ["'min_fairness'", "inf"]),
        (OUTLIERS, "phis", ["celeba"], ["'phis[0]'", "'CelebA'"]),
        (OUTLIERS, "phis", [2.0], ["'phis[0]'", "-1 to 1"]),
        (OUTLIERS, "faces_per_pair", HUGE, ["'faces_per_pair'", "1 to 1000"]),
        (OUTLIERS, "rendered", "../demo", ["profile '../demo' is unknown"]),
        (OUTLIERS, "dial_pair", "Smiling/Blond_Hair+Young", ["dial", "one attribute"]),
        (OUTLIERS, "judged_method", "Lassi", ["'judged_method'", "did you mean 'LASSI'"]),
        (OUTLIERS, "annotations", "/nowhere", ["'annotations'", "folder that exists", "/nowhere"]),
        (TRUTH, "modes", ["monte_carl"], ["monte_carl", "did you mean 'monte_carlo'"]),
        (TRUTH, "values", [math.nan], ["'values[0]'", "-1000 to 1000"]),
        (EXACT, "epsilons", [0.5, -1.0], ["'epsilons[1]'", "positive"]),
        (EXACT, "control_modes", ["exact"], ["'exact'", "did you mean 'exact_decision'"]),
        (SENSITIVITY, "sampling", ["gauss"], ["'sampling[0]'", "ball, gaussian, box"]),
        (SENSITIVITY, "sigma_rs", [0.0], ["'sigma_rs[0]'", "positive"]),
        (BASE, "resnet_pairs", ["Smiling/Yong"], ["'resnet_pairs'", "did you mean 'Young'"]),
        (BASE, "base_splits", ["tests"], ["'base_splits[0]'", "train, valid, test"]),
        (AUDIT, "top", 0, ["'top'", "positive"]),
        (AUDIT, "tolerance", True, ["'tolerance'", "a number"]),
    ],
)  # fmt: skip
def test_notebook_parameters(desk, file, key, value, words):
    desk.change(file, key, value)
    says(desk.error("--only", file[:2]), f"smoke/{file}", *words)


# ---- params files that are no plain YAML mapping ------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["key: value", "NoneType"]),
        (b"\n# nothing but a comment\n", ["key: value", "NoneType"]),
        (b"- profile\n- smoke\n", ["key: value", "list"]),
        (b"profile\n", ["key: value", "str"]),
        (b"profile: smoke\nprofile: demo\n", ["'profile'", "stands twice"]),
        (b"seeds: [1\n", ["not valid YAML", "line"]),
        (b"a: b: c\n", ["not valid YAML"]),
        (b"\tprofile: smoke\n", ["not valid YAML"]),
        (b"a: 1\n---\nb: 2\n", ["not valid YAML", "single document"]),
        (b"seeds: !!python/object/apply:os.system ['touch hacked']\n", ["not valid YAML", "os.system"]),
        (b"seeds: !!python/name:os.system\n", ["not valid YAML"]),
        (b"seeds: !include /etc/passwd\n", ["not valid YAML", "!include"]),
        (b"seeds: &s [1]\nmethods: *s\n", ["alias '*s'", "write the value out"]),
        (LAUGHS.encode(), ["alias '*a'"]),
        (b"<<: {profile: smoke}\n", ["not valid YAML"]),
        (b"? [a, b]\n: 1\n", ["key ['a', 'b']", "word"]),
        (b"1: 2\n", ["key 1", "word"]),
        (b"yes: 2\n", ["key True", "word"]),
        (b"seeds: 2001-13-45\n", ["not valid YAML", "month"]),
        (b"seeds: " + b"9" * 5000 + b"\n", ["not valid YAML", "digits"]),
        (b"seeds: 0x" + b"f" * 5000 + b"\n", ["'profile' is missing"]),
        (b"seeds: " + b"[" * 20_000, ["not valid YAML"]),
        (b"profile: sm\x00oke\n", ["not valid YAML", "special characters"]),
        (b"profile: \xff\xfe\n", ["not valid YAML", "utf-8"]),
        ("profile: smoke\n".encode("utf-16"), ["not valid YAML", "utf-8"]),
        (b"\x89PNG\r\n\x1a\n", ["not valid YAML"]),
        (b"#" * 1_000_001, ["larger than 1,000,000 bytes"]),
    ],
)  # fmt: skip
def test_files_that_are_no_mapping(desk, content, words):
    (desk.params / "smoke" / CLAIM).write_bytes(content)
    says(desk.error("--only", "01"), f"smoke/{CLAIM}", *words)
    assert not Path("hacked").exists()


def test_a_number_of_thousands_of_digits_is_not_written_out(desk):
    path = desk.params / "smoke" / CLAIM
    path.write_text(path.read_text().replace("0.95", f"0x{'f' * 5000}"))
    says(desk.error(), CLAIM, "'confidence'", "thousands of digits")


def test_a_folder_in_the_place_of_a_file(desk):
    (desk.params / "smoke" / CLAIM).unlink()
    (desk.params / "smoke" / CLAIM).mkdir()
    says(desk.error(), CLAIM, "cannot be read")


def test_a_params_file_without_its_notebook(desk):
    (desk.params / "smoke" / "77_x.yaml").write_text("profile: smoke\n")
    says(desk.error(), "77_x.yaml", "no notebook", "rename or remove")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ('profile: str = "demo"\nseeds: int = 3', ["unknown key 'data_root'", "known: profile, seeds"]),
        ('profile = "demo"', ["parameters cell", "name: type = value"]),
        ('profile: str = __import__("os").getcwd()', ["parameters cell"]),
        ("profile: str = 3", ["parameters cell", "str"]),
        (None, ["0 cells are tagged 'parameters'"]),
        ("", ["cannot be read as a notebook"]),
    ],
)
def test_a_notebooks_own_parameters_cell(desk, cell, words):
    folder = desk.folder / "params" / "notebooks"
    folder.mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / CLAIM.replace(".yaml", ".ipynb")
    content = json.loads(path.read_text())
    (found,) = [c for c in content["cells"] if "parameters" in c["metadata"].get("tags", ())]
    found["source"] = cell or ""
    found["metadata"]["tags"] = [] if cell is None else ["parameters"]
    path.write_text(json.dumps(content) if cell != "" else "{}")
    desk.monkeypatch.setattr(params, "NOTEBOOKS", folder)
    says(desk.error(), "01_claim1_certified_fairness", *words)


# ---- the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--profile", "dmeo"], ["'dmeo'", "--list"]),
        (["--profile", "../smoke"], ["'../smoke' is unknown"]),
        (["--profile", "/etc"], ["'/etc' is unknown"]),
        (["--profile", "sm\noke"], ["'sm\\noke' is unknown"]),
        (["--profile", "\x1b[31mred\x1b[0m"], ["'\\x1b[31mred\\x1b[0m' is unknown"]),
        (["--profile", "\u202egpj"], ["\\u202egpj"]),
        (["--profile", "x" * 100_000], ["is unknown", " ... "]),
        (["--profile", ""], ["profile '' is unknown"]),
        (["--profile"], ["--profile", "expected one argument", "--help"]),
        (["--profil", "smoke"], ["'--profil'", "did you mean '--profile'"]),
        (["smoke"], ["'smoke' is no option"]),
        (["--only", "77"], ["--only 77", "known: 00_"]),
        (["--only", "../../etc/passwd"], ["--only ../../etc/passwd"]),
        (["--only", ","], ["--only ,", "leave no notebook"]),
        (["--only", ""], ["leave no notebook"]),
        (["--only", "01", "--skip", "01"], ["--skip 01", "leave no notebook"]),
        (["--skip", "claim"], ["--skip claim"]),
        (["--seeds", "42;0"], ["--seeds 42;0", "42,0"]),
        (["--seeds", "1,1"], ["--seeds 1,1", "different"]),
        (["--seeds", "-1"], ["--seeds"]),
        (["--seeds", "1.5"], ["--seeds 1.5", "whole numbers"]),
        (["--seeds", "9" * 5000], ["--seeds 999", "below 2^32"]),
        (["--workers", "0"], ["--workers 0", "1 to"]),
        (["--workers", "-1"], ["--workers"]),
        (["--workers", "abc"], ["--workers abc", "whole number"]),
        (["--workers", "1e9"], ["--workers 1e9"]),
        (["--workers", "100000"], ["--workers 100000", "on this machine"]),
        (["--device", "tpu"], ["--device tpu", "auto, cpu, cuda"]),
        (["--scheduler", "garbage"], ["--scheduler garbage", "tcp://host:port"]),
        (["--scheduler", "http://x; rm -rf /"], ["--scheduler http", "tcp://host:port"]),
        (["--scheduler", "tcp://127.0.0.1:9"], ["--scheduler tcp://127.0.0.1:9", "no Dask scheduler"]),
        (["--scheduler", "nowhere.json"], ["--scheduler nowhere.json", ".json"]),
        (["--force", "encoders"], ["--force encoders", "did you mean 'encoder'"]),
        (["--keep-going", "--fail-fast"], ["--fail-fast", "not allowed with", "--keep-going"]),
        (["--dry-run=3"], ["--dry-run", "3"]),
        (["--output", "{base}/out/run.json"], ["--output", "run.json is a file", "name a folder"]),
        (["--output", "{base}/out/run.json/deeper"], ["--output", "run.json is a file"]),
        (["--output", "{base}/params"], ["--output", "not of this study"]),
        (["--output", "/"], ["--output /", "name a"]),
        (["--output", str(ROOT)], ["--output", "name a"]),
        (["--output", str(ROOT / "lassi_lib" / "new")], ["--output", "the study's own files"]),
        (["--output", str(ROOT / "params" / "smoke" / "new")], ["--output", "the study's own files"]),
        (["--output", str(ROOT / ".git" / "new")], ["--output", "the study's own files"]),
        (["--output", str(ROOT / "results" / ".." / "notebooks")], ["--output", "the study's own files"]),
        (["--output", str(ROOT / "results")], ["--output", "the study's own files"]),
        (["--output", "{base}/" + "x" * 300], ["--output", "name too long", "name a folder"]),
        (["--output", "a\0b"], ["--output a\\x00b", "null"]),
        (["--cache", "{base}/out/run.json"], ["--cache", "run.json is a file"]),
        (["--cache", "{base}/out/cache"], ["--cache", "the folder of the results"]),
    ],
)  # fmt: skip
def test_command_line(desk, arguments, words):
    line = desk.error(*(a.replace("{base}", str(desk.folder)) for a in arguments))
    assert all(word.lower() in line.lower() for word in words), line


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("LASSI_WORKERS", "many", ["LASSI_WORKERS=many", "whole number"]),
        ("LASSI_DEVICE", "tpu", ["LASSI_DEVICE=tpu", "auto, cpu, cuda"]),
        ("LASSI_CACHE", "{base}/out/run.json", ["LASSI_CACHE=", "is a file"]),
        ("LASSI_OUTPUT", "{base}/params", ["LASSI_OUTPUT=", "not of this study"]),
        ("LASSI_DATA_ROOT", "/nowhere", ["/nowhere", "mmlab", "img_align_celeba"]),
    ],
)
def test_environment(desk, variable, value, words):
    desk.monkeypatch.setenv(variable, value.replace("{base}", str(desk.folder)))
    if variable == "LASSI_DATA_ROOT":
        desk.change(PIPELINE, "data", {"name": "celeba", "image_size": 64})
    before = desk.written()
    assert batch.main(["--profile", "smoke"]) == 2
    (line,) = desk.capsys.readouterr().err.splitlines()
    says(line, "error: ", *words)
    assert desk.written() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(desk):
    says(desk.error("--device", "cuda"), "'cuda'", "no CUDA GPU", "--device auto or cpu")


def test_the_copy_that_the_cases_spoil_is_in_order(desk):
    common = ["--profile", "smoke", "--device", "cpu", "--output", str(desk.out), "--dry-run"]
    before = desk.written()
    assert batch.main(common) == 0
    assert desk.written() == before


# ---- checkpoints ---------------------------------------------------------------------------------------


class Bomb:
    """What a pickle does as soon as it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def header(content, length=None):
    """Return a safetensors file of a JSON header, whose length may be a lie."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


def poisoned(path, **changes):
    state = load_file(FLOW)
    with safe_open(FLOW, framework="pt") as file:
        metadata = file.metadata()
    name = "blocks.0.flows.0.coupling.net.0.weight"
    for what, value in changes.items():
        if what == "value":
            state[name][0, 0, 0, 0] = value
        elif what == "shape":
            state[name] = state[name][:-1].contiguous()
        elif what == "dtype":
            state[name] = state[name].to(value)
        else:
            metadata[what] = value
    save_file(state, path, metadata)


CHECKPOINTS = {
    "missing.safetensors": (lambda p: None, ["is missing"]),
    "empty.safetensors": (lambda p: p.write_bytes(b""), ["damaged"]),
    "cut.safetensors": (lambda p: p.write_bytes(FLOW.read_bytes()[:-1000]), ["damaged"]),
    "long_header.safetensors": (lambda p: p.write_bytes(header({}, 2**63)), ["damaged"]),
    "header_past_end.safetensors": (lambda p: p.write_bytes(header({}, 10**6)), ["damaged"]),
    "no_json.safetensors": (lambda p: p.write_bytes(header(b"{" * 1000)), ["damaged"]),
    "deep_json.safetensors": (lambda p: p.write_bytes(header(b'{"a":' * 10**5)), ["damaged"]),
    "huge_tensor.safetensors": (
        lambda p: p.write_bytes(
            header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
        ),
        ["damaged"],
    ),
    "negative.safetensors": (
        lambda p: p.write_bytes(header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}})),
        ["damaged"],
    ),
    "other.safetensors": (lambda p: save_file({"a": torch.zeros(2)}, p), ["no Glow checkpoint"]),
    "shape.safetensors": (lambda p: poisoned(p, shape=1), ["width 47 instead of 48"]),
    "nan.safetensors": (lambda p: poisoned(p, value=math.nan), ["NaN", "net.0.weight"]),
    "inf.safetensors": (lambda p: poisoned(p, value=-math.inf), ["infinity", "net.0.weight"]),
    "double.safetensors": (lambda p: poisoned(p, dtype=torch.float64), ["float64", "float32"]),
    "config_list.safetensors": (lambda p: poisoned(p, config="[1]"), ["damaged"]),
    "config_huge.safetensors": (lambda p: poisoned(p, config='{"image_size": 1e9}'), ["image_size"]),
    "config_no_json.safetensors": (lambda p: poisoned(p, config="{"), ["damaged"]),
    "info_text.safetensors": (lambda p: poisoned(p, info='"x"'), ["damaged"]),
    "pickle.safetensors": (lambda p: p.write_bytes(pickle.dumps(Bomb(p.parent / "boom"))), ["damaged"]),
    "bomb.pth": (lambda p: p.write_bytes(pickle.dumps(Bomb(p.parent / "boom"))), ["damaged"]),
    "zipped_bomb.pth": (lambda p: torch.save({"a": Bomb(p.parent / "boom")}, p), ["damaged"]),
    "legacy_bomb.pt": (
        lambda p: torch.save(Bomb(p.parent / "boom"), p, _use_new_zipfile_serialization=False),
        ["damaged"],
    ),
    "slipping.pth": (lambda p: slipping(p), ["damaged"]),
    "expanded.pth": (lambda p: torch.save(grown(), p), ["instead of"]),
    "list.pth": (lambda p: torch.save([1, 2], p), ["no Glow checkpoint"]),
    "notes.txt": (lambda p: p.write_text("hello"), ["must end in"]),
    "folder.pth": (lambda p: p.mkdir(), ["no Glow checkpoint"]),
}


def grown():
    """Return a state whose largest tensor claims terabytes and stores four bytes."""
    state = load_file(FLOW)
    state["blocks.0.flows.0.coupling.net.0.weight"] = torch.zeros(1).expand(10**12, 6, 3, 3)
    return state


def slipping(path):
    """Write an archive as torch's, whose members would land outside the folder it is unpacked in."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
        for where in ("../boom", str(path.parent / "boom"), "archive/data/../../../boom"):
            archive.writestr(where, b"x")


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(desk, name):
    write, words = CHECKPOINTS[name]
    path = desk.folder / name
    write(path)
    desk.change(PIPELINE, "glow.checkpoint", str(path))
    says(desk.error("--only", "01"), name, *words)
    assert not [*desk.folder.rglob("boom"), *desk.folder.parent.glob("boom")]


# ---- CelebA's and FairFace's files -----------------------------------------------------------------------


def celeba(folder):
    """Eighteen small images in CelebA's layout, a third in each split."""
    (folder / "img_align_celeba").mkdir(parents=True)
    files = [f"{i:06d}.jpg" for i in range(1, 19)]
    for file in files:
        Image.new("RGB", (64, 78), "grey").save(folder / "img_align_celeba" / file)
    rows = [f"{file} {'-1' if i % 2 else '1'} 1" for i, file in enumerate(files)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["18", "Smiling Young", *rows]) + "\n")
    (folder / "list_eval_partition.txt").write_text("".join(f"{f} {i % 3}\n" for i, f in enumerate(files)))


def fairface(folder):
    """Six small images in each part of FairFace's layout."""
    for part in ("train", "val"):
        (folder / part).mkdir(parents=True)
        lines = ["file,age,gender,race,service_test"]
        for i in range(1, 7):
            Image.new("RGB", (64, 64), "grey").save(folder / part / f"{i}.jpg")
            lines.append(f"{part}/{i}.jpg,20-29,Female,White,True")
        (folder / f"fairface_label_{part}.csv").write_text("\n".join(lines) + "\n")


def replaced(name, old, new):
    """Return a function that replaces a text in a file of a data folder; without `old`, the whole file."""

    def spoil(folder):
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new, 1) if old else new)

    return spoil


def dark(pixels):
    """Return a PNG of so many pixels a side, a few hundred bytes that unpack to gigabytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", pixels, pixels, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def zipped(name, content):
    def spoil(folder):
        (folder / name).unlink()
        (folder / f"{name}.gz").write_bytes(content)

    return spoil


ATTR, PART = "list_attr_celeba.txt", "list_eval_partition.txt"
THIRD = "img_align_celeba/000003.jpg"  # the first test image
WHOLE = gzip.compress(b"x" * 5000)
CELEBA = [
    (lambda f: (f / ATTR).unlink(), ["was not found", "expected layout"]),
    (lambda f: (f / PART).unlink(), [PART, "is missing", "mmlab"]),
    (lambda f: [p.unlink() for p in (f / "img_align_celeba").iterdir()], ["no CelebA image"]),
    (replaced(ATTR, b"", b""), [ATTR, "not CelebA's attribute file"]),
    (replaced(ATTR, b"18\n", b"many\n"), [ATTR, "not CelebA's attribute file"]),
    (replaced(ATTR, b"18\n", b"19\n"), [ATTR, "says 19 images"]),
    (replaced(ATTR, b"Smiling Young", b"Smiling"), [ATTR, "line 3", "1 labels"]),
    (replaced(ATTR, b"Smiling Young", b"Smiling Smiling"), [ATTR, "not CelebA's attribute file"]),
    (replaced(ATTR, b"Young", b"<script>alert(1)</script>"), [ATTR, "not CelebA's attribute file"]),
    (replaced(ATTR, b"Young", b"\x1b[31mYoung"), [ATTR, "not CelebA's attribute file"]),
    (replaced(ATTR, b"000005.jpg 1 1", b"000005.jpg 1"), [ATTR, "line 7", "2 labels, 1 or -1"]),
    (replaced(ATTR, b"000005.jpg 1 1", b"000005.jpg 1 7"), [ATTR, "line 7", "1 or -1"]),
    (replaced(ATTR, b"000005.jpg 1 1", b"000005.jpg 1 nan"), [ATTR, "line 7", "1 or -1"]),
    (replaced(ATTR, b"000005.jpg", b"000004.jpg"), [ATTR, "18 images", "17 different"]),
    (replaced(ATTR, b"Young", b"Yo\xffung"), [ATTR, "cannot be read", "utf-8"]),
    (zipped(ATTR, WHOLE[:-8]), [f"{ATTR}.gz", "cannot be read", "mmlab"]),
    (zipped(ATTR, WHOLE[:10] + b"\xff" * 20 + WHOLE[30:]), [f"{ATTR}.gz", "cannot be read"]),
    (zipped(ATTR, b"no gzip"), [f"{ATTR}.gz", "cannot be read", "Not a gzipped file"]),
    (replaced(PART, b"000005.jpg 1", b"000005.jpg 7"), [PART, "line 5"]),
    (replaced(PART, b"000005.jpg 1", b"000005.jpg -1"), [PART, "line 5"]),
    (replaced(PART, b"000005.jpg 1", b"000005.jpg"), [PART, "line 5"]),
    (replaced(PART, b"000005.jpg", b"000004.jpg"), [PART, "twice"]),
    (replaced(THIRD, b"", b"no image"), ["000003.jpg", "not a readable image", "get it again"]),
    (replaced(THIRD, b"", b""), ["000003.jpg", "not a readable image"]),
    (lambda f: (f / THIRD).write_bytes((f / THIRD).read_bytes()[:-40]), ["000003.jpg", "truncated"]),
    (replaced(THIRD, b"", dark(20_000)), ["000003.jpg", "not a readable image", "decompression bomb"]),
    (replaced(THIRD, b"", dark(8_500)), ["000003.jpg", "8500 x 8500 pixels"]),
    (lambda f: ((f / THIRD).unlink(), (f / THIRD).mkdir()), ["000003.jpg", "not a readable image"]),
]  # fmt: skip
VAL = "fairface_label_val.csv"
FAIRFACE = [
    (lambda f: (f / VAL).unlink(), ["was not found", "expected layout"]),
    (lambda f: [p.unlink() for p in (f / "val").iterdir()], ["no FairFace image", "'test'"]),
    (replaced(VAL, b"", b""), [VAL, "columns file, age, race"]),
    (replaced(VAL, b"file,age", b"file;age"), [VAL, "columns file, age, race"]),
    (replaced(VAL, b"20-29,Female,White,True", b"20-29"), [VAL, "line 2", "race"]),
    (replaced(VAL, b"20-29", b"200"), [VAL, "line 2", "age '200'"]),
    (replaced(VAL, b"White", b"<img src=x onerror=alert(1)>"), [VAL, "line 2", "race '<img"]),
    (replaced(VAL, b"val/2.jpg", b"val/1.jpg"), [VAL, "'val/1.jpg'", "2 rows"]),
    (replaced(VAL, b"20-29", b"2" * 200_000), [VAL, "field larger"]),
    (replaced(VAL, b"White", b"Wh\xffite"), [VAL, "utf-8"]),
    (replaced("val/3.jpg", b"", b"\x89PNG"), ["3.jpg", "not a readable image"]),
]  # fmt: skip


def on_real_data(desk, name, attributes):
    """Let the smoke profile ask for nothing but a few attributes of another data set."""
    desk.change(PIPELINE, "data", {"name": name, "image_size": 48})
    desk.change("00_generative_model.yaml", "attributes", attributes)
    return ["--only", "00", "--data-root", desk.folder / "data"]


@pytest.mark.parametrize("case", range(len(CELEBA)))
def test_files_of_celeba(desk, case):
    spoil, words = CELEBA[case]
    arguments = on_real_data(desk, "celeba", ["Smiling", "Young"])
    celeba(desk.folder / "data")
    spoil(desk.folder / "data")
    says(desk.error(*arguments), *words)


@pytest.mark.parametrize("case", range(len(FAIRFACE)))
def test_files_of_fairface(desk, case):
    spoil, words = FAIRFACE[case]
    arguments = on_real_data(desk, "fairface", ["Age-2", "Race=White"])
    fairface(desk.folder / "data")
    spoil(desk.folder / "data")
    says(desk.error(*arguments), *words)


@pytest.mark.parametrize(("name", "homepage"), [("celeba", "mmlab"), ("fairface", "joojs/fairface")])
@pytest.mark.parametrize("root", [[], ["--data-root", "/nowhere"], ["--data-root", str(FLOW)]])
def test_no_data_folder(desk, name, homepage, root):
    on_real_data(desk, name, [])
    says(
        desk.error("--only", "00", *root),
        homepage,
        "expected layout",
        "demo",
        root[-1] if root else "--data-root",
    )


@pytest.mark.parametrize(("name", "make", "attributes"), [
    ("celeba", celeba, ["Smiling"]), ("fairface", fairface, ["Age-2"]),
])  # fmt: skip
def test_the_data_folders_that_the_cases_spoil_are_in_order(desk, name, make, attributes):
    arguments = on_real_data(desk, name, attributes)
    make(desk.folder / "data")
    common = ["--profile", "smoke", "--device", "cpu", "--output", desk.out, "--dry-run"]
    assert batch.main([str(a) for a in (*common, *arguments)]) == 0


def test_a_damaged_training_image_is_one_line_too_and_results_stay(desk):
    """It is found when the images are read, not before; what was computed until then is kept."""
    arguments = on_real_data(desk, "celeba", ["Smiling", "Young"])
    celeba(desk.folder / "data")
    (desk.folder / "data" / "img_align_celeba" / "000001.jpg").write_bytes(b"no image")
    before = {p for p in desk.written() if p.is_relative_to(desk.out)}
    code = batch.main(
        ["--profile", "smoke", "--device", "cpu", "--output", str(desk.out), *map(str, arguments)]
    )
    lines = desk.capsys.readouterr().err.splitlines()
    assert code == 2 and len(lines) == 1
    says(lines[0], "error: ", "000001.jpg", "not a readable image", "get it again or remove it")
    assert {p for p in desk.written() if p.is_relative_to(desk.out)} == before
    assert not list(desk.cache.rglob("*.tmp"))
