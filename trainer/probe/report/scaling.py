"""The section that goes beyond what was measured: to 512 GPUs, with what is assumed and how far the model is off."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape

from trainer.model.costs import FORWARD_AND_BACKWARD
from trainer.probe import limits, network
from trainer.probe import scaling as model
from trainer.probe.limits import CENTRE, Found
from trainer.probe.network import Measured
from trainer.probe.scaling import Link, Work
from trainer.probe.study import Cell, Study, config_of
from trainer.storage import Location, join, listing, read_bytes

FILE = "network.json"
SPEEDS = (10.0, 25.0, 100.0, 200.0)
RANKS = (1, 8, 16, 64, 256, 512)
FIXED_SPEED = 25.0
"""Gbit/s at which the fitted fixed time of an allreduce is tried."""
PRODUCTS_PER_SECOND = 10e12
"""Multiply-adds of a matrix product on the GPU that is assumed."""
LATENCY = 5e-6
"""Of a message between machines, assumed."""
H100 = {("ranks", "dynamic"): (5.61e-3, 1.46e-3), ("ranks", "convolutions"): (7.12e-3, 1.71e-3)}
"""Seconds of a step, and of its backward pass, that one H100 took for an arm of a study at H100_BATCH, with routing
alone compiled (docs/gpu.txt, the centre of cost_gpu)."""
H100_BATCH = 128


def section(study: Study, found: Found, output: Location, say: Callable[[str], None]) -> str:
    """HTML; '' for a study of something else than ranks."""
    if study.measure != "ranks":
        return ""
    measured = _network(output, say)
    return (
        _threads(study)
        + "<h3>To 512 GPUs: a model, not a measurement</h3>"
        + _error(measured)
        + _calibration()
        + _tables(study, found, measured[0].line.fixed if measured else 0.0)
    )


def _threads(study: Study) -> str:
    """What a single rank could use: the speed that a second one is compared with."""
    within = study.fields.get("train.threads", "")
    if not within or within == "0":
        return ""
    return (
        f"<p>A rank works with {escape(within)} thread{'' if within == '1' else 's'} within an operation, but "
        "TensorFlow may run two operations of it at once, and input is read beside them: a single rank was not held to "
        "a core, so that what another one brings may be told too low.</p>"
    )


def _network(output: Location, say: Callable[[str], None]) -> list[Measured]:
    """Allreduce as it was measured, first what is fitted; empty where nothing is."""
    if FILE not in listing(output):
        return []
    try:
        return network.from_json(json.loads(read_bytes(join(output, FILE))))
    except (ValueError, KeyError, TypeError) as error:
        say(f"{FILE}: not understood ({error}); left out")
        return []


def _error(measured: Sequence[Measured]) -> str:
    """How far the model was off at link speeds that were imposed and not fitted."""
    if not measured:
        return (
            "<p>The network was not measured: <code>capsnet probe network --rate 800mbit --rate 200mbit --to "
            f"{FILE}</code> beside the records adds the model's error.</p>"
        )
    fitted, *others = measured
    rows = "".join(
        f"<tr><td>{each.bytes:,}</td>"
        + "".join(f'<td class="n">{1e3 * run.samples[at].seconds:.1f}</td>' for run in (fitted, *others))
        + "".join(f'<td class="n">{1e3 * network.predicted(fitted, run.rate)[at]:.1f}</td>' for run in others)
        + "</tr>"
        for at, each in enumerate(fitted.samples)
    )
    head = "".join(f"<th>ms at {escape(run.rate)}</th>" for run in (fitted, *others))
    head += "".join(f"<th>predicted at {escape(run.rate)}</th>" for run in others)
    told = "; ".join(f"{escape(run.rate)}: {escape(network.error_line(fitted, run))}" for run in others)
    return (
        f"<p>Allreduce of {fitted.ranks} ranks over links of imposed speed, fitted at {escape(fitted.rate)}. {told}."
        "</p>"
        f"<table><tr><th>bytes</th>{head}</tr>{rows}</table>"
    )


def _calibration() -> str:
    habits = model.calibrated()
    rows = "".join(
        f"<tr><td>{escape(each.name)}</td><td>{each.images_per_second:g}</td><td>{each.batch}</td>"
        f"<td>{100 * each.efficiency:.0f} %</td><td>"
        f"{100 * _of(model.work_of(each), model.PUBLISHED_RANKS, model.PUBLISHED_LINK):.0f} %</td></tr>"
        for each in model.PUBLISHED
    )
    return (
        f"<p>Two numbers of the model are calibrated on three published efficiencies of Horovod at "
        f"{model.PUBLISHED_RANKS} GPUs (Sergeev and Del Balso 2018): the share of a link that is had, "
        f"{habits.share:.2f}, and the spread of the ranks' compute, {habits.spread:.3f}. Calibration, and no test: "
        "three numbers fix two. Assumed for it, as not published there: images/s of one GPU, its batch (in the table), "
        f"and that {model.BACKWARD:.2f} of a step is its backward pass, which can hide reduction.</p>"
        "<table><tr><th>network</th><th>images/s of a GPU, assumed</th><th>its batch</th><th>published</th>"
        f"<th>model</th></tr>{rows}</table>"
    )


def _of(work: Work, ranks: int, link: Link) -> float:
    return model.efficiency(work, ranks, link, model.calibrated())


def _tables(study: Study, found: Found, fixed: float) -> str:
    """``fixed``: seconds of an allreduce however small, as fitted; 0 where it was not."""
    told, batch = [], config_of(study, Cell("", "", "", "", 0, study.fields)).train.global_batch_size
    for arm in study.arms:
        results = [r for cell, r in limits.at_one_speed(found) if (cell.arm, cell.axis) == (arm.name, CENTRE)]
        numbers = results[0].numbers if results else {}
        if "floor_seconds" not in numbers:
            told.append(f"<p>{escape(arm.name)}: not measured.</p>")
            continue
        factor = numbers["step_seconds"] / numbers["floor_seconds"]
        compute = factor * FORWARD_AND_BACKWARD * numbers["multiply_adds"] / PRODUCTS_PER_SECOND
        backward = compute * (1 - numbers["forward_seconds"] / numbers["gradient_seconds"])
        told.append(
            f"<p><b>{escape(arm.name)}</b>: {numbers['gradient_bytes'] / 1e6:,.1f} MB of gradients; assumed: a step of "
            f"{1e3 * compute:.2f} ms on one GPU, {batch / compute:,.0f} images/s, {backward / compute:.2f} of it the "
            f"backward pass.</p>{_table(Work(compute, backward, numbers['gradient_bytes']), fixed)}"
        )
        if (study.name, arm.name) in H100:
            compute, backward = H100[study.name, arm.name]
            told.append(
                f"<p>One H100 that was tried since took {1e3 * compute:.2f} ms for a step of this network at a batch "
                f"of {H100_BATCH}, most of it to start kernels, as routing alone was compiled. With that step, "
                f"{H100_BATCH / compute:,.0f} images/s:</p>"
                + _table(Work(compute, backward, numbers["gradient_bytes"]), fixed)
            )
    left_out = (
        f"What an allreduce takes however small it is, {1e3 * fixed:.1f} ms in the fit above, is left out but in the "
        "last row of each table: it was measured between processes of one CPU machine, and NCCL's is not known here. "
        if fixed
        else "What an allreduce takes however small it is, is taken as 0. "
    )
    return (
        f"<p>Assumed, as these cells are of CPUs: {PRODUCTS_PER_SECOND / 1e12:g} tera multiply-adds/s in products; a "
        "step as many times its products as measured here on a CPU core, and as much of it the backward pass; the "
        f"batch of the centre, {batch}, on each GPU; {1e6 * LATENCY:g} &micro;s a message. {left_out}"
        "In the tables: the predicted ms of a step, and the efficiency, which is images/s over that of as many GPUs "
        f"alone.</p>{''.join(told)}"
    )


def _table(work: Work, fixed: float) -> str:
    rows = "".join(_row(work, f"{speed:g} Gbit/s", Link(LATENCY, speed * model.GIGABIT)) for speed in SPEEDS)
    if fixed:
        slow = Link(LATENCY, FIXED_SPEED * model.GIGABIT, fixed=fixed)
        rows += _row(work, f"{FIXED_SPEED:g} Gbit/s, and {1e3 * fixed:.1f} ms an allreduce", slow)
    head = "".join(f"<th>{count} GPU{'s' if count > 1 else ''}</th>" for count in RANKS)
    return f"<table><tr><th>between machines of 8</th>{head}</tr>{rows}</table>"


def _row(work: Work, name: str, link: Link) -> str:
    habits = model.calibrated()
    cells = [
        f'<td class="n">{1e3 * model.step_seconds(work, ranks, link, habits):.2f} ms, '
        f"{100 * model.efficiency(work, ranks, link, habits):.0f} %</td>"
        for ranks in RANKS
    ]
    return f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>"
