"""Manage API tokens: python3 token_manager.py --help"""

import os
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent / ".venv"

try:
    from gateway.cli.tokens import main
except ModuleNotFoundError as missing:
    # Called with the system's Python: what is needed lies where `make run` has put it.
    if Path(sys.prefix) == VENV or not (VENV / "bin" / "python").exists():
        sys.exit(f"token_manager.py needs {missing.name}. Run `make run` once: it installs everything into .venv.")
    os.execv(VENV / "bin" / "python", [str(VENV / "bin" / "python"), __file__, *sys.argv[1:]])  # noqa: S606

if __name__ == "__main__":
    sys.exit(main())
