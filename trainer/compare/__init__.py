"""``capsnet compare``: arms trained under one budget, scored, tabulated and drawn. See run.py."""
