"""What TensorBoard shows of a run, written by rank 0 into the run's folder.

    tags.py      where each value stands, and the explanation beside it
    look.py      a forward and backward pass over a few records that is watched
    routing.py   from a look to values: is routing alive?
    alarm.py     the state that capsule networks die in
    pictures.py  reconstructions, poses varied, coupling maps
    figures.py   the confusion matrix
    said.py      configuration, hyperparameters, layout of the Custom Scalars page
    values.py    values of an event
    board.py     the one writer

Train and test curves are tags of one run ('accuracy/train', 'accuracy/test') and not two runs, so that a run is one
name in TensorBoard; a layout for its Custom Scalars page draws them in one chart.
"""

from trainer.summaries.board import Board, take_back

__all__ = ["Board", "take_back"]
