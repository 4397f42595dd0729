"""``python -m rivage.cli``: the command, for whoever has this Python but not its scripts on the path."""

import sys

from rivage.cli.app import main

sys.exit(main())
