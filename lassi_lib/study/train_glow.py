"""Train a profile's flow and write its checkpoint: `python -m lassi_lib.study.train_glow --profile demo`.

The same command serves every data set. It says which bits/dim was reached on the test split and
fails if that is above the profile's bound (`glow.bits_per_dim_at_most`).
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from lassi_lib.errors import StudyError, one_line
from lassi_lib.study.options import Parser
from lassi_lib.study.params import load_pipeline


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code (1: the bound was missed, 2: user's mistake)."""
    p = Parser(allow_abbrev=False, prog="python -m lassi_lib.study.train_glow", description=__doc__)
    p.add_argument("--profile", default="demo", help="whose data and flow (default: demo)")
    p.add_argument("--data-root", default="", metavar="DIR", help="folder of the data set's official files")
    p.add_argument("--output", required=True, metavar="FILE", help="checkpoint to write (.safetensors)")
    p.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    try:
        args = p.parse_args(argv)
        return train(args.profile, args.data_root, Path(args.output), args.device)
    except StudyError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last saved step", file=sys.stderr)
        return 130


def train(profile: str, data_root: str, output: Path, device: str) -> int:
    """Train (or resume, or take from the cache) and write `output`; return the exit code."""
    from lassi_lib.flow.checkpoint import save_glow
    from lassi_lib.study.study import Study

    if output.suffix != ".safetensors":
        raise StudyError(f"--output {output} must end in .safetensors")
    if not output.parent.is_dir():
        raise StudyError(f"--output {output}: folder {output.parent} does not exist, create it first")
    pipeline = load_pipeline(profile)
    pipeline = dataclasses.replace(pipeline, glow=dataclasses.replace(pipeline.glow, checkpoint=""))
    study = Study(pipeline, data_root=data_root, device=device)
    glow, history = study.glow(), study.glow_info()["history"]
    facts, bound = study.latent_facts("test"), pipeline.glow.bits_per_dim_at_most
    reached = {k: facts[k] for k in ("bits_per_dim", "max_reconstruction_error")}
    save_glow(output, glow.cpu(), {"history": history, "profile": profile, **reached})
    print(f"{output}: {facts['bits_per_dim']:.3f} bits/dim on the test split (bound {bound:g})")
    return 0 if facts["bits_per_dim"] <= bound else 1


if __name__ == "__main__":
    sys.exit(main())
