"""How the site runs its programs: their arguments, and the pages of computational graphs that they write."""

import re
from pathlib import Path
from typing import Any

__all__ = ["arguments_of", "embed_graph_pages"]

# Fewer steps than by default, so that the site is built in a minute. Each page shows its program's arguments.
ARGUMENTS = {
    "batch_normalization": ["--epochs", "5"],
    "compare_optimizers": ["--steps", "500"],
    "compare_weight_init": ["--steps", "500"],
    "overfitting": ["--epochs", "60"],
    "train_convnet": ["--steps", "300"],
    "train_mnist": ["--iters", "1200"],
}
PICTURES = (
    *("batch_normalization", "compare_optimizers", "compare_weight_init", "gradient_check", "overfitting"),
    "train_convnet",
)

FRAME = """
.. raw:: html

    <iframe class="graph-page" src="../_static/graphs/{name}.html" title="Graph: {title}" loading="lazy"></iframe>
    <p class="graph-link"><a href="../_static/graphs/{name}.html">The graph on a page of its own</a></p>
"""


def arguments_of(gallery_conf: dict[str, Any], script_vars: dict[str, Any]) -> list[str]:
    """Return the command-line arguments of a program; pictures go to the generated folder."""
    name = Path(script_vars["src_file"]).stem
    picture = ["--out", str(Path(script_vars["target_file"]).with_suffix(".png"))] if name in PICTURES else []
    return ARGUMENTS.get(name, []) + picture


def embed_graph_pages(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Return a frame for each page that the block wrote: an image scraper of sphinx-gallery.

    The page's drawing is the image. The gallery shows it in small.
    """
    folder = Path(gallery_conf["src_dir"], "_static", "graphs")
    folder.mkdir(parents=True, exist_ok=True)
    frames = []
    for page in sorted(Path(block_vars["src_file"]).parent.glob("*.html")):
        drawing = re.search("<svg .*</svg>", page.read_text("utf-8"), re.DOTALL)
        if drawing:
            picture = Path(next(block_vars["image_path_iterator"])).with_suffix(".svg")
            picture.write_text(drawing.group(), encoding="utf-8")
        page.rename(folder / page.name)
        frames.append(FRAME.format(name=page.stem, title=page.stem.replace("_", " ")))
    return "".join(frames)
