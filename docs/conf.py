"""The documentation site: sphinx-build -EW -c docs . build/site (Sphinx, MyST, Furo; the notebooks are executed).

The source folder is the repository's root, so that a page's links are the same here and on GitHub. Warnings are errors:
links between pages, anchors, images and names in docstrings are all checked, and finally every link of the HTML.
"""

import html.parser
import os
import sys
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)  # this and the next for the notebooks, which run `python`
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.util import logging  # noqa: E402

from sdfn_jax import __version__  # noqa: E402

project = "sdfn_jax"
author = "The developers of sdfn_jax"
copyright = author
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "tfds_builders/*/README.md",
    "sdfn_jax/lungs/shipped/MODEL_CARD.md",
]
exclude_patterns = [".*", "build", "runs", "data"]
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!sdfn_jax).*"),  # types of other libraries, whose sites a build without a network cannot ask
    (r"py:class", r"sdfn_jax\..*\.(Classifier|Evaluation|Imported|Segmenter)"),  # not documented
]

myst_enable_extensions = ["html_image"]
myst_heading_anchors = 3  # the anchors that GitHub gives headings
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1800  # seconds; on a free machine a cell takes at most 40, on a busy one many times that
nb_execution_in_temp = True
nb_merge_streams = True
suppress_warnings = ["myst.header"]  # the change log's headings start at the second level

default_role = "literal"  # of `names` in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # a list of attributes, not a heading for each

highlight_language = "bash"  # of blocks without a language: commands
html_theme = "furo"
html_title = f"sdfn_jax {__version__}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

logger = logging.getLogger(__name__)


class Links(html.parser.HTMLParser):
    """The addresses and the anchors of an HTML page."""

    def __init__(self):
        super().__init__()
        self.addresses, self.anchors = set(), set()

    def handle_starttag(self, tag, attrs):
        """Notes what a tag leads to and what leads to it."""
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.addresses.add(value)
            elif name == "id":
                self.anchors.add(value)


def title_data_set(app, docname, source):
    """Gives the page of a data set a title: the word before the colon with which it begins, by TFDS's convention."""
    if docname.startswith("tfds_builders/"):
        source[0] = f"# {source[0].partition(':')[0]}\n\n{source[0]}"


def keep_colons(app, what, name, obj, options, lines):
    """Puts a comment before a property's docstring, of which Napoleon takes what is before a colon for a type."""
    if what in ("attribute", "property"):
        lines[:0] = ["..", ""]


def finish(app, exception):
    """Sends the root of the site to its first page, and warns of links that lead nowhere."""
    if exception is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    first = f"{root_doc}.html"
    (site / "index.html").write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={first}">\n')
    pages = {(site / f"{name}.html").resolve(): Links() for name in app.env.found_docs}
    for path, links in pages.items():
        links.feed(path.read_text(encoding="utf-8"))
    for path, links in pages.items():
        for address in links.addresses:
            parts = urllib.parse.urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                logger.warning("%s: %s leads nowhere", path.relative_to(site.resolve()), address)


def setup(app):
    """Registers the above with Sphinx."""
    app.add_lexer("csv", TextLexer)  # Pygments has none
    app.connect("source-read", title_data_set)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before Napoleon
    app.connect("build-finished", finish)
