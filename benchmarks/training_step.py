"""Seconds per LASSI training step: shared first-layer products against the plain formulation.

    python -m benchmarks.training_step --threads 2

Both sides start from the same weights and see the same batches and candidates, with the same fused
Adam, so the ratio measures the formulation alone. The floor is our step without the adversarial
term. The run fails if the losses of the first step differ by more than 1e-4 or the ratio is below 3.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time

import torch
from torch import nn

from lassi_lib import numerics
from lassi_lib.learning.objectives import Losses, Objective, losses
from lassi_lib.learning.representation import Representation, initialisation
from lassi_lib.similarity.sets import SimilaritySet
from lassi_lib.streams import torch_stream


def plain_losses(representation, head, z, y, objective, vectors=None, t=None) -> Losses:
    """Compute the same losses as `losses`, on materialised points z + t A (one [B, d] block a draw)."""
    r = representation(z)
    adv = r.new_zeros(())
    rows, labels = r, y
    if objective.augment:
        similar = representation(torch.cat([z + draw @ vectors for draw in t]))
        rows, labels = torch.cat([r, similar]), y.repeat(1 + len(t))
    if objective.lambda_2 > 0:
        was_training = representation.training
        representation.eval()
        with torch.no_grad():
            r_eval = representation(z)
            distances = torch.stack([(representation(z + draw @ vectors) - r_eval).norm(dim=1) for draw in t])
        representation.train(was_training)
        t_adv = t[distances.argmax(0), torch.arange(len(z))]
        adv = torch.relu((r - representation(z + t_adv @ vectors)).norm(dim=1)).mean()
    logits = head(rows)
    correct = (logits.argmax(1) == labels).sum()
    return Losses(nn.functional.cross_entropy(logits, labels), adv, correct, len(labels))


class Contestant:
    """A copy of the weights, its own optimiser, and the losses (cls, adv) and seconds of every step."""

    def __init__(self, loss_function, objective, representation, head) -> None:
        self.loss_function, self.objective = loss_function, objective
        self.representation, self.head = copy.deepcopy(representation).train(), copy.deepcopy(head)
        parameters = [*self.representation.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        self.losses, self.seconds = [], []

    def step(self, z, y, vectors, t) -> None:
        """Train on one batch."""
        start = time.perf_counter()
        batch = self.loss_function(self.representation, self.head, z, y, self.objective, vectors, t)
        loss = self.objective.lambda_1 * batch.cls + self.objective.lambda_2 * batch.adv
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append((batch.cls.item(), batch.adv.item()))


def main() -> None:
    """Measure, print a table and one line of JSON, and check both requirements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("threads", 2), ("steps", 3), ("d", 12_288), ("batch", 500), ("candidates", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()

    generator = torch_stream(0, "benchmark/training-step")
    similarity = SimilaritySet(torch.randn(1, args.d, generator=generator) * 0.1, epsilon=1.0)
    with initialisation(0, "benchmark/init"):
        representation, head = Representation(args.d), nn.Linear(512, 2)
    lassi = Objective("LASSI", lambda_2=0.05)
    contestants = {
        name: Contestant(function, objective, representation, head)
        for name, function, objective in (
            ("plain LASSI", plain_losses, lassi),
            ("LASSI", losses, lassi),
            ("DataAug", losses, Objective("DataAug", augment=True)),
            ("floor (Naive)", losses, Objective("Naive")),
        )
    }
    with numerics.threads(args.threads):
        for _ in range(args.steps + 1):  # in turns, so that other load on the machine meets all alike
            z = torch.randn(args.batch, args.d, generator=generator)
            y = (z[:, 0] > 0).long()
            t = similarity.sample((args.candidates, args.batch), generator)
            for contestant in contestants.values():
                contestant.step(z, y, similarity.vectors, t)

    report = {"threads": args.threads, "d": args.d, "batch": args.batch, "candidates": args.candidates}
    for name, contestant in contestants.items():
        report[name] = statistics.median(contestant.seconds[1:])  # the first step warms up
        print(f"{name:<14} {report[name]:8.3f} s/step")
    # Only the first step starts from equal weights: afterwards Adam amplifies the rounding.
    difference = torch.tensor(contestants["LASSI"].losses) - torch.tensor(contestants["plain LASSI"].losses)
    report["loss_difference"] = difference[0].abs().max().item()
    report["loss_difference_last_step"] = difference[-1].abs().max().item()
    report["ratio"] = report["plain LASSI"] / report["LASSI"]
    report["floor_ratio"] = report["plain LASSI"] / report["floor (Naive)"]
    print(f"plain / LASSI  {report['ratio']:8.2f} x   (plain / floor {report['floor_ratio']:.2f} x)")
    print(json.dumps(report))
    if report["loss_difference"] > 1e-4 or report["ratio"] < 3:
        raise SystemExit("training_step: losses must agree to 1e-4 and the ratio must be at least 3")


if __name__ == "__main__":
    main()
