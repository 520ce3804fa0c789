# Copyright (C) 2026 The neolink authors. SPDX-License-Identifier: GPL-2.0-or-later
"""neolink against real NEO nodes. Peers that are not installed are skipped; `peers` says how to point at them."""
