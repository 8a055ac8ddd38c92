"""``make bench-routing``: what routing costs in time and memory, against what it could cost.

Each cell is a process of its own, so that its peak memory is its own. Times: interleaved repeats on two threads, the
median over repeats of each process's own median step. Memory: what a step holds at its peak above what is there when
it rests (weights, inputs), less the gradients that it returns; with the C library's allocator, as TensorFlow's own
keeps what it once had. No optimizer, no compilation. Ratios are within one run.

Axes: B batch, I children, T transforms, J parents, P/Q child/parent pose size.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tools import cells
from trainer.model import routing

ITERATIONS = 3
PRODUCTS = 3
"""The fewest products as large as the one that makes all votes: the votes forward, and backward those for the
gradients of poses and transform. The first iteration needs none besides: it is a sum of votes."""


class Shape(NamedTuple):
    """Sizes of a layer: T = I for a transform each, fewer are shared over positions."""

    children: int
    parents: int
    child_pose: int
    pose: int
    batch: int
    transforms: int

    def __str__(self) -> str:
        shared = "" if self.transforms == self.children else f" T{self.transforms}"
        return f"I{self.children}{shared} J{self.parents} P{self.child_pose} Q{self.pose} B{self.batch}"

    @property
    def votes_bytes(self) -> int:
        return 4 * self.batch * self.children * self.parents * self.pose


SHAPES = [
    Shape(1152, 10, 8, 16, 128, 1152),
    Shape(1568, 100, 16, 16, 16, 1568),
    Shape(512, 1000, 16, 16, 16, 512),
    Shape(2048, 1000, 16, 16, 32, 2048),
    Shape(2048, 1000, 16, 16, 16, 32),
]
TILED, EINSUM, XLA, PRODUCT, AUTO = "tiled votes", "einsum", "einsum, XLA", "products only", "capsnet"
KEPT = "capsnet, stored votes"
CELLS = {("dynamic", "dot"): [TILED, EINSUM, XLA, PRODUCT, AUTO]}
"""Of an algorithm and an agreement; others are compared with themselves, with stored votes and with the products."""
OTHER_CELLS = [KEPT, PRODUCT, AUTO]
STORED_LIMIT = 700e6
"""Bytes of votes above which cells that store them are left out: they hold them several times over."""
TILED_LIMIT = 2e9
"""The same for the tiled transform."""


def main() -> int:
    parser = cells.arguments("make bench-routing", __doc__)
    parser.add_argument("--only", default="", help="shapes whose name contains this, as J100")
    parser.add_argument("--algorithm", default="dynamic", choices=routing.names(), help="default: dynamic")
    parser.add_argument("--agreement", default="dot", choices=("dot", "cosine"), help="of dynamic (default: dot)")
    parser.add_argument("--blocks", default="0", metavar="BYTES", help="of votes, as 64MiB (default: the device's own)")
    parser.add_argument("--forward", action="store_true", help="also the forward pass alone")
    parsed = parser.parse_args()
    if parsed.cell:
        print(json.dumps(_measure(**parsed.cell)))
        return 0
    shapes = [shape for shape in SHAPES if parsed.only in str(shape)]
    rule = {"algorithm": parsed.algorithm, "agreement": parsed.agreement, "block_bytes": parsed.blocks}
    found = _run(shapes, rule, parsed.repeats, parsed.forward)
    _print(found)
    if parsed.json:
        parsed.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _run(shapes: Sequence[Shape], rule: dict[str, str], repeats: int, forward: bool) -> list[dict[str, Any]]:
    rows = []
    for shape in shapes:
        names = [name for name in CELLS.get((rule["algorithm"], rule["agreement"]), OTHER_CELLS) if _fits(name, shape)]
        for backward in [True, *([False] if forward else [])]:
            times: dict[str, list[float]] = {name: [] for name in names}
            memory: dict[str, float] = {}
            for repeat in range(repeats):
                for name in names:
                    print(f"[{shape}, {repeat + 1}/{repeats}] {name}", file=sys.stderr, flush=True)
                    times[name].append(_process(name, rule, shape, backward, memory=False)["seconds"])
            for name in names:
                measured = _process(name, rule, shape, backward, memory=True)
                memory[name], gradients = measured["bytes"], measured["gradients"]
            for name in names:
                rows.append(
                    {
                        "shape": str(shape),
                        "pass": "forward + backward" if backward else "forward",
                        "cell": name,
                        "seconds": times[name],
                        "bytes": memory[name],
                        "gradient_bytes": gradients,
                    }
                )
    return rows


def _fits(name: str, shape: Shape) -> bool:
    if name == TILED and 4 * shape.batch * shape.children * shape.parents * shape.child_pose * shape.pose > TILED_LIMIT:
        return False
    return name in (PRODUCT, AUTO) or shape.votes_bytes <= STORED_LIMIT


def _process(name: str, rule: dict[str, str], shape: Shape, backward: bool, memory: bool) -> dict[str, float]:
    cell = {"name": name, "rule": rule, "shape": shape, "backward": backward}
    return cells.in_process("tools.bench_routing", cell, memory=memory)


def _print(rows: Sequence[dict[str, Any]]) -> None:
    base = next((row["cell"] for row in rows if row["cell"] in (XLA, KEPT)), "")
    print(f"{'shape, pass, cell':46}  {'ms':>7}  {'/base':>5}  {'/ prod':>6}  {'MB held':>7}  {'/base':>5}")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["shape"], row["pass"]), []).append(row)
    for (shape, direction), group in groups.items():
        print(f"{shape}, {direction} (gradients {group[0]['gradient_bytes'] / 1e6:.0f} MB)")
        by_name = {row["cell"]: row for row in group}
        for row in group:
            ratios = []
            for baseline in (base, PRODUCT):
                other = by_name.get(baseline)
                pairs = zip(row["seconds"], other["seconds"], strict=True) if other else []
                quotients = [mine / theirs for mine, theirs in pairs]
                ratios.append(f"{statistics.median(quotients):.2f}" if quotients else "-")
            held = f"{row['bytes'] / by_name[base]['bytes']:.2f}" if base in by_name else "-"
            print(
                f"  {row['cell']:44}  {1e3 * statistics.median(row['seconds']):7.0f}  {ratios[0]:>5}  {ratios[1]:>6}  "
                f"{row['bytes'] / 1e6:7.0f}  {held:>5}"
            )
    print(f"base: {base or 'none fits'}")
    print(f"products only: {PRODUCTS} products of the size of the votes, the fewest that the iterations need")


# one cell, in a process of its own


def _measure(name: str, rule: dict[str, str], shape: Sequence[int], backward: bool, memory: bool) -> dict[str, float]:
    import numpy as np

    cells.two_threads()
    step, sources = _step(name, rule, Shape(*shape), backward, np.random.default_rng(0))
    found = cells.measure(step, memory=memory)
    if not memory:
        return {"seconds": found}
    gradients = 4 * sum(int(np.prod(source.shape)) for source in sources) if backward else 0
    return {"bytes": max(0, found - gradients), "gradients": gradients}


def _step(
    name: str, rule: dict[str, str], shape: Shape, backward: bool, random: Any
) -> tuple[Callable[[], Any], list[Any]]:
    import numpy as np
    import tensorflow as tf

    from trainer.config import RoutingConfig
    from trainer.model import parts
    from trainer.model.routing import Capsules, LayerSizes, Transform
    from trainer.model.squash import lengths

    transforms, parents, pose_in, pose = shape.transforms, shape.parents, shape.child_pose, shape.pose
    sizes = LayerSizes(shape.children, transforms, parents, pose_in, pose)
    cuts = parts.rows(sizes) if name in (AUTO, KEPT, PRODUCT) else (transforms,)
    variables = []
    for count in cuts:
        values = random.standard_normal((count, pose_in, parents, pose), dtype=np.float32)
        values *= 0.1
        variables.append(tf.Variable(values))
        del values
    poses_BIP = tf.constant(random.standard_normal((shape.batch, shape.children, pose_in), dtype=np.float32))
    weights_JQ = tf.constant(random.standard_normal((parents, pose), dtype=np.float32))

    implementation = "stored" if name == KEPT else "auto"
    config = RoutingConfig.model_validate({"iterations": ITERATIONS, "implementation": implementation, **rule})
    module = routing.get(config.algorithm)
    extra = {
        key: tf.constant(random.standard_normal(spec.shape, dtype=np.float32))
        for key, spec in module.weights(config, sizes).items()
    }

    def routed(poses_BIP: tf.Tensor, *parts_TPJQ: tf.Tensor) -> tf.Tensor:
        if name in (AUTO, KEPT):
            children = Capsules(poses_BIP, lengths(poses_BIP))
            return module.route(children, Transform(parts_TPJQ), extra, config)[0].poses_BNP
        make = _tiled if name == TILED else _by_einsum
        return _published(make(poses_BIP, parts_TPJQ[0]))

    @tf.function(jit_compile=name == XLA, autograph=False)
    def step() -> Any:
        sources = [poses_BIP, *(tf.convert_to_tensor(variable) for variable in variables)]
        if name == PRODUCT:
            return _products(sources[0], sources[1:], backward)
        with tf.GradientTape() as tape:
            tape.watch(sources)
            total = tf.reduce_sum(routed(*sources) * weights_JQ)
        return (total, tape.gradient(total, sources)) if backward else total

    return step, [poses_BIP, *variables]


def _published(votes_BIJQ: Any) -> Any:
    """The iterations as most public code writes them, on stored votes."""
    import tensorflow as tf

    from trainer.model.squash import squash

    logits_BIJ = tf.zeros(tf.shape(votes_BIJQ)[:3])
    for iteration in range(ITERATIONS):
        coupling_BIJ = tf.nn.softmax(logits_BIJ, axis=-1)
        poses_BJQ = squash(tf.einsum("bij,bijq->bjq", coupling_BIJ, votes_BIJQ))
        if iteration < ITERATIONS - 1:
            logits_BIJ += tf.einsum("bijq,bjq->bij", votes_BIJQ, poses_BJQ)
    return poses_BJQ


def _by_einsum(poses_BIP: Any, transform_TPJQ: Any) -> Any:
    import tensorflow as tf

    transforms = transform_TPJQ.shape[0]
    batch, children, pose_in = poses_BIP.shape
    poses_BNTP = tf.reshape(poses_BIP, [batch, children // transforms, transforms, pose_in])
    votes_BNTJQ = tf.einsum("bntp,tpjq->bntjq", poses_BNTP, transform_TPJQ)
    return tf.reshape(votes_BNTJQ, [batch, children, *transform_TPJQ.shape[2:]])


def _tiled(poses_BIP: Any, transform_TPJQ: Any) -> Any:
    """The transform repeated for each record, the poses for each parent."""
    import tensorflow as tf

    batch, children, _ = poses_BIP.shape
    transforms, _, parents, _ = transform_TPJQ.shape
    matrices_TJPQ = tf.transpose(transform_TPJQ, [0, 2, 1, 3])
    tiled_BIJPQ = tf.tile(matrices_TJPQ[tf.newaxis], [batch, children // transforms, 1, 1, 1])
    tiled_BIJP = tf.tile(poses_BIP[:, :, tf.newaxis], [1, 1, parents, 1])
    return tf.matmul(tiled_BIJP[..., tf.newaxis, :], tiled_BIJPQ)[..., 0, :]


def _products(poses_BIP: Any, parts_TPJQ: Sequence[Any], backward: bool) -> list[Any]:
    """The products alone, a block at a time: of each only its sum is kept, and the gradients."""
    import tensorflow as tf

    from trainer.config import RoutingConfig
    from trainer.devices import on_gpu
    from trainer.model.routing import LayerSizes, Transform
    from trainer.model.routing.agreement import Rule
    from trainer.model.routing.choice import choose
    from trainer.model.routing.full_blocks import FullBlocks

    batch, children, pose_in = poses_BIP.shape
    transform = Transform(tuple(parts_TPJQ))
    sizes = LayerSizes(children, transform.transforms, transform.parents, pose_in, transform.pose)
    positions = children // transform.transforms
    block = choose(RoutingConfig(), sizes._replace(transforms=children), batch, gpu=on_gpu()).transforms
    poses_BNTP = tf.reshape(poses_BIP, [batch, positions, -1, pose_in])
    poses_XTP = tf.reshape(tf.transpose(poses_BNTP, [1, 0, 2, 3]), [positions * batch, -1, pose_in])
    blocks = FullBlocks(poses_XTP, transform, (max(1, block // positions), 1), Rule(1, leaky=False), False)
    found, sums = [], [tf.zeros([])]
    for k in range(len(blocks)):
        with tf.control_dependencies(sums[-1:]):
            poses_nXP, matrices_nPY = blocks._factors(k)
            votes_nXY = tf.matmul(poses_nXP, matrices_nPY)
        if backward:
            found.append(
                (
                    tf.matmul(votes_nXY, matrices_nPY, transpose_b=True),
                    tf.matmul(poses_nXP, votes_nXY, transpose_a=True),
                )
            )
        sums.append(votes_nXY[0, 0, 0] + (found[-1][0][0, 0, 0] + found[-1][1][0, 0, 0] if backward else 0.0))
    return [sums[-1], *([] if not backward else tf.nest.flatten(blocks.joined(found)))]


if __name__ == "__main__":
    sys.exit(main())
