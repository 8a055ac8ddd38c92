"""``capsnet probe``: where capsule networks stop scaling, and which limit comes first.

A study is cells; each is measured in a process of its own, whose time and memory a parent watches, and leaves a record.

what a study is and how it runs
    study.py, studies/   the declaration; those that come with the package, and what they share
    run.py, todo.py      its cells one by one; what is left, from the records alone
    watch.py             one cell within its limits; footprint.py: the least that any takes
    records.py           what is known of the cells; collect.py: all of it in three files
    limits.py, report/   what it found; the page
what a cell does, by the study's measure
    cost.py              seconds and memory, of passes.py
    learning.py          a real run of training
    ranks.py             a step of several ranks, of rank_step.py, and a real run
    streaming.py         the input alone, of streamed_set.py and photographs.py, from object_server.py over slow_link.py
    command.py           the package's own commands, as cells run them
the network between ranks
    network.py           allreduce timed (allreduce.py) and fitted; link.py: links of imposed speed
    scaling.py           a model of many ranks
    together.py          programs that ranks run together
"""
