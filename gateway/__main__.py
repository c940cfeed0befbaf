"""``python -m gateway`` runs the command `gateway`."""

import sys

from gateway.cli.serve import main

sys.exit(main())
