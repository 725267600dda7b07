"""``python -m anomem``: the same as the command ``anomem``."""

from __future__ import annotations

from anomem.cli.main import main

if __name__ == "__main__":
    main()
