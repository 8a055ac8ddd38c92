"""``capsnet evaluate``: a checkpoint's score in full.

counts.py   what a batch adds: sums, so that ranks can share the records
report.py   from counts to numbers
table.py    as a table, for a terminal
plots.py    calibration and confusion
board.py    into TensorBoard
output.py   where all of it goes
run.py      one test set after another
"""
