# SPDX-License-Identifier: Apache-2.0
"""Training speed of LeNet-SELU: our loop next to Keras, PyTorch and JAX.

Each peer first tries a few settings and is then measured with the best of them. All
take turns, so that a slow minute of the machine hits all of them. A matrix product next
to them shows what the machine can do. Where the processor has AVX-512, all are measured
again held to AVX2, as most processors have no more, each with the better of the two
settings that were its fastest before.
"""

import contextlib
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks import flops, peers, results, step_peers
from benchmarks.ours import BATCH_SIZE
from benchmarks.step_peers import Settings
from native import compile, toolchain

Start = Callable[[str, Settings], peers.Peer]  # of a peer by its name

PEERS = "benchmarks.step_peers"

# Environment variables that hold all peers to AVX2: our operations, TensorFlow's, XLA's
# and PyTorch's, with `torch.compile`.
HELD_TO_AVX2 = {
    compile.MAX_ISA: "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}

TURNS = 3  # per setting, from which we choose the best
TRIED_AGAIN = 2  # settings of a peer, with a further instruction set
TURN_SECONDS = 1.0
ROUND_SECONDS = 5.0

# Number of settings that --quick tries: under two minutes per instruction set, of which
# torch.compile takes half a minute.
QUICK_SETTINGS = {"ours": 1, "keras": 2, "torch_eager": 2, "torch_compile": 1}
QUICK_SETTINGS |= {"jax": 1, "keras_jax": 1}
QUICK_ROUND_SECONDS = 1.0


def measure(rounds: int, quick: bool = False) -> dict[str, Any]:
    """Measures all peers with each of `instruction_sets`.

    `quick` tries fewer settings, in shorter rounds. Returns {"instruction_sets": {name:
    result of `compare`}}; see there for the errors.
    """
    settings, seconds = step_peers.SETTINGS, ROUND_SECONDS
    if quick:
        settings = {
            p: step_peers.SETTINGS[p][:count] for p, count in QUICK_SETTINGS.items()
        }
        seconds = QUICK_ROUND_SECONDS
    found = {}
    for name, environment in instruction_sets().items():
        print(f"instruction set: {name}", flush=True)
        found[name] = compare(settings, rounds, seconds, environment=environment)
        settings = {p: _fastest(found[name]["peers"][p], settings[p]) for p in settings}
    return {"instruction_sets": found}


def _fastest(peer: Mapping[str, Any], settings: list[Settings]) -> list[Settings]:
    """The settings to try again: those that were fastest, or all if none was tried."""
    tried = sorted(
        peer.get("tried", []),
        key=lambda of: -statistics.median(of["images_per_second"]),
    )
    return [of["settings"] for of in tried[:TRIED_AGAIN]] or settings


def instruction_sets() -> dict[str, dict[str, str]]:
    """Instruction sets to measure here, each with the environment of its peers."""
    names = toolchain.processor().split()
    if "avx512f" in names:
        return {"AVX-512": {}, "AVX2": HELD_TO_AVX2}
    return {"AVX2" if "avx2" in names else platform.machine(): {}}


def compare(
    settings: Mapping[str, Sequence[Settings]],
    rounds: int,
    seconds: float,
    turn_seconds: float = TURN_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Measures peers with the best of their settings, in turns.

    Args:
      settings: {name of a peer, with "ours" among them: its settings, at least one}.
      rounds: number of measurements of each peer.
      seconds, turn_seconds: of a measurement, and of a try of settings.
      environment: further environment variables of the peers' processes.

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

        def start(name: str, some: Settings) -> peers.Peer:
            return stack.enter_context(peers.Peer(PEERS, name, some, environment))

        running, found = _choose_all(start, settings, turn_seconds)
        running["gemm"] = start("gemm", {})
        answers, missing = _ask_in_turns(running, rounds, seconds)
    gflops = [answer["gflops"] for answer in answers.pop("gemm")]
    for name, of_peer in answers.items():
        found[name]["parameters"] = of_peer[0]["parameters"]
        found[name]["images_per_second"] = [a["images_per_second"] for a in of_peer]
    found |= {name: {"missing": reason} for name, reason in missing.items()}
    _check_same_network(found)
    return {
        "batch_size": BATCH_SIZE,
        "flops": flops.training_step(),
        "gemm": {"size": step_peers.GEMM_SIZE, "gflops": gflops},
        "peers": found,
    }


def _choose_all(
    start: Start,
    settings: Mapping[str, Sequence[Settings]],
    seconds: float,
) -> tuple[dict[str, peers.Peer], dict[str, dict[str, Any]]]:
    """Starts the peers that start; what was tried of each, or why "missing"."""
    running: dict[str, peers.Peer] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, some in settings.items():
        try:
            running[name], tried = _choose(start, name, some, seconds)
        except peers.BenchmarkError as missing:
            if name == "ours":
                raise
            print(f"{name} is missing: {missing}")
            found[name] = {"missing": _reason(missing)}
        else:
            found[name] = {"settings": running[name].settings, "tried": tried}
    return running, found


def _reason(error: peers.BenchmarkError) -> str:
    """What an error says, without the command, which has paths of this machine."""
    return str(error).partition("; to see its full output")[0]


def _ask_in_turns(
    running: Mapping[str, peers.Peer], rounds: int, seconds: float
) -> tuple[dict[str, list[dict[str, float]]], dict[str, str]]:
    """Answers of each peer, one per round; and why others have failed."""
    answers: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    missing: dict[str, str] = {}
    for number in range(1, rounds + 1):
        shown = []
        for name in list(answers):
            try:
                answer = running[name].ask(seconds)
            except peers.BenchmarkError as failed:
                if name in ("ours", "gemm"):
                    raise
                print(f"{name} is missing: {failed}")
                del answers[name]
                missing[name] = _reason(failed)
                continue
            answers[name].append(answer)
            shown.append(f"{name} {next(iter(answer.values())):,.0f}")
        print(f"round {number} of {rounds}, images/s: {', '.join(shown)} GFLOP/s")
    return answers, missing


def _choose(
    start: Start,
    name: str,
    settings: Sequence[Settings],
    seconds: float,
) -> tuple[peers.Peer, list[dict[str, Any]]]:
    """Starts a peer with each of its settings; keeps the fastest, closes the others.

    Returns:
      The peer, not closed; if there was a choice, a list of what was
      tried: {"settings", "images_per_second" of each turn}.
    """
    candidates = peers.start_each(lambda s: start(name, s), settings, name == "ours")
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


def markdown(figures: Mapping[str, Any]) -> str:
    """Section with a table of peers per instruction set, and the table of FLOPs."""
    found = figures["instruction_sets"]
    some = next(iter(found.values()))
    mflops = flops.total(some["flops"]) / 1e6
    parts = [f"## Training step, batch {some['batch_size']}"]
    for name, result in found.items():
        parts += [f"### {name}", *_of_instruction_set(result)]
    if "AVX-512" not in found:
        parts.append("This processor has no AVX-512.")
    parts.append(f"A step takes {mflops:.2f} MFLOP per image:")
    return "\n\n".join([*parts, flops.table(some["flops"])])


def _of_instruction_set(result: Mapping[str, Any]) -> list[str]:
    """Table of peers, conclusion, and how it was measured."""
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
    return [
        results.table(rows, headers, texts=2),
        _verdict(result),
        f"Medians of {len(gflops)} rounds; the last two columns are medians of the"
        f" rounds' ratios. {result['gemm']['size']}³ float32 matrix product, one"
        f" thread per core: {statistics.median(gflops):.1f} GFLOP/s"
        f" ({min(gflops):.1f} to {max(gflops):.1f}).",
    ]


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


def plots(figures: Mapping[str, Any]) -> dict[str, Figure]:
    """The plot "step": per instruction set, bars for the medians of all peers."""
    from evaluation import figures as style

    found = figures["instruction_sets"]

    @style.styled
    def draw() -> Figure:
        present = {name: measured(result["peers"]) for name, result in found.items()}
        heights = [len(of_set) for of_set in present.values()]
        figure = Figure(
            figsize=(style.WIDTH, 0.6 + 0.4 * sum(heights) + 0.3 * len(heights)),
            layout="constrained",
        )
        rows = figure.subplots(
            len(found), sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]
        for (name, of_set), axes in zip(present.items(), rows, strict=True):
            axes.set_title(name)
            _draw_bars(axes, of_set, style)
        some = next(iter(found.values()))
        rows[-1].set_xlabel(f"images/s, batch {some['batch_size']}")
        return figure

    return {"step": draw()}


def _draw_bars(axes: Any, of_set: Mapping[str, Any], style: Any) -> None:
    """Bars for the peers' medians, with lines from slowest to fastest."""
    speeds = [peer["images_per_second"] for peer in of_set.values()]
    medians = [statistics.median(values) for values in speeds]
    below = [m - min(values) for m, values in zip(medians, speeds, strict=True)]
    above = [max(values) - m for m, values in zip(medians, speeds, strict=True)]
    colours = [style.BLUE if name == "ours" else style.GREY for name in of_set]
    bars = axes.barh(list(of_set), medians, color=colours, xerr=[below, above])
    axes.bar_label(
        bars, [f"{m:,.0f} " for m in medians], label_type="center", color="white"
    )
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter("{x:,.0f}")
