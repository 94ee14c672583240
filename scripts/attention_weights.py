"""Attention weights over the bytes of a sentence, drawn for each head of a GPT's block.

    xpnet train --net gpt
    python scripts/attention_weights.py runs/... "Alice was beginning to get very tired"

Row: the byte that looks back. Column: the byte that it looks at. Needs xpnet[cli,plot].
"""

import argparse

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from xpnet.datasets.text import from_text, to_text
from xpnet.training.runs import Run

parser = argparse.ArgumentParser(description="Draw the attention weights of a run of xpnet train --net gpt.")
parser.add_argument("run", help="folder of the run")
parser.add_argument("sentence")
parser.add_argument("--block", type=int, default=1, help="number of the block, from 1")
parser.add_argument("--out", default="attention_weights.svg")
arguments = parser.parse_args()

net = Run.read(arguments.run).language_model_on("cpu")
attention = net.layers[f"TransformerBlock{arguments.block}"].parts["Residual1"].parts["MultiHeadAttention1"]
attention.block_size = None  # all weights in memory at once
ids = from_text(arguments.sentence)[: net.context]
net.predict(ids[None])
tokens = [to_text(ids[i : i + 1]).replace(" ", "\N{OPEN BOX}") for i in range(len(ids))]

heads = attention.weights
figure = Figure(figsize=(4.5 * len(heads), 4.5), layout="constrained")
rows = figure.subplots(1, len(heads), squeeze=False)
for number, (axes, weights) in enumerate(zip(rows[0], heads, strict=True), 1):
    picture = axes.imshow(weights, cmap="Blues", norm=PowerNorm(0.5, 0, 1))  # small weights are seen, too
    axes.set(title=f"head {number}", xticks=range(len(tokens)), yticks=range(len(tokens)))
    axes.set_xticklabels(tokens, fontsize=7)
    axes.set_yticklabels(tokens, fontsize=7)
figure.colorbar(picture, ax=rows, label="weight")
figure.savefig(arguments.out, bbox_inches="tight")
print(f"{arguments.out} written: block {arguments.block}, {len(heads)} heads")
