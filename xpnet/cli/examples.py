"""Examples at the end of each command's help. RUN is a run's folder."""

from collections.abc import Sequence

__all__ = ["EXAMPLES", "as_text"]

EXAMPLES = {
    "train": (
        "xpnet train",
        "xpnet train --net mlp --optimizer adam --lr 0.001 --plot",
        "xpnet train --resume RUN",
    ),
    "generate": ('xpnet generate RUN --prompt "Alice "', "xpnet generate RUN --length 100 --temperature 0.5"),
    "predict": ("xpnet predict RUN digit.png", "xpnet predict RUN digit.png --top-k 1 --json"),
    "evaluate": ("xpnet evaluate RUN", "xpnet evaluate RUN --data mnist"),
    "report": ("xpnet report RUN", 'xpnet report "$(ls -td runs/* | head -1)"'),
    "export": ("xpnet export RUN --onnx net.onnx", "xpnet export RUN --onnx RUN/net.onnx"),
    "runs": ("xpnet runs", "xpnet runs runs/*"),
    "gradcheck": ("xpnet gradcheck", "xpnet gradcheck --net lenet5 --method directional"),
    "graph": ("xpnet graph apple", "xpnet graph lstm --out lstm.svg"),
    "info": ("xpnet info", "xpnet info --device cpu"),
}
"""Command lines, by the name of the command."""


def as_text(lines: Sequence[str]) -> str:
    """Return examples as a paragraph that Typer does not wrap."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
