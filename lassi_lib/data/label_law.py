"""The joint law of CelebA's labels, as a Gaussian copula small enough to ship as a table.

Every attribute a has a latent standard normal x_a and the label 1[x_a > tau_a], where tau_a is fixed
by the attribute's rate. The latents have the correlation ``R = L L^T + diag(1 - |L_a|^2)``; the
loadings L [A, k] are fitted so that the *conditional* rates P(a | b) match the annotations. A low
rank keeps R a correlation matrix by construction; clipping the matrix of pairwise (tetrachoric)
correlations to a positive definite one does not reproduce the rates.

Some pairs conflict. The pairs on which published results rest (a task with a sensitive attribute)
therefore weigh more than the others.

``python -m lassi_lib.data.label_law list_attr_celeba.txt OUT.csv`` makes the shipped table anew.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy import optimize

from lassi_lib.errors import StudyError
from lassi_lib.streams import numpy_stream, torch_stream

TABLE = Path(__file__).with_name("celeba_label_law.csv")

# The CelebA attributes of the published tables, tasks first ...
TASKS = (
    "Smiling", "Wearing_Earrings", "Attractive", "Wearing_Hat", "Wearing_Necklace", "High_Cheekbones",
    "Oval_Face", "Mouth_Slightly_Open", "Heavy_Makeup", "Wearing_Lipstick", "Wavy_Hair",
    "Arched_Eyebrows",
)  # fmt: skip
SENSITIVE = (
    "Pale_Skin", "Young", "Blond_Hair", "Bald", "Big_Lips", "Chubby", "Narrow_Eyes", "Bags_Under_Eyes",
    "Brown_Hair",
)  # fmt: skip
# ... and some that make the faces, and the correlations between the others, more natural.
COMPANIONS = (
    "Male", "Black_Hair", "Gray_Hair", "Rosy_Cheeks", "Double_Chin", "Bangs", "Bushy_Eyebrows",
    "Big_Nose", "Eyeglasses", "No_Beard",
)  # fmt: skip
ATTRIBUTES = (*TASKS, *SENSITIVE, *COMPANIONS)

# Pairs (task, sensitive) of ECCV Tables 1 and 3 and of the reproduction's Tables 4, 5 and 8.
PUBLISHED_PAIRS = tuple(
    (task, s)
    for tasks, sensitive in (
        ("Smiling Wearing_Earrings", "Pale_Skin Young Blond_Hair Heavy_Makeup"),
        ("Smiling Attractive Wearing_Hat Wearing_Necklace", "Bald Big_Lips Chubby Narrow_Eyes"),
        ("Wearing_Hat Oval_Face", "Bags_Under_Eyes Brown_Hair Pale_Skin Young"),
        ("High_Cheekbones", "Pale_Skin Young"),
        ("Pale_Skin", "Young Blond_Hair"),
        ("Young", "Blond_Hair"),
    )
    for task in tasks.split()
    for s in sensitive.split()
)
PUBLISHED_WEIGHT = 100.0
RANK = 10
BLOCK = 1024  # rows drawn from one random stream

# Share of a label's latent variance that is the annotator's own and cannot be seen in the picture. Fixed
# by accuracy alone: one small CNN, trained in the same way on 16,000 CelebA faces and on 16,000 rendered
# ones, should do equally well. The largest shares would be 0.7 to 0.8; 0.5 keeps something to see.
NOISE = dict.fromkeys(ATTRIBUTES, 0.08) | {
    **dict.fromkeys(("Wearing_Hat", "Eyeglasses", "Bangs", "Male"), 0.05),
    **dict.fromkeys(("No_Beard", "Black_Hair", "Brown_Hair"), 0.15),
    **dict.fromkeys(("High_Cheekbones", "Chubby", "Double_Chin"), 0.2),
    **dict.fromkeys(("Young", "Attractive", "Bushy_Eyebrows"), 0.3),
    **dict.fromkeys(("Wearing_Earrings", "Arched_Eyebrows"), 0.4),
    **dict.fromkeys(("Wearing_Necklace", "Oval_Face", "Wavy_Hair", "Big_Lips", "Narrow_Eyes"), 0.5),
    **dict.fromkeys(("Bags_Under_Eyes", "Big_Nose"), 0.5),
}


@dataclass(frozen=True)
class LabelLaw:
    """Marginal rates, pairwise rates and the fitted copula.

    Attributes
    ----------
    names : tuple of str
        The A attributes.
    rates : numpy.ndarray
        [A] P(a), measured.
    joint : numpy.ndarray
        [A, A] P(a and b), measured.
    loadings : numpy.ndarray
        [A, k] the fitted L; every row is shorter than 1.
    noise : numpy.ndarray
        [A] share of the latent's variance that is the annotator's own, at most 1 - |L_a|^2.
    """

    names: tuple[str, ...]
    rates: np.ndarray
    joint: np.ndarray
    loadings: np.ndarray
    noise: np.ndarray

    @property
    def thresholds(self) -> np.ndarray:
        """[A] tau_a with P(x_a > tau_a) = P(a)."""
        return torch.special.ndtri(torch.from_numpy(1 - self.rates)).numpy()

    def draw(self, n: int, *, seed: int, stream: str = "labels") -> tuple[np.ndarray, np.ndarray]:
        """Draw n labelled faces, without any picture.

        A latent has three parts, ``x = (L u + sqrt(1 - |L|^2 - noise) e) + sqrt(noise) e'``: the bracket
        is what the picture shows, e' is the annotator. Their sum has the fitted law whatever the noise, so
        all label probabilities are exact; given the picture, annotators err independently.
        Rows come in blocks, each from its own random stream: row i does not depend on n.

        Returns
        -------
        labels : numpy.ndarray
            uint8 [n, A].
        margins : numpy.ndarray
            float64 [n, A]: the bracket in units of its standard deviation, minus the value at which
            half of the annotators say yes.
        """
        a, k = self.loadings.shape
        own = np.sqrt(np.maximum(1 - (self.loadings**2).sum(1) - self.noise, 0))
        drawn = []
        for b in range(-(-n // BLOCK)):  # whole blocks: sums are formed in the same order whatever n
            g = numpy_stream(seed, f"label_law/{stream}", b).standard_normal((BLOCK, k + 2 * a))
            shown = np.einsum("nk,ak->na", g[:, :k], self.loadings) + own * g[:, k : k + a]
            labels = shown + np.sqrt(self.noise) * g[:, k + a :] > self.thresholds
            drawn.append((labels, (shown - self.thresholds) / np.sqrt(1 - self.noise)))
        labels, margins = (np.concatenate(part)[:n] for part in zip(*drawn, strict=True))
        return labels.astype(np.uint8), margins

    @property
    def phi(self) -> np.ndarray:
        """[A, A] phi coefficient of every pair of labels, as drawn (the fitted law, not the counts)."""
        return _phi(self.rates, self.loadings @ self.loadings.T)

    def dialled(self, task: str, attribute: str, phi: float) -> LabelLaw:
        """Return this law with another correlation between the labels of `task` and `attribute`.

        Only the attribute's loadings x move. Among those that give `phi` they change its latent correlations
        with the 29 others least (in squares):

            min sum_k ((x - L_attribute) . L_k)^2,  where  x . L_task = rho(phi),  |x|^2 <= 1 - noise.

        Loadings of rank 10 cannot move one correlation alone: what is close to the task (High_Cheekbones
        to Smiling) moves along. All rates stay, and all correlations between other attributes; drawn
        with the same seed, no face's other labels and margins differ in one bit.

        Raises
        ------
        StudyError
            If the picture and the annotators' noise do not allow this phi; the range is named.
        """
        t, s = self.names.index(task), self.names.index(attribute)
        rates, L, own = self.rates[[t, s]], self.loadings[t], self.loadings[s]
        joint = rates.prod() + phi * np.sqrt((rates * (1 - rates)).prod())
        rho = tetrachoric(rates, np.array([[rates[0], joint], [joint, rates[1]]]))[0, 1]
        most = max(1 - self.noise[s], own @ own)
        reach = np.sqrt(most * (L @ L)) * (1 - 1e-6)
        if abs(rho) > reach:
            ends = " to ".join(
                f"{_phi(rates, np.array([[1, r], [r, 1]]))[0, 1]:.3f}" for r in (-reach, reach)
            )
            raise StudyError(f"phi {phi:g} of {task} and {attribute} is out of reach: use {ends}")
        others = np.delete(self.loadings, [t, s], axis=0)
        gram = others.T @ others

        def moved(mu: float) -> np.ndarray:  # mu: the multiplier of |x|^2
            u, v = np.linalg.solve(gram + mu * np.eye(len(L)), np.stack([gram @ own, L], axis=1)).T
            return u + (rho - L @ u) / (L @ v) * v

        x = moved(0.0)
        if x @ x > most:  # |x| falls with mu, to |rho| / |L|
            x = moved(10 ** optimize.brentq(lambda e: (moved(10**e) ** 2).sum() - most, -12, 9))
        loadings = self.loadings.copy()
        loadings[s] = x
        return replace(self, loadings=loadings)


def _phi(rates: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Return phi [A, A] of labels with rates [A] whose latents correlate by rho [A, A]."""
    tau = torch.special.ndtri(torch.from_numpy(1 - rates))
    joint = bivariate_upper(tau[:, None], tau[None], torch.from_numpy(rho).clamp(-0.9999, 0.9999)).numpy()
    sd = np.sqrt(rates * (1 - rates))
    phi = (joint - np.outer(rates, rates)) / np.outer(sd, sd)
    np.fill_diagonal(phi, 1.0)
    return phi


def bivariate_upper(h: torch.Tensor, k: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """P(X > h, Y > k) for standard normals of correlation rho, differentiable in rho.

    Sheppard's formula: the product of the marginals plus an integral over the correlation, here in
    the angle asin(rho) by Gauss-Legendre quadrature (error below 1e-7 for \\|rho\\| < 0.99).
    """
    nodes, weights = np.polynomial.legendre.leggauss(48)
    nodes, weights = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    angle = torch.asin(rho)[..., None]
    theta = angle * nodes
    h, k = h[..., None], k[..., None]
    density = torch.exp(-(h * h + k * k - 2 * h * k * theta.sin()) / (2 * theta.cos() ** 2))
    independent = torch.special.ndtr(-h) * torch.special.ndtr(-k)
    return independent[..., 0] + (angle * density * weights).sum(-1) / (2 * np.pi)


def tetrachoric(rates: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Return the latent correlation of every pair, [A, A], from P(a) [A] and P(a and b) [A, A]."""
    tau = torch.special.ndtri(torch.from_numpy(1 - rates))
    low, high = torch.full(joint.shape, -0.999, dtype=torch.float64), torch.full(joint.shape, 0.999).double()
    for _ in range(40):  # bisection: the joint rate grows with the correlation
        middle = (low + high) / 2
        below = bivariate_upper(tau[:, None], tau[None], middle) < torch.from_numpy(joint)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    rho = ((low + high) / 2).numpy()
    np.fill_diagonal(rho, 1.0)
    return rho


def fit_loadings(
    rates: np.ndarray,
    joint: np.ndarray,
    weights: np.ndarray,
    *,
    rank: int = RANK,
    noise: float | np.ndarray,
    seed: int = 0,
) -> np.ndarray:
    """Fit L [A, rank] to the conditional rates P(a | b) of all ordered pairs, weighted by `weights`.

    Parameters
    ----------
    rates : numpy.ndarray
        [A] P(a).
    joint : numpy.ndarray
        [A, A] P(a and b).
    weights : numpy.ndarray
        [A, A], symmetric; see `pair_weights`.
    rank : int
        Columns of L.
    noise : float or numpy.ndarray
        Bounds ``1 - |L_a|^2`` from below, for all attributes or for each [A]: that much of a label is the
        annotator's own.
    seed : int
        Perturbs the start, the leading eigenvectors of the tetrachoric correlations.
    """
    a = len(rates)
    tau = torch.special.ndtri(torch.from_numpy(1 - rates))
    i, j = np.triu_indices(a, 1)
    target = torch.from_numpy(joint[i, j])
    p, w = torch.from_numpy(rates), torch.from_numpy(weights[i, j].copy())
    most = 1 - torch.as_tensor(noise, dtype=torch.float64).expand(a)[:, None]
    # start: leading eigenvectors of the tetrachoric matrix
    values, vectors = np.linalg.eigh(tetrachoric(rates, joint))
    raw = torch.from_numpy(vectors[:, -rank:] * np.sqrt(np.maximum(values[-rank:], 0.1)))
    raw = raw + 0.05 * torch.randn(
        raw.shape, generator=torch_stream(seed, "label_law/fit"), dtype=torch.float64
    )
    raw.requires_grad_()

    def loadings() -> torch.Tensor:
        return raw * (most / (1 + (raw**2).sum(1, keepdim=True))).sqrt()

    def loss() -> torch.Tensor:
        rho = (loadings() @ loadings().T)[i, j]
        error = bivariate_upper(tau[i], tau[j], rho) - target
        return (w * error**2 * (p[i] ** -2 + p[j] ** -2)).sum() / w.sum()

    optimiser = torch.optim.LBFGS([raw], max_iter=1500, history_size=50, line_search_fn="strong_wolfe",
                                  tolerance_grad=1e-10, tolerance_change=1e-14)  # fmt: skip

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    return loadings().detach().numpy()


def pair_weights() -> np.ndarray:
    """Return the weights [A, A] of the fit: `PUBLISHED_WEIGHT` for the published pairs, else 1."""
    w = np.ones((len(ATTRIBUTES), len(ATTRIBUTES)))
    for task, sensitive in PUBLISHED_PAIRS:
        i, j = ATTRIBUTES.index(task), ATTRIBUTES.index(sensitive)
        w[i, j] = w[j, i] = PUBLISHED_WEIGHT
    return w


def make_table(annotations: str | Path, out: str | Path) -> None:
    """Compute the shipped table from the official annotation file and write it to `out` (CSV)."""
    from lassi_lib.data.celeba import read_attributes

    path = Path(annotations)
    if not path.is_file() or path.name.removesuffix(".gz") != "list_attr_celeba.txt":
        raise StudyError(
            f"'{path}' is not there, or not CelebA's list_attr_celeba.txt or its .gz: name that file"
        )
    names, table = read_attributes(path.parent)
    y = np.stack(list(table.values()))[:, [names.index(a) for a in ATTRIBUTES]].astype(np.float64)
    joint = y.T @ y / len(y)
    rates = joint.diagonal().copy()
    noise = np.array([NOISE[a] for a in ATTRIBUTES])
    loadings = fit_loadings(rates, joint, pair_weights(), noise=noise)
    columns = [
        "attribute",
        "rate",
        "noise",
        *(f"loading_{k + 1}" for k in range(RANK)),
        *(f"and_{a}" for a in ATTRIBUTES),
    ]
    lines = [
        f"# Rates of CelebA's attributes over all {len(y):,} official annotations (list_attr_celeba.txt).",
        "# Liu, Luo, Wang, Tang: Deep Learning Face Attributes in the Wild, ICCV 2015. Aggregates only.",
        "# rate = P(a), and_b = P(a and b), loading_* and noise: the copula of lassi_lib/data/label_law.py.",
        "# Made by: python -m lassi_lib.data.label_law list_attr_celeba.txt celeba_label_law.csv",
        ",".join(columns),
    ]
    for a, name in enumerate(ATTRIBUTES):
        numbers = [noise[a], *loadings[a].round(4), *joint[a].round(6)]
        lines.append(",".join([name, f"{rates[a]:.6f}", *(f"{v:g}" for v in numbers)]))
    Path(out).write_text("\n".join(lines) + "\n")


@cache
def celeba_label_law(path: Path = TABLE) -> LabelLaw:
    """Read the shipped table."""
    rows = [line.split(",") for line in path.read_text().splitlines() if not line.startswith("#")][1:]
    names = tuple(row[0] for row in rows)
    numbers = np.array([row[1:] for row in rows], dtype=np.float64)
    k = numbers.shape[1] - 2 - len(names)
    return LabelLaw(names, numbers[:, 0], numbers[:, 2 + k :], numbers[:, 2 : 2 + k], numbers[:, 1])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m lassi_lib.data.label_law list_attr_celeba.txt[.gz] OUT.csv")
    try:
        make_table(*sys.argv[1:])
    except StudyError as error:
        sys.exit(f"error: {error}")
