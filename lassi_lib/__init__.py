"""A reproducibility study of LASSI: certified individual fairness for image classifiers.

Notebooks use only what this module offers. Names are imported when first used, so that
``import lassi_lib`` stays fast and `run_all.py --list` never loads torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "StudyError": "errors",
    # data
    "FaceDataset": "data.dataset",
    "load_dataset": "data.dataset",
    "quantise": "data.preprocess",
    "to_uint8": "data.preprocess",
    # flow
    "Glow": "flow.glow",
    "GlowConfig": "flow.glow",
    "load_glow": "flow.checkpoint",
    # similarity
    "SimilaritySet": "similarity.sets",
    "attribute_vector": "similarity.vectors",
    # learning
    "Representation": "learning.representation",
    "train_representation": "learning.train",
    "train_classifier": "learning.classifier",
    # certification
    "CertificationSpec": "certification.certify",
    "certify": "certification.certify",
    # study
    "Study": "study.study",
    "Experiment": "study.experiment",
    "Question": "study.experiment",
    "experiments_of": "study.experiment",
    "results_folder": "study.results",
    "save_rows": "study.results",
    "save_verdict": "study.results",
    "provenance": "study.provenance",
    "label_table": "study.faces",
    "reconstructions": "study.faces",
    "traversals": "study.faces",
    "vector_table": "study.faces",
    "flow_table": "study.faces",
    "flow_history": "study.faces",
    "flow_verdict": "study.faces",
    "published": "study.published",
    "table_1": "study.published",
    "with_published": "study.published",
    "published_side_by_side": "study.published",
    "clopper_pearson": "study.statistics",
    "rate_interval": "study.statistics",
    "holm": "study.statistics",
    "summarise": "study.statistics",
    "paired_difference": "study.statistics",
    "compare": "study.statistics",
    "VerdictRule": "study.verdicts",
    "claim_1_verdict": "study.verdicts",
    "fairness_by_mode": "study.exactness",
    "gap_by_mode": "study.exactness",
    "undecided_text": "study.exactness",
    "looseness": "study.exactness",
    "radius_sweep": "study.exactness",
    "control_table": "study.exactness",
    "counterexamples": "study.exactness",
    "counterexamples_by_pair": "study.exactness",
    "own_radius": "study.exactness",
    "one_attribute": "study.exactness",
    "merk_beside_eccv": "study.published",
    "PUBLISHED_KINDS": "study.claims",
    "kinds_of": "study.claims",
    "vector_kinds_table": "study.claims",
    "named_by_kind": "study.claims",
    "stacked": "study.claims",
    "papers_data_set": "study.claims",
    "published_beside": "study.claims",
    "knowledge_table": "study.claims",
    "transfer_verdict": "study.claims",
    "varied": "study.sensitivity",
    "variants": "study.sensitivity",
    "sensitivity_table": "study.sensitivity",
    "certificate_grid": "study.sensitivity",
    "beside_supplement": "study.sensitivity",
    "readable_grid": "study.sensitivity",
    "sampling_text": "study.sensitivity",
    "knowledge_along": "study.sensitivity",
    "lambda_steps": "study.sensitivity",
    "jump_verdict": "study.sensitivity",
    "save_table": "study.tables",
    "present": "study.tables",
    "side_by_side": "study.tables",
    "find_annotations": "study.annotations",
    "associations": "study.associations",
    "celeba_associations": "study.associations",
    "printed_cells": "study.associations",
    "beside_printed": "study.associations",
    "definitions_tried": "study.associations",
    "common_factors": "study.associations",
    "associations_text": "study.associations",
    "readable_beside": "study.associations",
    "table_8_text": "study.associations",
    "audit": "study.audit",
    "checks_made": "study.audit",
    "ranked": "study.audit",
    "readable_findings": "study.audit",
    "unchecked": "study.audit",
    "audit_verdict": "study.audit",
    "relative_position": "study.audit",
    "accuracy_margins": "study.audit",
    "attainable_summary": "study.audit_arithmetic",
    "expected_by_chance": "study.audit_comparison",
    "resolution": "study.audit_comparison",
    "limits_in_sd": "study.audit_comparison",
    "table_8_cells": "study.audit_labels",
    "own_associations": "study.outliers",
    "published_outliers": "study.outliers",
    "published_outliers_text": "study.outliers",
    "pair_table": "study.outliers",
    "pair_means": "study.outliers",
    "regress": "study.outliers",
    "outlier_table": "study.outliers",
    "explanations_verdict": "study.outliers",
    "combined_verdict": "study.outliers",
    "strips": "study.strips",
    "strip_table": "study.strips",
    "true_images": "study.ground_truth",
    "true_answers": "study.ground_truth",
    "kept": "study.ground_truth",
    "truth_table": "study.ground_truth",
    "readable_truth": "study.ground_truth",
    "beside_table_19": "study.ground_truth",
    "true_distances": "study.ground_truth",
    "ground_truth_verdict": "study.ground_truth",
    "dialled": "study.causes",
    "swapped": "study.causes",
    "dialled_law": "study.causes",
    "phi_effects": "study.causes",
    "kind_effects": "study.causes",
    "causes_verdict": "study.causes",
    # display
    "use_style": "display.style",
    "save_figure": "display.style",
    "montage": "display.faces",
    "reconstruction_figure": "display.faces",
    "traversal_figure": "display.faces",
    "fairness_bars": "display.certificates",
    "accuracy_bars": "display.certificates",
    "radius_scatter": "display.certificates",
    "history_curve": "display.certificates",
    "mode_dots": "display.exactness",
    "slack_curves": "display.exactness",
    "radius_lines": "display.exactness",
    "counterexample_figure": "display.exactness",
    "setting_lines": "display.sensitivity",
    "norm_bars": "display.certificates",
    "strip_figure": "display.outliers",
    "outlier_scatter": "display.outliers",
    "kept_dots": "display.ground_truth",
    "true_strips": "display.ground_truth",
    "prediction_figure": "display.audit",
    "majority_figure": "display.audit",
    "association_dumbbells": "display.audit",
    "association_heatmap": "display.audit",
    "phi_lines": "display.causes",
    "kind_dots": "display.causes",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'lassi_lib' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"lassi_lib.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
