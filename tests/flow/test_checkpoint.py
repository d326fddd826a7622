"""Checkpoints: own and the authors' files load strictly; bad ones are refused in one line."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lassi_lib.errors import StudyError
from lassi_lib.flow.checkpoint import load_glow, save_glow
from lassi_lib.flow.glow import Glow, GlowConfig

from .flows import random_glow, random_images

CONFIG = GlowConfig(16, n_steps=2, n_blocks=3, width=8)


@pytest.fixture
def glow():
    return random_glow(CONFIG)


def refused(path, *, config=None):
    """Return the one-line text with which `path` is refused."""
    with pytest.raises(StudyError) as caught:
        load_glow(path, config)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("affine", [False, True])
def test_saved_glow_comes_back_bit_for_bit(tmp_path, affine):
    glow = random_glow(GlowConfig(16, 2, 3, 8, affine))
    save_glow(tmp_path / "a.safetensors", glow, {"history": [{"step": 1, "bits_per_dim": 1.25}]})
    again, info = load_glow(tmp_path / "a.safetensors")
    assert again.config == glow.config and not again.training
    assert info == {"history": [{"step": 1, "bits_per_dim": 1.25}]}
    x = random_images(3, 16)
    assert torch.equal(again.encode(x), glow.encode(x))
    again.log_prob(x).sum().backward()  # still a model that can be trained
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["config"])["n_blocks"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]  # no temporary file is left


@pytest.mark.parametrize("prefix", ["", "module.", "generator.module."])
@pytest.mark.parametrize("end", ["pth", "pt"])
def test_state_dicts_load_with_any_prefix(tmp_path, glow, prefix, end):
    path = tmp_path / f"model_last.{end}"
    torch.save({prefix + n: t for n, t in glow.state_dict().items()}, path)
    again, info = load_glow(path, CONFIG)
    assert info == {} and list(again.state_dict()) == list(glow.state_dict())
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in glow.state_dict().items())


@pytest.mark.parametrize("affine", [False, True])
def test_config_is_read_off_the_shapes(tmp_path, affine):
    config = GlowConfig(64, n_steps=3, n_blocks=2, width=5, affine=affine)
    torch.save(random_glow(config).state_dict(), tmp_path / "model_1.pth")
    assert load_glow(tmp_path / "model_1.pth")[0].config == config


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model_1.pth", "model_2.pth", "model_10.pt", "model_200.txt"], "model_10.pt"),
        (["model_9.pth", "model_best.pt", "optim_99.pth"], "model_best.pt"),
        (["model_best.pth", "model_last.pt"], "model_last.pt"),
        (["model_last.pth", "model_last.pt"], "model_last.pth"),
    ],
)
def test_a_folder_is_read_by_the_authors_rule(tmp_path, glow, names, chosen):
    for name in names:  # only the right file is a flow
        torch.save(glow.state_dict() if name == chosen else {}, tmp_path / name)
    assert load_glow(tmp_path, CONFIG)[0].config == CONFIG


def test_a_folder_without_checkpoint_and_a_missing_file_are_refused(tmp_path):
    assert "holds no Glow checkpoint" in refused(tmp_path)
    assert "is missing" in refused(tmp_path / "none.safetensors")
    (tmp_path / "notes.txt").write_text("hello")
    assert "must end in" in refused(tmp_path / "notes.txt")


@pytest.mark.parametrize("end", ["safetensors", "pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files_are_refused(tmp_path, glow, end, share):
    path = tmp_path / f"cut.{end}"
    if end == "pth":
        torch.save(glow.state_dict(), path)
    else:
        save_glow(path, glow, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is damaged or of another kind" in refused(path)


def test_foreign_files_are_refused(tmp_path, glow):
    path = tmp_path / "foreign.pth"
    path.write_text("not a checkpoint")
    assert "is damaged or of another kind" in refused(path)
    torch.save(glow, path)  # a pickled object could run code: only tensors are read
    assert "is damaged or of another kind" in refused(path)
    for content in ([1, 2], {"a": torch.zeros(2)}, {}, {1: 2}, glow.state_dict() | {"epoch": torch.zeros(1)}):
        torch.save(content, path)
        refused(path)
    torch.save(glow.state_dict() | {"blocks.0.note": "text"}, path)
    assert "tensors alone" in refused(path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors", {"format": "pt"})
    assert "is no Glow checkpoint" in refused(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("name", ["actnorm.initialized", "invconv.s_sign", "coupling.net.0.bias"])
def test_a_missing_tensor_is_refused(tmp_path, glow, name):
    state = glow.state_dict()
    del state[f"blocks.1.flows.1.{name}"]
    torch.save(state, tmp_path / "model_last.pth")
    text = refused(tmp_path / "model_last.pth", config=CONFIG)
    assert f"'blocks.1.flows.1.{name}' is missing" in text


def test_unusable_weights_are_refused(tmp_path, glow):
    path = tmp_path / "bad.safetensors"
    with torch.no_grad():
        glow.blocks[2].flows[0].invconv.w_s[3] = float("nan")
    save_glow(path, glow, {})
    assert "'blocks.2.flows.0.invconv.w_s' holds NaN" in refused(path)
    save_glow(path, Glow(CONFIG), {})
    assert "never trained" in refused(path)
    torch.save(random_glow(CONFIG).double().state_dict(), tmp_path / "bad.pth")
    assert "float64" in refused(tmp_path / "bad.pth", config=CONFIG)


def test_another_config_is_refused(tmp_path, glow):
    path = tmp_path / "a.safetensors"
    save_glow(path, glow, {})
    text = refused(path, config=GlowConfig(32, 2, 3, 16))
    assert "image_size 16 instead of 32, width 8 instead of 16" in text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[1]", "damaged"),
        ("{", "damaged"),
        ('{"image_size": "64"}', "image_size is 64"),
        ('{"image_size": 1e9}', "image_size"),
        ('{"image_size": 1000000000}', "image_size"),
        ('{"image_size": -4}', "image_size"),
    ],
)
def test_metadata_that_cannot_be_are_refused(tmp_path, glow, config, words):
    save_file(glow.state_dict(), tmp_path / "a.safetensors", {"config": config})
    assert words in refused(tmp_path / "a.safetensors")


def test_a_tensor_that_claims_more_than_is_stored_is_refused(tmp_path, glow):
    """A stride of 0 makes gigabytes of four bytes; nothing may be computed from them."""
    state = glow.state_dict()
    shape = state["blocks.1.flows.1.invconv.w_s"].shape
    state["blocks.1.flows.1.invconv.w_s"] = torch.zeros(1).expand(shape)
    torch.save(state, tmp_path / "model_last.pth")
    assert "'blocks.1.flows.1.invconv.w_s' is larger than what is stored" in refused(
        tmp_path / "model_last.pth"
    )
    state["blocks.0.flows.0.coupling.net.0.weight"] = torch.zeros(1).expand(10**9, 6, 3, 3)  # a width, then
    torch.save(state, tmp_path / "model_last.pth")
    assert "'blocks.0.flows.0.coupling.net.0" in refused(tmp_path / "model_last.pth")
