"""``capsnet probe``: where capsule networks stop scaling, and which limit comes first.

A study is cells; each is measured in a process of its own, whose time and memory a parent watches, and leaves a record.
"""
