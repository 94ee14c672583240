"""The site of xpnet: `make docs` builds it, with warnings as errors."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

project = "xpnet"
author = "The xpnet maintainers"
project_copyright = "The xpnet maintainers, MIT license"
release = version = installed_version("xpnet")

extensions = [
    "mathml",
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["README.md"]
templates_path = ["_templates"]

# Markdown. A link to a heading uses the name that the forge gives it, so that it leads somewhere in both places.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

# The reference: a page for each public name, from its docstring.
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "none"  # numpydoc's sections name the types
numpydoc_show_class_members = False  # the template of a class lists them

# Programs that run while the site is built: the chapter's, and the scripts on one topic each. The others are tools.
TOOLS = ("attention_weights", "benchmark_report", "digits_grid_search", "kill_and_resume", "release_check")
sphinx_gallery_conf: dict[str, Any] = {
    "examples_dirs": ["chapter", "../scripts"],
    "gallery_dirs": ["the_chapter", "gallery"],
    "within_subsection_order": "FileNameSortKey",
    "filename_pattern": ".",
    "reset_argv": "programs.arguments_of",
    "ignore_pattern": "|".join(TOOLS),
    "image_scrapers": ("matplotlib", "programs.embed_graph_pages"),
    "capture_repr": ("_repr_html_",),
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,  # a page whose table loads scripts from elsewhere
    "show_signature": False,
    "abort_on_example_error": True,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = [("frames.js", {"defer": "defer"})]
html_title = "xpnet"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "xpnet"},
    "header_links_before_dropdown": 9,
    "navbar_align": "left",
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def skip_inherited_of_scikit_learn(
    app: Any, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what the estimators have from scikit-learn: its own documentation describes that."""
    return True if (getattr(member, "__module__", None) or "").startswith("sklearn") else None


def setup(app: Sphinx) -> None:
    """Connect the handler."""
    app.connect("autodoc-skip-member", skip_inherited_of_scikit_learn)
