"""What stands where on the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from html import escape
from pathlib import Path

from trainer.probe import limits
from trainer.probe.collect import MISSING, SKIPPED, results
from trainer.probe.limits import Found, Limit
from trainer.probe.report import figures, runs, scaling, tables, words
from trainer.probe.study import Axis, Study, centre_of
from trainer.storage import Location, atomic_write

NAME = "report.html"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; border-top: 2px solid #ccc; padding-top: 1rem; }
h3 { margin-top: 2rem; } .panels { display: flex; flex-wrap: wrap; gap: 0.5rem; }
.panels img { flex: 1 1 22rem; min-width: 0; max-width: 34rem; }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: 0.2rem 0.6rem; border-bottom: 1px solid #eee; vertical-align: top; }
details td { white-space: nowrap; } td.n { text-align: right; } .bad { color: #a40000; } code { font-size: 0.85em; }
.small { color: #555; font-size: 0.9rem; } summary { cursor: pointer; margin: 1rem 0; }
.map { font-size: 0.8rem; } .map th, .map td { padding: 0.15rem 0.35rem; }
.map td { min-width: 4.5rem; border: 2px solid #fff; line-height: 1.3;
  background: linear-gradient(90deg, var(--c, #eee) var(--far, 0%), #f4f4f4 var(--far, 0%)); }
.map th:first-child { position: sticky; left: 0; background: #fff; }
.map td:empty { background: none; } .key { padding: 0 0.4rem; background: var(--c); }
.free { --c: #bfe3c4; } .time { --c: #ffd9a0; } .memory { --c: #d9c4ee; } .accuracy { --c: #b8d4f2; }
.routing { --c: #f7b9b9; } .other { --c: #d8d8d8; }
"""
GRADIENTS = (
    "Gradients: norms for the weights of each layer, from the image to the head, mean over seeds; dotted at the first "
    "look of training, drawn or dashed (controls) at the last. A capsule is dead where it stays "
    "below 0.05 on all images of a look, always on where it stays above 0.5."
)


def write(outputs: Sequence[Location], folder: Path, say: Callable[[str], None]) -> Path:
    """Raises ConfigError where there is no study; StorageError, StorageRefused."""
    found = [results(output, say) for output in outputs]
    beyond = [scaling.section(study, each, output, say) for (study, each), output in zip(found, outputs, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / NAME, page(found, beyond).encode())
    return folder / NAME


def page(studies: Sequence[tuple[Study, Found]], beyond: Sequence[str] = ()) -> str:
    """``beyond``: of each study, a section that goes beyond its records."""
    names = ", ".join(study.name for study, _ in studies)
    told = [(study, found, _ends(study, limits.at_one_speed(found))) for study, found in studies]
    body = [
        "<h1>Where capsule networks stop scaling</h1>",
        _overall([(study, ends) for study, _, ends in told]),
        *(_answer(study, found, ends) for study, found, ends in told),
        *(_study(*each, beyond[at] if beyond else "") for at, each in enumerate(told)),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Probe: {escape(names)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )


def _overall(studies: Sequence[tuple[Study, Sequence[Limit]]]) -> str:
    first, *others = words.overall(studies)
    return f"<p><b>{escape(first)}</b></p><ul>{''.join(f'<li>{escape(each)}</li>' for each in others)}</ul>"


def _ends(study: Study, found: Found) -> list[Limit]:
    return [
        limits.limit(study, found, arm.name, axis)
        for axis in study.axes
        for arm in study.arms
        if limits.varied(axis, arm.name)
    ]


def _answer(study: Study, found: Found, ends: Sequence[Limit]) -> str:
    """The top of the page: the answer in words, and how far each axis goes."""
    measured = sum(result.outcome not in (MISSING, SKIPPED) for _, result in found)
    skipped = sum(result.outcome == SKIPPED for _, result in found)
    beyond = f", {skipped} skipped beyond a memory limit" if skipped else ""
    lines = "".join(
        f'<li><a href="#{_anchor(study, axis)}"><b>{escape(axis.name)}</b></a>: '
        f"{escape(words.of_axis(study, axis, ends))}</li>"
        for axis in study.axes
    )
    return (
        f'<p><a href="#{escape(study.name)}"><b>{escape(study.name)}</b></a>: {escape(study.about)}. '
        f"{escape(words.answer(study, ends))}</p>{tables.overview(study, ends)}<ul>{lines}</ul>"
        f'<p class="small">{measured} of {len(found)} cells are measured{beyond}. {escape(words.noise(found))}'
        f"{escape(words.rules(study))}</p>"
    )


def _study(study: Study, found: Found, ends: Sequence[Limit], beyond: str) -> str:
    scaled, rough = limits.at_one_speed(found), {cell.key for cell in limits.noisy(found)}
    centre = ", ".join(f"{name}={value}" for name, value in study.fields.items())
    return "".join(
        (
            f'<h2 id="{escape(study.name)}">{escape(study.name)}</h2>',
            f"<p>The centre is recipe <code>{escape(study.recipe)}</code> with <code>{escape(centre)}</code>; one axis "
            "at a time is varied around it.</p>",
            _panels([runs.learning_curves(study, found), runs.gradients(study, found)])
            + f"<p class='small'>{GRADIENTS}</p>"
            if study.measure == "learning"
            else "",
            *(_axis(study, scaled, axis, ends, rough) for axis in study.axes),
            beyond,
            "<h3>Evidence</h3>",
            tables.every_cell(study, found),
            tables.provenance(found),
        )
    )


def _anchor(study: Study, axis: Axis) -> str:
    return escape(f"{study.name}-{study.axes.index(axis)}")


def _axis(study: Study, found: Found, axis: Axis, ends: Sequence[Limit], rough: Collection[str]) -> str:
    middle = centre_of(study, axis)
    note = f"<p>{escape(axis.note)}</p>" if axis.note else ""
    shown = figures.panels(study, found, axis, figures.SHOWN[study.measure])
    return (
        f'<h3 id="{_anchor(study, axis)}">{escape(axis.name)}</h3><p><code>{escape(", ".join(axis.fields))}</code>: '
        f"{escape('; '.join(axis.values))}{f'; the centre is {escape(middle)}' if middle else ''}. "
        f"{escape(words.control_of(study, axis))}</p>{note}<p>{escape(words.of_axis(study, axis, ends))}.</p>"
        + tables.judged(study, found, axis, rough)
        + (_panels(shown) if shown else "<p>Not measured.</p>")
        + (_health(study, found, axis) if study.measure == "learning" else "")
        + tables.fits(study, found, axis)
    )


def _health(study: Study, found: Found, axis: Axis) -> str:
    """What stands beside a symptom: how training went at the ends of an axis, capsules, couplings, gradients."""
    curves = [runs.learning_curves(study, found, axis.name, value) for value in runs.places(study, axis)]
    deep = any(name.startswith("model.layers.") for name in axis.fields)
    layers = [runs.gradients(study, found, axis.name, value) for value in axis.values] if deep else []
    drawn = [picture for picture in (*curves, *layers) if picture]
    health = figures.panels(study, found, axis, figures.HEALTH)
    flat = figures.nowhere(study, found, axis, figures.HEALTH)
    return (
        (_panels(drawn) if drawn else "")
        + (f"<p>The health of routing there:</p>{_panels(health)}" if health else "")
        + (f"<p>0 wherever it was measured: {escape('; '.join(flat))}.</p>" if flat else "")
    )


def _panels(pictures: Sequence[str]) -> str:
    return f'<div class="panels">{"".join(pictures)}</div>'
