"""Modules that users bring: what meets the interface is taken as it is, what does not is one line."""

import copy

import pytest
import torch
from torch import nn

from lassi_lib.errors import StudyError
from lassi_lib.learning.representation import Representation
from lassi_lib.study.own_models import OwnFlow, adapt, load_models, standardised

Z = torch.randn(16, 12, generator=torch.Generator().manual_seed(0))


def mlp(*layers, train_first=True):
    """A Sequential whose BatchNorms have seen something, in eval mode."""
    model = nn.Sequential(*layers)
    for _ in range(3 if train_first else 0):
        model(Z + 1)
    return model.eval().requires_grad_(False)


FOLDABLE = [
    lambda: mlp(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)),
    lambda: mlp(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3)),
    lambda: mlp(
        nn.Flatten(),
        nn.Sequential(nn.Linear(12, 8, bias=False), nn.BatchNorm1d(8, affine=False), nn.ReLU()),
        nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.ReLU(), nn.Identity(), nn.Linear(6, 2, bias=False)),
    ),
    lambda: mlp(nn.Linear(12, 8), nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
    lambda: (mlp(nn.Linear(12, 8), nn.ReLU()), nn.Linear(8, 2)),
    lambda: (Representation(12, (8,), 4).eval(), nn.Linear(4, 2)),
    lambda: mlp(nn.Linear(12, 2)),
]


@pytest.mark.parametrize("make", FOLDABLE)
def test_piecewise_linear_classifiers_are_folded_without_changing_an_answer(make):
    given = make()
    own = adapt(given, Z)
    assert own.why_not == "" and hasattr(own.encoder, "folded_layers")
    with torch.no_grad():
        answer = given[1](given[0](Z)) if isinstance(given, tuple) else given(Z)
        assert torch.allclose(own.head(own.encoder(Z)), answer, atol=1e-5)
        layers = own.encoder.folded_layers()
        x = Z.double()
        for i, (weight, bias) in enumerate(layers):
            x = (x.relu() if i else x) @ weight.T + bias
        assert torch.allclose(own.head(x.float()), answer, atol=1e-5)


class Doubled(nn.Sequential):
    """A Sequential that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: mlp(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, 2)), "it contains GELU"),
        (lambda: mlp(nn.ReLU(), nn.Linear(12, 2)), "it contains ReLU at its start"),
        (lambda: mlp(nn.BatchNorm1d(12), nn.Linear(12, 2)), "it contains BatchNorm1d"),
        (lambda: Doubled(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 2)).eval(), "it contains Doubled"),
        (lambda: lambda z: z[:, :2].sin(), "it contains function"),
        (lambda: (nn.Flatten().eval(), nn.Linear(12, 2)), "it has no Linear layer"),
    ],
)
def test_others_are_called_and_it_is_said_why(make, why):
    given = make()
    own = adapt(given, Z)
    assert own.why_not == why and not hasattr(own.encoder, "folded_layers")
    with torch.no_grad():
        answer = given[1](given[0](Z)) if isinstance(given, tuple) else given(Z)
        assert torch.allclose(own.head(own.encoder(Z)), answer, atol=1e-6)


def test_the_key_follows_weights_and_answers():
    first, again, other = FOLDABLE[0](), None, None
    again, other = copy.deepcopy(first), copy.deepcopy(first)
    other[2].bias += 0.1
    keys = [adapt(m, Z).key for m in (first, again, other)]
    assert keys[0] == keys[1] != keys[2]


def noisy(z):
    return z[:, :2] + torch.randn(len(z), 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8)), "BatchNorm1d in training mode: call .eval()"),
        (nn.Sequential(nn.Linear(12, 2), nn.Dropout()), "Dropout in training mode"),
        (
            nn.Sequential(nn.Linear(12, 2), nn.BatchNorm1d(2, track_running_stats=False)).eval(),
            "depends on chance or on the other faces",
        ),
        (noisy, "depends on chance"),
        (lambda z: z[:, 0], "returns shape [16] where [16, any] is needed"),
        (lambda z: z[:3], "returns shape [3, 12]"),
        (lambda z: z.argmax(1, keepdim=True), "returns torch.int64: return floating-point"),
        (lambda z: z.numpy(), "returns a ndarray: return a torch.Tensor"),
        (lambda z: z[:, :2] / 0, "values that are not finite"),
        (lambda z: z[:, :1], "1 logit: return one per class"),
        (nn.Linear(7, 2), "RuntimeError: "),
        ((nn.Flatten(), nn.ReLU()), "a pair (encoder, torch.nn.Linear head)"),
        ((nn.Flatten(), nn.Linear(7, 2)), "the head takes 7 values, but the encoder returns 12"),
        ("a name", "is a str: return a module"),
    ],
)
def test_a_classifier_that_cannot_be_audited_is_one_line(given, words):
    with pytest.raises(StudyError) as error:
        adapt(given, Z)
    assert words in str(error.value) and "\n" not in str(error.value)


ENCODERS = [  # alone: whether it can be folded
    (lambda: mlp(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5)), True),
    (lambda: mlp(nn.Linear(12, 8), nn.ReLU()), True),
    (lambda: Representation(12, (8,), 4).eval(), True),
    (lambda: mlp(nn.Linear(12, 8), nn.Tanh()), False),
    (lambda: lambda z: z[:, :3].sin(), False),
]


@pytest.mark.parametrize(("make", "foldable"), ENCODERS)
def test_an_encoder_alone_is_centred_and_in_units_of_its_spread(make, foldable):
    """Shift and scale are all that changes: neither which faces lie close nor whether it can be folded."""
    given = make()
    own = adapt(given, Z, "encoder")
    assert own.head is None and (own.why_not == "") == foldable
    sample = torch.randn(200, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain, found = given(Z), standardised(own, sample).encoder(Z)
        of_sample = standardised(own, sample).encoder(sample)
    assert of_sample.mean(0).abs().max() < 1e-5 and of_sample.var(0).mean() == pytest.approx(1, rel=1e-4)
    factor = (plain[0] - plain[1]).norm() / (found[0] - found[1]).norm()
    assert torch.allclose(plain - plain[0], factor * (found - found[0]), atol=1e-5)
    assert hasattr(standardised(own, sample).encoder, "folded_layers") == foldable

    def other_units(z):
        return 1e-4 * given(z) + 7e-4

    with torch.no_grad():
        again = standardised(adapt(other_units, Z, "encoder"), sample).encoder(Z)
    assert torch.allclose(again, found, atol=1e-3)


def test_the_key_of_an_encoder_alone_follows_what_it_is_measured_on():
    own = adapt(ENCODERS[0][0](), Z, "encoder")
    keys = [standardised(own, z).key for z in (Z, Z.clone(), Z[:8])]
    assert keys[0] == keys[1] != keys[2] and adapt(own.encoder, Z).key not in (own.key, *keys)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (noisy, "your encoder's answer to a face depends on chance"),
        (lambda z: z[:, 0], "your encoder returns shape [16] where [16, any] is needed"),
        ((nn.Flatten(), nn.Linear(12, 2)), "your encoder is a tuple: return a module"),
        (nn.Sequential(nn.Linear(12, 2), nn.Dropout()), "your encoder has a Dropout in training mode"),
        (nn.Linear(7, 2), "your encoder: RuntimeError: "),
        (lambda z: 0 * z + 0.1, "your encoder answers the same for 200 training images"),
        (lambda z: z if len(z) < 20 else z / 0, "your encoder returns values that are not finite"),
    ],
)
def test_an_encoder_that_no_classifier_can_be_trained_on_is_one_line(given, words):
    with pytest.raises(StudyError) as error:
        standardised(adapt(given, Z, "encoder"), Z.repeat(13, 1)[:200])
    assert words in str(error.value) and "\n" not in str(error.value)


class Halves(nn.Module):
    """The smallest flow: latents are pixels, halved."""

    image_size = 4

    def encode(self, x):
        return x.flatten(1) / 2

    def decode(self, z):
        return 2 * z.unflatten(1, (3, 4, 4))


def test_a_flow_of_ones_own_is_used_as_the_study_uses_its_own():
    flow = OwnFlow(Halves().eval())
    x = torch.rand(300, 3, 4, 4) - 0.5
    assert flow.latent_dim == 48 and torch.equal(flow.decode(flow.encode(x)), x)
    assert flow.log_prob(x).isnan().all()
    module = Halves()
    module.log_prob = lambda x: -x.square().flatten(1).sum(1)
    assert torch.equal(OwnFlow(module).log_prob(x), module.log_prob(x))
    assert flow.to(torch.device("cpu")).key() == OwnFlow(Halves()).key()
    other = Halves()
    other.encode = lambda x: x.flatten(1) / 3
    assert OwnFlow(other).key() != flow.key()


def test_a_flow_gets_everything_on_the_device_it_was_moved_to():
    """Meta tensors stand in for a GPU's: they have no values, so the answers come from the CPU."""

    class Moved(Halves):
        seen = ()

        def encode(self, x):
            self.seen += (("encode", x.device.type),)
            return torch.zeros(len(x), 48)

        def decode(self, z):
            self.seen += (("decode", z.device.type),)
            return torch.zeros(len(z), 3, 4, 4)

        def log_prob(self, x):
            self.seen += (("log_prob", x.device.type),)
            return torch.zeros(len(x))

    module = Moved()
    flow = OwnFlow(module).to(torch.device("meta"))
    module.seen = ()
    flow.key()
    flow.log_prob(torch.zeros(2, 3, 4, 4))
    assert module.seen == (("encode", "meta"), ("decode", "meta"), ("log_prob", "meta"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("encode", lambda x: x, "flow's encode returns shape [2, 3, 4, 4] where [2, any]"),
        ("encode", lambda x: x.flatten(1).long(), "flow's encode returns torch.int64"),
        ("encode", lambda x: x.flatten(1) / 0, "flow's encode returns values that are not finite"),
        ("decode", lambda z: z, "flow's decode returns shape [2, 48] where [2, 3, 4, 4]"),
        ("decode", lambda z: 1 / 0, "your flow's decode: ZeroDivisionError"),
        ("image_size", 4.0, "image_size must be a whole number of pixels, not 4.0"),
        ("norm", nn.BatchNorm2d(3), "your flow has a BatchNorm2d in training mode"),
    ],
)
def test_a_flow_that_cannot_be_used_is_one_line(name, value, words):
    module = Halves()
    setattr(module, name, value)
    with pytest.raises(StudyError) as error:
        OwnFlow(module)
    assert words in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(StudyError, match="your flow has no encode"):
        OwnFlow(nn.Linear(1, 1))


def test_a_file_of_models_is_run_with_its_neighbours(tmp_path):
    (tmp_path / "my_neighbour.py").write_text("from torch import nn\nhead = nn.Linear(12, 2)\n")
    path = tmp_path / "mine.py"
    path.write_text("import my_neighbour\n\ndef classifier():\n    return my_neighbour.head\n")
    found = load_models(path)
    assert list(found) == ["classifier"] and found["classifier"](Z).shape == (16, 2)
    path.write_text("import my_neighbour\n\ndef encoder():\n    return my_neighbour.head\n\nflow = str\n")
    found = load_models(path)
    assert list(found) == ["flow", "encoder"] and found["encoder"](Z).shape == (16, 2)
    cases = {
        "def flow():\n    1 / 0\n": "mine.py defines neither of classifier() and encoder()",
        "encoder = None\n\ndef classifier():\n    1 / 0\n": "mine.py defines both of classifier() and encoder()",
        "def encoder():\n    pass\n": "mine.py, encoder() returns None",
        "def classifier():\n    raise KeyError('a\\nb')\n": "mine.py, classifier(): KeyError",
        "import nothing_of_that_name\n": "mine.py cannot be read: ModuleNotFoundError",
        "def flow(:\n": "mine.py cannot be read: SyntaxError",
    }
    for text, words in cases.items():
        path.write_text(text)
        with pytest.raises(StudyError) as error:
            load_models(path)
        assert words in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(StudyError, match="must be a Python file"):
        load_models(tmp_path / "weights.pt")
