#!/usr/bin/env python3
"""Run the study: `python run_all.py` computes every experiment and renders every notebook."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  an older Python shall say so, in words that it can read
    sys.stderr.write("error: the study needs Python 3.11 or newer, this is %d.%d\n" % sys.version_info[:2])  # noqa: UP031
    sys.exit(2)

if __name__ == "__main__":
    from lassi_lib.study.options import require_packages

    require_packages()  # before anything imports them
    from lassi_lib.study.batch import main
    from lassi_lib.study.notebooks import leave

    leave(main())
