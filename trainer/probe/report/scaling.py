"""The section that goes beyond what was measured: to 512 GPUs, with what is assumed and how far the model is off."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from html import escape

from trainer.model.costs import FORWARD_AND_BACKWARD
from trainer.probe import limits, network
from trainer.probe import scaling as model
from trainer.probe.limits import CENTRE, Found
from trainer.probe.scaling import Link, Work
from trainer.probe.study import Study
from trainer.storage import Location, join, listing, read_bytes

FILE = "network.json"
SPEEDS = (10.0, 25.0, 100.0, 200.0)
RANKS = (8, 16, 64, 256, 512)
PRODUCTS_PER_SECOND = 10e12
"""Multiply-adds of a matrix product on the GPU that is assumed."""
LATENCY = 5e-6
"""Of a message between machines, assumed."""


def section(study: Study, found: Found, output: Location, say: Callable[[str], None]) -> str:
    """HTML; '' for a study of something else than ranks."""
    if study.measure != "ranks":
        return ""
    return (
        "<h3>To 512 GPUs: a model, not a measurement</h3>"
        + _error(output, say)
        + _calibration()
        + _tables(study, found)
    )


def _error(output: Location, say: Callable[[str], None]) -> str:
    """How far the model was off at link speeds that were imposed and not fitted."""
    if FILE not in listing(output):
        return (
            "<p>The network was not measured: <code>capsnet probe network --rate 800mbit --rate 200mbit --to "
            f"{FILE}</code> beside the records adds the model's error.</p>"
        )
    try:
        fitted, *others = network.from_json(json.loads(read_bytes(join(output, FILE))))
    except (ValueError, KeyError, TypeError) as error:
        say(f"{FILE}: not understood ({error}); left out")
        return ""
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
        f"<tr><td>{escape(each.name)}</td><td>{100 * each.efficiency:.0f} %</td><td>"
        f"{100 * _of(model.work_of(each), model.PUBLISHED_RANKS, model.PUBLISHED_LINK):.0f} %</td></tr>"
        for each in model.PUBLISHED
    )
    return (
        f"<p>Two numbers of the model are calibrated on three published efficiencies of Horovod at "
        f"{model.PUBLISHED_RANKS} GPUs (Sergeev and Del Balso 2018): the share of a link that is had, "
        f"{habits.share:.2f}, and the spread of the ranks' compute, {habits.spread:.3f}. Calibration, and no test: "
        "three numbers fix two.</p>"
        f"<table><tr><th>network</th><th>published</th><th>model</th></tr>{rows}</table>"
    )


def _of(work: Work, ranks: int, link: Link) -> float:
    return model.efficiency(work, ranks, link, model.calibrated())


def _tables(study: Study, found: Found) -> str:
    told = []
    for arm in study.arms:
        results = [r for cell, r in limits.at_one_speed(found) if (cell.arm, cell.axis) == (arm.name, CENTRE)]
        numbers = results[0].numbers if results else {}
        if "floor_seconds" not in numbers:
            told.append(f"<p>{escape(arm.name)}: not measured.</p>")
            continue
        factor = numbers["step_seconds"] / numbers["floor_seconds"]
        compute = factor * FORWARD_AND_BACKWARD * numbers["multiply_adds"] / PRODUCTS_PER_SECOND
        backward = compute * (1 - numbers["forward_seconds"] / numbers["gradient_seconds"])
        work = Work(compute, backward, numbers["gradient_bytes"])
        grid = model.table(work, SPEEDS, RANKS, Link(LATENCY, math.nan), model.calibrated())
        rows = "".join(
            f"<tr><td>{speed:g} Gbit/s</td>"
            + "".join(f'<td class="n">{100 * each:.0f} %</td>' for each in row)
            + "</tr>"
            for speed, row in zip(SPEEDS, grid, strict=True)
        )
        head = "".join(f"<th>{count} GPUs</th>" for count in RANKS)
        told.append(
            f"<p><b>{escape(arm.name)}</b>: {numbers['gradient_bytes'] / 1e6:,.1f} MB of gradients, a step of "
            f"{1e3 * compute:.2f} ms assumed.</p><table><tr><th>between machines of 8</th>{head}</tr>{rows}</table>"
        )
    return (
        f"<p>Assumed, as no GPU was there: {PRODUCTS_PER_SECOND / 1e12:g} tera multiply-adds/s in products, a step as "
        f"many times its products as measured here on a CPU core, the batch of the centre on each GPU, "
        f"{1e6 * LATENCY:g} &micro;s a message. "
        f"Efficiency is images/s over that of as many GPUs alone.</p>{''.join(told)}"
    )
