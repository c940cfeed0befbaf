"""Manage API tokens: python token_manager.py --help"""

import sys

from gateway.cli import main

if __name__ == "__main__":
    sys.exit(main())
