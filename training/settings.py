# SPDX-License-Identifier: Apache-2.0
"""Settings of the training loop, and which of them do not go together."""

import dataclasses
from typing import Any

from augment import mixup, plan
from system import errors
from system.settings import Check, setting
from training import batches, cluster, losses, optimizers, rules, schedules, windows

MAX_EPOCHS = schedules.MAX_STEPS - 1  # no run has more epochs than steps


@dataclasses.dataclass(frozen=True)
class Training:
    """Training"""

    init_from: str | None = setting(
        None,
        "Run directory to take the first weights from, as they are scored there: every"
        " layer with the same name and shapes. The others, such as the last one for"
        " another number of classes, are drawn as usual; none of the optimizer's state"
        " is taken.",
        path=True,
        decides=False,
        local=True,
    )
    freeze: list[str] = setting(
        (),
        "Layers whose weights and batch-norm averages stay as they are, such as"
        " conv1,conv2: with --init_from, for few images or fast steps. --dry_run lists"
        " the layers.",
    )
    whiten: bool = setting(
        False,
        "Start the kernels of conv1 as principal components of patches of the training"
        " images, scaled to the same variance, in place of drawn ones: so its maps are"
        " uncorrelated from the first step, for short runs, with --freeze=conv1 or"
        " without. It takes a tenth of a second.",
    )
    clip_norm: float = setting(
        0.0,
        "Largest norm of all gradients together; longer ones are scaled down to it, so"
        " that one batch cannot ruin the network. 0: no limit. TensorBoard's"
        " gradient_norm, measured after that, shows what is usual.",
        check=optimizers.check_clip_norm,
    )
    optimizer: str = setting(
        "adam",
        "Update rule. muon is for the kernels between the first layer and the last, and"
        " leaves all else to Adam; its --learning_rate is the norm of a step, such as"
        " 0.02.",
        choices=sorted(rules.RULES),
    )
    momentum: float | None = setting(
        None, "Momentum of the rules momentum and muon, in [0, 1).", share=True
    )
    nesterov: bool | None = setting(
        None,
        "Nesterov's momentum: a step already has the gradient that the momentum is"
        " about to get. By default muon has it, and momentum has not.",
    )
    newton_schulz: int | None = setting(
        None,
        "Steps of the iteration that makes muon's updates orthogonal: 1 to 20; each"
        " costs three products of matrices for each kernel.",
        least=1,
        most=20,
    )
    adam_rate: float | None = setting(
        None,
        "Factor on the learning rate for what muon leaves to Adam, above 0.",
        positive=True,
    )
    beta1: float | None = setting(
        None, "Decay of Adam's mean gradient, in [0, 1).", share=True
    )
    beta2: float | None = setting(
        None, "Decay of Adam's mean square, in [0, 1).", share=True
    )
    rho: float | None = setting(
        None, "Decay of RMSprop's mean square, in [0, 1).", share=True
    )
    epsilon: float | None = setting(
        None, "Epsilon of Adam and RMSprop, above 0.", positive=True
    )
    bias_rate: float = setting(
        1.0,
        "Factor on the learning rate of biases, and of batch norm's scales and offsets,"
        " above 0: in short runs they may want a larger rate than the kernels.",
        positive=True,
    )
    lookahead: int = setting(
        0,
        "Every so many steps, go back to between where the weights are and where they"
        " were so many steps ago: makes high rates calmer. 0: never.",
        least=0,
        most=MAX_EPOCHS,
    )
    lookahead_share: float = setting(
        0.5,
        "How far --lookahead leaves the weights on their way, in (0, 1].",
        check=rules.check_share,
    )
    weight_decay: float = setting(
        0.0, "Decoupled weight decay of the kernels, in [0, 1).", share=True
    )
    weight_average: float = setting(
        0.0,
        "Decay of an exponential average of the weights, which is then what is scored;"
        " in [0, 1), 0: none.",
        share=True,
    )
    loss: str = setting(
        "softmax_cross_entropy", "Training loss.", choices=sorted(losses.LOSSES)
    )
    label_smoothing: float = setting(
        0.0, "Share of the target spread over all digits, in [0, 1).", share=True
    )
    teachers: list[str] = setting(
        (),
        "Run directories of networks to learn from, such as runs/a-s0,runs/a-s1: their"
        " mean probabilities for each image become part of its target. Their logits for"
        " the training set are computed once, and stored next to the enlarged sets.",
        decides=False,
        local=True,
    )
    teacher_weight: float = setting(
        0.9,
        "Weight of the teachers' probabilities in the loss, in [0, 1]; the labels have"
        " the rest.",
        check=losses.check_weight,
    )
    temperature: float = setting(
        1.0,
        "Number that the logits of --teachers and of the network are divided by when"
        " they are compared, 0.01 to 100: larger ones show more of how similar a"
        " teacher finds the wrong classes.",
        check=losses.check_temperature,
    )
    teach_online: bool = setting(
        False,
        "Show the --teachers each batch after the online augmentation, instead of each"
        " image of the set once: better targets, but every step takes a forward pass of"
        " each teacher longer.",
    )
    outliers: float = setting(
        0.0,
        "Share of each batch that is replaced by what is no digit, halves and pairs of"
        " digits, with all classes equally likely as its target, in [0, 1): so the"
        " network is unsure where it should be. They count as wrong in the training"
        " accuracy.",
        share=True,
    )
    mixup: float = setting(
        0.0,
        "Mix each image with another one of its batch, and their targets alike: the"
        " shares are drawn in each step from Beta(a, a), where a is this number, 0.01"
        " to 100, such as 0.2; 0: off. The training accuracy goes by the larger share.",
        check=mixup.check,
    )
    continental: float = setting(
        0.0,
        "Share of the ones that are given an upstroke, and of the sevens that are given"
        " a bar, each step, in [0, 1): as most people outside the United States write"
        " them. For digits only.",
        share=True,
    )
    sampler: str = setting(
        "random",
        "random: each image of a batch drawn at random, as in the write-up; epochs:"
        " every image once before any comes again.",
        choices=sorted(batches.SAMPLERS),
    )
    epoch_images: int = setting(
        0, "Images per epoch; 0: as many as the training set has.", least=0
    )
    memory_mb: int = setting(
        0,
        "Megabytes for the images of the enlarged set: if it has more, windows of it"
        " are read from --augmented_dir while training. 0: all of it in memory.",
        least=0,
    )
    decay_factor: float = setting(
        0.5,
        "Factor of the schedules step and plateau, in (0, 1].",
        check=schedules.check_factor,
    )
    decay_epochs: int = setting(
        10, "Epochs between two steps of the schedule step.", least=1, most=MAX_EPOCHS
    )
    plateau_patience: int = setting(
        3,
        "Epochs without improvement before the schedule plateau lowers the rate.",
        least=1,
        most=MAX_EPOCHS,
    )
    plateau_floor: float = setting(
        1e-5, "Lowest rate of the schedule plateau, above 0.", positive=True
    )
    early_stopping: int = setting(
        0,
        "Stop after so many epochs without a better validation accuracy; 0: never.",
        least=0,
        most=MAX_EPOCHS,
    )
    keep_best: bool = setting(
        False,
        "Score the weights of the epoch with the best validation accuracy instead of"
        " the last.",
    )
    split_seed: int = setting(
        0,
        "Seed of the held-out images: apart from --seed, so that all seeds of a recipe"
        " hold out the same images and can be compared.",
        least=0,
        most=plan.MAX_SEED,
    )
    replicas: int = setting(
        0,
        "Parts of a batch to train on side by side, over all workers, each with its own"
        " batch-norm statistics; 1: the exact variant; 0: as many as are fast.",
        least=0,
    )
    deterministic: bool = setting(
        False,
        "Use TensorFlow's op determinism: only kernels that promise the same bits. It"
        " costs speed, and our runs repeat without it.",
    )
    distribute: str = setting(
        "none",
        "Where the --replicas run. none: in one graph, the fastest on one machine;"
        " mirrored: each on a device of its own, in one process; multi_worker: shared"
        " by the processes that TF_CONFIG names, on any machines, as training.launch"
        " starts them.",
        choices=cluster.KINDS,
        decides=False,
    )
    wait_seconds: int = setting(
        cluster.WAIT_SECONDS,
        "How long a worker waits for the others to start.",
        least=1,
        most=10**9,
        decides=False,
        local=True,
    )


# Checks between flags. Their `config` has the flags that `CHECKS` names as attributes.


def _check_whiten(config: Any) -> None:
    if config.whiten and config.init_from:
        raise errors.UsageError(
            "--whiten and --init_from both say what conv1 starts from: leave one out"
        )


def _check_replicas(config: Any) -> None:
    if config.replicas > config.batch_size:
        raise errors.UsageError("more --replicas than --batch_size has images")


def _check_mixup(config: Any) -> None:
    if config.mixup and config.batch_size < 2 * max(1, config.replicas):
        raise errors.UsageError(
            "--mixup mixes images of one replica's part of the batch: expected a"
            " --batch_size of at least two for each of the --replicas"
        )


def _check_memory(config: Any) -> None:
    if config.memory_mb:
        windows.length(config.memory_mb, config.batch_size)


def _check_held_out(config: Any) -> None:
    chooses = config.schedule == "plateau" or config.keep_best
    if (chooses or config.early_stopping) and not config.validation_size:
        raise errors.UsageError(
            "--schedule=plateau, --early_stopping and --keep_best go by the validation"
            " accuracy: set --validation_size"
        )


def _check_floor(config: Any) -> None:
    plateau = config.schedule == "plateau"
    if plateau and config.plateau_floor > config.learning_rate:
        raise errors.UsageError(
            "--plateau_floor is above --learning_rate, so that --schedule=plateau could"
            " never lower it: set a lower floor"
        )


def _check_decay(config: Any) -> None:
    if config.learning_rate * config.weight_decay >= 1:
        raise errors.UsageError(
            "--learning_rate times --weight_decay is the share that a step takes off"
            " each kernel: expected less than 1"
        )


CHECKS: tuple[Check, ...] = (
    (("whiten", "init_from"), _check_whiten),
    (("batch_size", "replicas"), _check_replicas),
    (("mixup", "batch_size", "replicas"), _check_mixup),
    (("memory_mb", "batch_size"), _check_memory),
    (("validation_size", "schedule", "early_stopping", "keep_best"), _check_held_out),
    (("schedule", "plateau_floor", "learning_rate"), _check_floor),
    (("learning_rate", "weight_decay"), _check_decay),
)
