"""Made-up traces for tests that need no model: deterministic, and full of awkward text."""

import math
import random
from pathlib import Path
from typing import Any

import msgspec
from prunetui.engine.options import Options
from prunetui.engine.trace.file import SUFFIX, TraceWriter
from prunetui.engine.trace.records import (
    AnswerNumbers,
    Answers,
    Blamed,
    Branch,
    Candidates,
    Drift,
    Header,
    Lane,
    LaneLens,
    Lens,
    Model,
    Prompt,
    Read,
    Rewind,
    Sampling,
    Step,
    Token,
    Transition,
)
from prunetui.engine.trace.trace import Trace
from prunetui.engine.trace.vector_file import Layout, Space, VectorWriter, vectors_path

from .blames import make_blame

HOSTILE = [
    "[INST]",
    "[/foo]",
    "\x1b[31mred",
    "\x1b]52;c;aGk=\x07",
    "\n\n",
    "漢字",
    "\u202eabc",
    "é́",
]


def make_header(variants: int = 2, layers: int = 3) -> Header:
    names = ["drop:attn=1", "drop:mlp=1", "drop:attn=[0,2]", "drop:mlp=[1]"][:variants]
    return Header(
        version=1,
        model=Model(
            name="tiny",
            family="llama",
            layers=layers,
            hidden_size=16,
            vocab_size=100,
            parameters=12345,
            dtype="float32",
            device="cpu",
            context_length=512,
        ),
        lanes=[
            Lane(name="baseline", recipe=None, dropped_attention=[], dropped_mlp=[]),
            *(Lane(name=n, recipe=n, dropped_attention=[1], dropped_mlp=[]) for n in names),
        ],
        prompt=Prompt(text="Why [do] these differ?", chat_template=True, tokens=[1, 2, 3]),
        sampling=Sampling(
            temperature=0.0, top_k=0, top_p=1.0, seed=0, max_new_tokens=64, ignore_eos=False
        ),
        context="free",
        noise_floor=1e-4,
        bandwidth=25e9,
        versions={"prunetui": "0.1.0"},
        created="2026-01-01T00:00:00Z",
    )


def make_step(number: int, variants: int = 2, layers: int = 3, vocabulary: int = 12) -> Step:
    """A made-up step at which variant v differs from the baseline from step 4 * (v + 1) on."""
    rng = random.Random(number)
    texts = [f" word{i}" for i in range(vocabulary - len(HOSTILE))] + HOSTILE
    tokens = [number % vocabulary]
    tokens += [
        (number + (0 if number < 4 * (v + 1) else v + 1)) % vocabulary for v in range(variants)
    ]
    probs = []
    for _ in tokens:
        weights = [rng.random() ** 3 + 1e-3 for _ in range(8)]
        probs.append([w / sum(weights) for w in weights])
    order = [(number + i) % vocabulary for i in range(8)]

    def drift(v: int) -> Drift:
        far = 1 - math.exp(-number * (v + 1) / 20)
        return Drift(
            cos_h=1 - 0.4 * far,
            cos_z=1 - 0.1 * far,
            cos_p=1 - far * rng.random(),
            cos_z_centred=1 - 0.2 * far,
            par_h=-0.1 * far,
            orth_h=0.8 * far,
            par_z=-0.05 * far,
            orth_z=0.4 * far,
            est_h=0.32 * far**2,
            est_z=0.08 * far**2,
            est_p=0.9 * far,
            kl=9 * far * rng.random(),
            kl_rev=8 * far,
            est_kl=7 * far,
            top1=tokens[0] == tokens[v + 1],
            dp=-0.3 * far,
            logq=math.log(probs[0][0]) - far * (1 + rng.random()),
        )

    return Step(
        step=number,
        lanes=[
            Token(
                token=token,
                text=texts[token],
                prob=probs[lane][0],
                logprob=math.log(probs[lane][0]),
                entropy=1.0 + lane,
                margin=0.5,
                ended=False,
            )
            for lane, token in enumerate(tokens)
        ],
        candidates=Candidates(
            tokens=order, texts=[texts[token] for token in order], probs=list(probs)
        ),
        drift=[drift(v) for v in range(variants)],
        layers=[[1 - 0.01 * i * (v + 1) for i in range(2 * layers)] for v in range(variants)],
        seconds=0.04,
        read=500_000_000,
        memory=1_000_000_000,
    )


def with_local(trace: Trace) -> Trace:
    """A copy in context both, with local drift a quarter of the propagated one."""

    def nearer(drift: Drift | None) -> Drift | None:
        if drift is None:
            return None
        changes: dict[str, Any] = {}
        for key, value in msgspec.structs.asdict(drift).items():
            if key.startswith("cos"):
                changes[key] = 1 - (1 - value) / 4
            elif not isinstance(value, bool):
                changes[key] = value / 4
        return msgspec.structs.replace(drift, **changes)

    both = Trace(msgspec.structs.replace(trace.header, context="both"))
    for step in trace.steps:
        both.append(msgspec.structs.replace(step, local=[nearer(drift) for drift in step.drift]))
    return both


def make_trace(steps: int = 40, variants: int = 2) -> Trace:
    trace = Trace(make_header(variants))
    for number in range(steps):
        trace.append(make_step(number, variants))
    return trace


def make_lens(variants: int = 2, layers: int = 3, *, local: bool = False) -> Lens:
    """A made-up lens: token 5, but 7 + v in variant v from layer 1 on; raw tokens are 1 more."""

    def lane(number: int) -> LaneLens:
        points = 2 * layers + 1
        tokens = [6 + number if number and point > 2 else 5 for point in range(points)]
        return LaneLens(
            tokens=tokens,
            texts=[HOSTILE[token % 3] if token > 5 else " the" for token in tokens],
            probs=[point / points for point in range(points)],
            raw_tokens=[token + 1 for token in tokens],
            raw_texts=[f" raw{token}" for token in tokens],
            raw_probs=[0.25] * points,
            transitions=[
                Transition(cos_h=1 - 0.1 * n, cos_z=0.5, cos_p=0.0625, kl=n / 8 + number * 10)
                for n in range(2 * layers)
            ],
        )

    lanes: list[LaneLens | None] = [lane(number) for number in range(variants + 1)]
    return Lens(lanes=lanes, local=[None, *lanes[2:]] if local else None)


def broken_step(number: int, lane: int = 1) -> Step:
    """A step at which one lane's logits are not numbers."""
    step = make_step(number)
    tokens, probs = [*step.lanes], [*step.candidates.probs]
    token = tokens[lane]
    assert token is not None
    changes = {"prob": None, "logprob": None, "entropy": None, "margin": None, "text": ""}
    tokens[lane] = msgspec.structs.replace(token, not_numbers=True, **changes)
    probs[lane] = [None for _ in step.candidates.tokens]
    nulls: dict[str, Any] = dict.fromkeys(Drift.__struct_fields__)
    not_comparable = Drift(**nulls | {"top1": False, "not_comparable": True})
    drift = [*step.drift]
    for variant in range(len(drift)) if lane == 0 else [lane - 1]:
        drift[variant] = not_comparable
    candidates = msgspec.structs.replace(step.candidates, probs=probs)
    return msgspec.structs.replace(step, lanes=tokens, candidates=candidates, drift=drift)


def part_broken(steps: int = 10, of: tuple[int, ...] = (6, 7, 9), lane: int = 1) -> Trace:
    """A trace in which one lane's logits are not numbers at some steps."""
    trace = Trace(make_header())
    for number in range(steps):
        trace.append(broken_step(number, lane) if number in of else make_step(number))
    return trace


VECTOR_ROWS = 5
"""Rows of a block of vectors: three lanes, and two variants on the baseline's tokens."""


def write_whole_trace(folder: Path) -> Path:
    """Write a trace that has every record and every field, with vectors beside it."""
    header = make_header()
    header = msgspec.structs.replace(
        header,
        context="both",
        answers=Answers(texts=["A", "B"], tokens=[3, 4]),
        options=Options(keep=("h", "z"), answers=("A", "B")),
    )
    answers = [AnswerNumbers(z=[1.0, 2.0], logprob=[-2.0, -1.0])] * 3
    path = folder / f"whole{SUFFIX}"
    writer = TraceWriter(path, header)
    widths: dict[Space, int] = {"h": 4, "z": 6}
    for space, width in widths.items():
        vectors = VectorWriter(
            vectors_path(path, space), Layout(dtype="F32", shape=(VECTOR_ROWS, width))
        )
        for _ in range(6):
            vectors.write(bytes(4 * VECTOR_ROWS * width))
        vectors.close()
    local = with_local(make_trace(6))
    step = None
    for number in range(5):
        step = broken_step(number) if number == 3 else make_step(number)
        step = msgspec.structs.replace(
            step,
            local=local.steps[number].local,
            local_layers=step.layers,
            answers=answers,
            local_answers=answers[1:],
            block=number,
            lens=make_lens(local=True) if number == 1 else None,
            blames=[make_blame()] if number == 2 else [],
        )
        writer.write(step)
    writer.write(Read(step=2, lens=make_lens()))
    writer.write(Blamed(step=2, blame=msgspec.structs.replace(make_blame(), tokens="lane")))
    writer.write(Rewind(to=4))
    writer.write(Branch(parent=0, at=3))
    assert step is not None
    writer.write(msgspec.structs.replace(step, step=3))
    writer.close()
    return path
