"""``capsnet doctor``: whether this installation can do what the package does, and the mend where it cannot.

Whatever could crash or hang is tried in a process of its own.
"""
