"""``capsnet probe network``: what allreduce costs, and what follows for more ranks and other links."""

from __future__ import annotations

import argparse
import json
from typing import Any

from trainer.errors import EXIT_DONE, ConfigError, note
from trainer.parsing import EXIT_CODES, add
from trainer.storage import atomic_write, local_place

EPILOG = """\
examples:
  capsnet probe network            # as ranks of this machine meet
  # over links of such speeds
  capsnet probe network --rate 800mbit --rate 200mbit

Time is told for each size of the message, with the line that fits it. With
several rates all are measured in turn; the first is fitted, and the others are
predicted from the fit. A rate is imposed on the loopback interface of a network
of its own (unshare, ip and tc: Linux, packages util-linux and iproute2), which
both directions and all ranks share, so that a ring has a part of it. Messages
that would take a slow link too long are left out. About a minute.

"""


def add_network(actions: Any) -> None:
    parser = add(
        actions, "network", _network, "measure latency and bandwidth of Horovod's allreduce", EPILOG + EXIT_CODES
    )
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument(
        "--rate",
        action="append",
        metavar="RATE",
        help="of the link, as 200mbit; may be given again (default: no limit)",
    )
    parser.add_argument("--to", type=local_place, metavar="FILE", help="also write all of it there, as JSON")


def _network(parsed: argparse.Namespace) -> int:
    from trainer.probe import link, network

    rates = parsed.rate or []
    for rate in rates:
        link.bytes_per_second(rate)
    if parsed.ranks < 2:
        raise ConfigError(f"--ranks {parsed.ranks}: an allreduce needs at least 2")
    note(f"timing allreduce of {parsed.ranks} ranks, about a minute")
    first, *others = runs = network.measure(parsed.ranks, rates)
    print(*network.table(first), sep="\n")
    for found in others:
        print("", *network.table(found), network.error_line(first, found), sep="\n")
    if parsed.to is not None:
        parsed.to.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(parsed.to, (json.dumps(network.as_json(runs), indent=1) + "\n").encode())
        print(parsed.to)
    return EXIT_DONE
