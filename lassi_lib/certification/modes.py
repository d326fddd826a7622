"""The certificate's modes: what each one says, and for how many attributes it is offered."""

from __future__ import annotations

import math

# mode -> largest number of sensitive attributes; a module of the same name certifies one point
MODES = {
    "monte_carlo": math.inf,  # smoothed R and C, with probability 1 - alpha: as published
    "exact_smoothing": 1,  # smoothed R and C, without sampling
    "exact_decision": 3,  # R and C as they are: verified, refuted with a witness, or undecided
    "empirical": math.inf,  # R and C as they are, at some points: can refute, never verify
}
FAIR = ("CERTIFIED", "VERIFIED", "PASSED")  # the statuses that count as fair
ABSTAINED = ("ABSTAINED_CENTER", "ABSTAINED_CLASSIFIER")
STATUSES = (*FAIR, "NOT_CERTIFIED", "REFUTED", "UNDECIDED", *ABSTAINED)
