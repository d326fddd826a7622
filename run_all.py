#!/usr/bin/env python3
"""Run the study: `python run_all.py` computes every experiment and renders every notebook."""

import sys

from lassi_lib.study.batch import main

if __name__ == "__main__":
    sys.exit(main())
