# SPDX-License-Identifier: Apache-2.0
"""Training speed of LeNet-SELU: our loop next to Keras and PyTorch.

Each peer first tries a few settings and is then measured with the best of them. All
take turns, so that a slow minute of the machine hits all of them. A matrix product next
to them shows what the machine can do.
"""

import contextlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks import flops, peers, results
from benchmarks.ours import BATCH_SIZE
from benchmarks.step_peers import GEMM_SIZE

Settings = dict[str, Any]

PEERS = "benchmarks.step_peers"

# Settings that each peer tries, the most promising first; threads 0: its default.
SETTINGS: dict[str, list[Settings]] = {
    "ours": [
        {"threads": 0},
        {"threads": 0, "replicas": 1},
        {"threads": 1},
        {"threads": 0, "kernels": "tensorflow"},
    ],
    "keras": [
        {"threads": 0, "jit_compile": "auto", "steps_per_execution": 1},  # as shipped
        {"threads": 0, "jit_compile": False, "steps_per_execution": 32},
        {"threads": 0, "jit_compile": False, "steps_per_execution": 1},
        {"threads": 2, "jit_compile": False, "steps_per_execution": 32},
        {"threads": 1, "jit_compile": False, "steps_per_execution": 32},
    ],
    **{
        peer: [
            {"threads": threads, "channels_last": channels_last}
            for threads in (0, 2, 1)
            for channels_last in (True, False)
        ]
        for peer in ("torch_eager", "torch_compile")
    },
}

TURNS = 3  # per setting, from which we choose the best
TURN_SECONDS = 1.0
ROUND_SECONDS = 5.0

# Number of settings that --quick tries: under three minutes, of which torch.compile
# takes half a minute.
QUICK_SETTINGS = {"ours": 1, "keras": 2, "torch_eager": 2, "torch_compile": 1}
QUICK_ROUND_SECONDS = 1.0


def measure(rounds: int, quick: bool = False) -> dict[str, Any]:
    """Measures all peers; `quick` tries fewer settings, in shorter rounds.

    See `compare` for the result and errors.
    """
    if not quick:
        return compare(SETTINGS, rounds, ROUND_SECONDS)
    first = {peer: SETTINGS[peer][:count] for peer, count in QUICK_SETTINGS.items()}
    return compare(first, rounds, QUICK_ROUND_SECONDS)


def compare(
    settings: Mapping[str, Sequence[Settings]],
    rounds: int,
    seconds: float,
    turn_seconds: float = TURN_SECONDS,
) -> dict[str, Any]:
    """Measures peers with the best of their settings, in turns.

    Args:
      settings: {name of a peer, with "ours" among them: its settings, at least one}.
      rounds: number of measurements of each peer.
      seconds, turn_seconds: of a measurement, and of a try of settings.

    Returns:
      batch_size: images per step.
      flops: FLOPs per image, see `flops.training_step`.
      gemm: {"size" of the matrices, "gflops" of each round}.
      peers: {name: {"settings", "images_per_second" of each round, "parameters",
        "tried"}, or {"missing": the reason}}.

    Raises:
      peers.BenchmarkError: a peer failed, or trains another network.
    """
    with contextlib.ExitStack() as stack:
        running, found = _choose_all(stack, settings, turn_seconds)
        running["gemm"] = stack.enter_context(peers.Peer(PEERS, "gemm", {}))
        answers = _ask_in_turns(running, rounds, seconds)
    gflops = [answer["gflops"] for answer in answers.pop("gemm")]
    for name, of_peer in answers.items():
        found[name]["parameters"] = of_peer[0]["parameters"]
        found[name]["images_per_second"] = [a["images_per_second"] for a in of_peer]
    _check_same_network(found)
    return {
        "batch_size": BATCH_SIZE,
        "flops": flops.training_step(),
        "gemm": {"size": GEMM_SIZE, "gflops": gflops},
        "peers": found,
    }


def _choose_all(
    stack: contextlib.ExitStack,
    settings: Mapping[str, Sequence[Settings]],
    seconds: float,
) -> tuple[dict[str, peers.Peer], dict[str, dict[str, Any]]]:
    """Starts the peers that are not missing; what was tried of each, or "missing"."""
    running: dict[str, peers.Peer] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, some in settings.items():
        try:
            running[name], tried = _choose(stack, name, some, seconds)
        except peers.Missing as missing:
            if name == "ours":
                raise
            print(f"{name} is missing: {missing}")
            found[name] = {"missing": str(missing)}
        else:
            found[name] = {"settings": running[name].settings, "tried": tried}
    return running, found


def _ask_in_turns(
    running: Mapping[str, peers.Peer], rounds: int, seconds: float
) -> dict[str, list[dict[str, float]]]:
    """Answers of each peer, one per round."""
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    for number in range(1, rounds + 1):
        shown = []
        for name, peer in running.items():
            answers[name].append(peer.ask(seconds))
            figure = next(iter(answers[name][-1].values()))
            shown.append(f"{name} {figure:,.0f}")
        print(f"round {number} of {rounds}, images/s: {', '.join(shown)} GFLOP/s")
    return answers


def _choose(
    stack: contextlib.ExitStack,
    name: str,
    settings: Sequence[Settings],
    seconds: float,
) -> tuple[peers.Peer, list[dict[str, Any]]]:
    """Starts a peer with each of its settings; keeps the fastest, closes the others.

    Returns:
      The peer, which the stack will close; if there was a choice, a list of what was
      tried: {"settings", "images_per_second" of each turn}.
    """
    candidates = [
        stack.enter_context(peers.Peer(PEERS, name, some)) for some in settings
    ]
    if len(candidates) == 1:
        return candidates[0], []
    speeds: list[list[float]] = [[] for _ in candidates]
    for _ in range(TURNS):
        for candidate, so_far in zip(candidates, speeds, strict=True):
            so_far.append(candidate.ask(seconds)["images_per_second"])
    medians = [statistics.median(values) for values in speeds]
    fastest = candidates[medians.index(max(medians))]
    for candidate, speed in zip(candidates, medians, strict=True):
        print(f"{name} ({_text(candidate.settings)}): {speed:,.0f} images/s")
        if candidate is not fastest:
            candidate.close()
    return fastest, [
        {"settings": candidate.settings, "images_per_second": values}
        for candidate, values in zip(candidates, speeds, strict=True)
    ]


def _check_same_network(found: Mapping[str, Mapping[str, Any]]) -> None:
    counts = {name: peer["parameters"] for name, peer in measured(found).items()}
    for name, count in counts.items():
        if count != counts["ours"]:
            raise peers.BenchmarkError(
                f"the peer {name} trains {count} parameters and ours {counts['ours']}:"
                " build the network of lenet.flags in benchmarks/step_peers.py"
            )


def measured(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Peers that are not missing."""
    return {name: peer for name, peer in found.items() if "missing" not in peer}


def _text(settings: Settings) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def ratio(result: Mapping[str, Any], peer: str) -> float:
    """Our speed over that of a peer: median of the rounds' ratios."""
    speeds = [result["peers"][name]["images_per_second"] for name in ("ours", peer)]
    return statistics.median(own / of for own, of in zip(*speeds, strict=True))


def share(result: Mapping[str, Any], peer: str) -> float:
    """FLOP/s of a peer over those of the matrix product: median of the rounds' ratios.

    Within a round, both are measured at about the same time.
    """
    work = flops.total(result["flops"])
    speeds = result["peers"][peer]["images_per_second"]
    rates = (1e9 * gflops for gflops in result["gemm"]["gflops"])
    return statistics.median(
        speed * work / rate for speed, rate in zip(speeds, rates, strict=True)
    )


def markdown(result: Mapping[str, Any]) -> str:
    """Section with the table of peers, a conclusion, and the table of FLOPs."""
    rows = []
    for name, peer in result["peers"].items():
        if "missing" in peer:
            rows.append([name, f"missing: {peer['missing']}", *["–"] * 5])
            continue
        speeds = peer["images_per_second"]
        figures = (statistics.median(speeds), min(speeds), max(speeds))
        rows.append(
            [
                name,
                _text(peer["settings"]),
                *(f"{figure:,.0f}" for figure in figures),
                f"{ratio(result, name):.2f}",
                f"{share(result, name):.1%}",
            ]
        )
    headers = ["peer", "best settings", "median images/s", "min", "max"]
    headers += ["ours / peer", "share of matrix product"]
    gflops = result["gemm"]["gflops"]
    mflops = flops.total(result["flops"]) / 1e6
    return "\n\n".join(
        [
            f"## Training step, batch {result['batch_size']}",
            results.table(rows, headers, texts=2),
            _verdict(result),
            f"Medians of {len(gflops)} rounds; the last two columns are medians of the"
            f" rounds' ratios. {result['gemm']['size']}³ float32 matrix product, one"
            f" thread per core: {statistics.median(gflops):.1f} GFLOP/s"
            f" ({min(gflops):.1f} to {max(gflops):.1f}). A step takes {mflops:.2f}"
            " MFLOP per image:",
            _flops_table(result["flops"]),
        ]
    )


def _verdict(result: Mapping[str, Any]) -> str:
    others = [name for name in measured(result["peers"]) if name != "ours"]
    if not others:
        return "Nothing to compare with: all other peers are missing."
    fastest = min(others, key=lambda name: ratio(result, name))
    return (
        f"**{ratio(result, fastest):.2f} times** the images/s of the fastest other"
        f" peer, {fastest}; **{share(result, 'ours'):.1%}** of the matrix product's"
        " FLOP/s."
    )


def _flops_table(layers: Mapping[str, Mapping[str, int]]) -> str:
    counts = {layer: list(passes.values()) for layer, passes in layers.items()}
    counts["all"] = [sum(column) for column in zip(*counts.values())]
    rows = [
        [layer, *(f"{count:,}" for count in [*passes, sum(passes)])]
        for layer, passes in counts.items()
    ]
    return results.table(rows, ["FLOP per image", "forward", "backward", "step"])


def plots(result: Mapping[str, Any]) -> dict[str, Figure]:
    """The plot "step": bars for the peers' medians, lines from slowest to fastest."""
    from evaluation import figures

    @figures.styled
    def draw() -> Figure:
        present = measured(result["peers"])
        speeds = [peer["images_per_second"] for peer in present.values()]
        medians = [statistics.median(values) for values in speeds]
        below = [m - min(values) for m, values in zip(medians, speeds, strict=True)]
        above = [max(values) - m for m, values in zip(medians, speeds, strict=True)]
        figure = Figure(
            figsize=(figures.WIDTH, 0.6 + 0.4 * len(present)), layout="constrained"
        )
        axes = figure.subplots()
        colours = [figures.BLUE if name == "ours" else figures.GREY for name in present]
        bars = axes.barh(list(present), medians, color=colours, xerr=[below, above])
        axes.bar_label(
            bars, [f"{m:,.0f} " for m in medians], label_type="center", color="white"
        )
        axes.invert_yaxis()
        axes.grid(False, axis="y")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel(f"images/s, batch {result['batch_size']}")
        return figure

    return {"step": draw()}
