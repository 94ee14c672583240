"""``xpnet generate``: a text that is continued by the language model of a run."""

from __future__ import annotations

import codecs
import itertools
from typing import Annotated

import typer

from xpnet.cli.options import DeviceOption, RunArgument, device_of
from xpnet.console import Output

__all__ = ["generate"]


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="Text to continue; by default the end of a line.")] = "\n",
    length: Annotated[int, typer.Option(min=1, help="Number of bytes to generate.")] = 500,
    temperature: Annotated[
        float,
        typer.Option(min=0.0, help="Divides the scores: below 1 for likelier bytes, 0 for the likeliest alone."),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Draw from so many likeliest bytes; by default from all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    device: DeviceOption = "cpu",
) -> int:
    """Continue a text by the network of a run, trained with --net char-lstm or gpt.

    The bytes are printed as they are drawn. One that is no UTF-8 is printed as a backslash escape.
    """
    from xpnet.datasets.text import from_text
    from xpnet.settings import count
    from xpnet.training.runs import Run

    trained, console = Run.read(run), Output()
    net = trained.language_model_on(device_of(device, console))
    ids = from_text(prompt)
    if not len(ids):
        raise ValueError("--prompt must not be empty")
    length = count("length", length)
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    console.print(decoder.decode(ids.tobytes()), end="")
    for (byte,) in itertools.islice(net.stream(ids[None], temperature=temperature, top_k=top_k, rng=seed), length):
        console.print(decoder.decode(bytes([byte])), end="")
        console.file.flush()
    console.print(decoder.decode(b"", final=True))
    return 0
