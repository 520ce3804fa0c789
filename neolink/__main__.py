# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m neolink` is the command `neolink`."""
import sys

from neolink.cli import main

if __name__ == "__main__":
    sys.exit(main())
