"""`make bench`: Posthof, Postfix, Exim and OpenSMTPD side by side. `python tests/bench/run.py --help`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # tests/: the packages bench and kit
    from bench.main import main

    sys.exit(main(sys.argv[1:]))
