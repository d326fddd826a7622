"""Training: it learns, resumes to the same bits, and stops with a clear line when it breaks down."""

import warnings
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lassi_lib.errors import StudyError
from lassi_lib.flow import train
from lassi_lib.flow.glow import GlowConfig, bits_per_dim, round_trip_error
from lassi_lib.flow.train import GlowTraining, train_glow
from lassi_lib.streams import torch_stream

from .flows import random_bytes

CONFIG = GlowConfig(8, n_steps=2, n_blocks=2, width=8)
RECIPE = GlowTraining(n_images=16 * 30, batch_size=16, warmup_steps=5, threads=1)


@pytest.fixture(scope="module")
def images():
    return random_bytes(70, 8)


def same(a, b):
    return all(torch.equal(t, b.state_dict()[n]) for n, t in a.state_dict().items())


def test_training_learns_and_keeps_the_round_trip(images):
    recipe = replace(RECIPE, n_images=16 * 150, learning_rate=3e-3)
    glow, history = train_glow(images, CONFIG, recipe, seed=0)
    assert [line["step"] for line in history] == [50, 100, 150]
    # three of four pixels repeat a neighbour: far fewer than 5 bits are needed
    assert history[-1]["bits_per_dim"] < history[0]["bits_per_dim"] - 1
    assert bits_per_dim(glow, images, generator=torch_stream(0, "test")) < 3.5
    assert round_trip_error(glow, images) < 1e-5
    assert not glow.training


def test_interrupted_training_ends_as_if_it_had_not_been(images, tmp_path, monkeypatch):
    whole, history = train_glow(images, CONFIG, RECIPE, seed=0)
    step = train._Run._one_step

    def interrupted(run):
        if run.step == 17:
            raise KeyboardInterrupt
        return step(run)

    path = tmp_path / "state.safetensors"
    monkeypatch.setattr(train._Run, "_one_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path, checkpoint_minutes=0)
    taken = []
    monkeypatch.setattr(train._Run, "_one_step", lambda run: taken.append(run.step) or step(run))
    resumed, again = train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path)
    assert taken == list(range(17, 30))
    assert same(resumed, whole) and again == history
    # once finished, the same call only reads the result
    finished, again = train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path)
    assert taken == list(range(17, 30)) and same(finished, whole) and again == history
    assert [p.name for p in tmp_path.iterdir()] == ["state.safetensors"]


def test_seed_decides_and_the_global_generator_is_left_alone(images):
    before = torch.get_rng_state()
    first, _ = train_glow(images, CONFIG, RECIPE, seed=0)
    torch.manual_seed(123)
    second, _ = train_glow(images, CONFIG, RECIPE, seed=0)
    other, _ = train_glow(images, CONFIG, RECIPE, seed=1)
    torch.set_rng_state(before)
    assert same(first, second) and not same(first, other)
    train_glow(images, CONFIG, RECIPE, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_state_of_another_run_or_damaged_is_refused(images, tmp_path):
    path = tmp_path / "state.safetensors"
    train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path)
    with pytest.raises(StudyError, match=r"of another run \(training, seed differ\): delete it"):
        train_glow(images, CONFIG, replace(RECIPE, flip=False), seed=1, checkpoint_path=path)
    with pytest.raises(StudyError, match=r"\(images differ\)"):
        train_glow(images.flip(0), CONFIG, RECIPE, seed=0, checkpoint_path=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StudyError, match=r"damaged .*: delete it") as caught:
        train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path)
    assert "\n" not in str(caught.value)


def change_a_weight(path):
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    tensors["model.blocks.0.flows.0.actnorm.loc"].flatten()[0] += 1e-3
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("damage", [change_a_weight, lambda path: path.write_bytes(path.read_bytes()[:-100])])
def test_a_damaged_state_is_deleted_with_a_warning_and_training_starts_afresh(images, tmp_path, damage):
    path = tmp_path / "state.safetensors"
    whole, _ = train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path)
    train.discard_if_damaged(path)
    assert path.exists()
    damage(path)
    with pytest.raises(StudyError, match=r"damaged .*: delete it"):
        train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path)
    with pytest.warns(UserWarning, match="is damaged: training starts afresh"):
        train.discard_if_damaged(path)
    assert not path.exists()
    train.discard_if_damaged(path)
    assert same(train_glow(images, CONFIG, RECIPE, seed=0, checkpoint_path=path)[0], whole)


@pytest.mark.parametrize("rate", [1e12, float("inf")])
def test_a_breakdown_names_the_step_and_the_remedy(images, rate):
    recipe = replace(RECIPE, learning_rate=rate, warmup_steps=1)
    with pytest.raises(StudyError, match=r"broke down at step \d+ .*lower learning_rate") as caught:
        train_glow(images, CONFIG, recipe, seed=0)
    assert "\n" not in str(caught.value)


def test_rate_warms_up_and_decays():
    recipe = GlowTraining(n_images=6400, batch_size=10, learning_rate=1.0, warmup_steps=40)
    assert [recipe.rate(s) for s in (0, 19, 39, 40)] == pytest.approx([1 / 40, 0.5, 1, 1])
    assert recipe.rate(340) == pytest.approx(0.5)
    assert recipe.rate(639) < 1e-4
    assert replace(recipe, decay=False).rate(639) == 1


def test_gradient_is_clipped(images, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(parameters, limit):
        parameters = list(parameters)
        before = clip(parameters, limit)
        norms.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())
        return before

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    train_glow(images, CONFIG, replace(RECIPE, clip_norm=0.01, n_images=64), seed=0)
    assert len(norms) == 4 and norms == pytest.approx([0.01] * 4, rel=1e-3)


def test_batches_flip_whole_images_and_repeat_by_step_alone(images):
    run = train._Run(images, CONFIG, RECIPE, 0, torch.device("cpu"), None)
    plain = train._Run(images, CONFIG, replace(RECIPE, flip=False), 0, torch.device("cpu"), None)
    assert torch.equal(run._batch(3), run._batch(3))
    noise = [(run._batch(step) + 0.5) * 32 % 1 for step in (0, 1, 4)]
    assert len({part.mean().item() for part in noise}) == 3  # fresh in every step and epoch

    def bins(x):  # the noise never leaves a bin
        return ((x + 0.5) * 32).floor().clamp(max=31)

    flipped = 0
    for step in range(4):  # one epoch is 4 batches of 70 images
        a, b = bins(run._batch(step)), bins(plain._batch(step))
        is_flipped = (a == b.flip(-1)).flatten(1).all(1)
        assert (is_flipped | (a == b).flatten(1).all(1)).all()
        flipped += is_flipped.sum().item()
    assert 16 <= flipped <= 48


def test_impossible_recipes_are_refused(images):
    with pytest.raises(StudyError, match="batch_size is 100: it must lie in 2 to 70"):
        train_glow(images, CONFIG, replace(RECIPE, batch_size=100), seed=0)
    with pytest.raises(StudyError, match="learning_rate is 0"):
        train_glow(images, CONFIG, replace(RECIPE, learning_rate=0), seed=0)


def test_mixed_precision_needs_cuda(images):
    with pytest.warns(UserWarning, match="mixed precision needs CUDA, not cpu: training in float32"):
        mixed, _ = train_glow(images, CONFIG, replace(RECIPE, mixed=True), seed=0)
    assert same(mixed, train_glow(images, CONFIG, RECIPE, seed=0)[0])


def test_mixed_precision_ends_when_the_round_trip_fails(images, monkeypatch):
    run = train._Run(images, CONFIG, RECIPE, 0, torch.device("cpu"), None)
    run.mixed = True
    run._check_mixed()
    assert run.mixed  # an exact round trip: it may go on
    monkeypatch.setattr(train, "round_trip_error", lambda *_: float("nan"))
    with pytest.warns(UserWarning, match="round-trip error nan at step 0, on in float32"):
        run._check_mixed()
    assert not run.mixed


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")
@pytest.mark.parametrize("mixed", [False, True])
def test_training_on_cuda_gives_a_usable_flow(images, mixed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        glow, history = train_glow(images, CONFIG, replace(RECIPE, mixed=mixed), seed=0, device="cuda")
    assert history[-1]["bits_per_dim"] < 6
    assert round_trip_error(glow, images.cuda()) < 1e-3
