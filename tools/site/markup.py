"""What is mended in a page's HTML: heads of tables without words, and how folded code is labelled."""

from __future__ import annotations

import html
import textwrap

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


def setup(app: Sphinx) -> dict:
    app.add_transform(WithoutEmptyHeads)
    app.connect("html-page-context", without_empty_header_cells)
    app.connect("html-page-context", described)
    app.connect("html-page-context", front_page)
    app.add_node(HideCodeCellNode, override=True, html=(open_fold, close_fold))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class WithoutEmptyHeads(SphinxTransform):
    """Markdown has no table without a head. A head without words would be read out as one, so it is left out."""

    default_priority = 800

    def apply(self) -> None:
        for head in list(self.document.findall(nodes.thead)):
            if not head.astext().strip():
                head.parent.remove(head)


def without_empty_header_cells(app: Sphinx, name: str, template: str, context: dict, document: nodes.document) -> None:
    """The corner of a table that names rows and columns names nothing."""
    context["body"] = context.get("body", "").replace('<th class="head"><p></p></th>', "<td></td>")


def described(app: Sphinx, name: str, template: str, context: dict, document: nodes.document | None) -> None:
    """What a search engine shows of a page: the beginning of its first paragraph."""
    if document is None:
        return
    words = " ".join(next(document.findall(nodes.paragraph)).astext().split())
    content = html.escape(textwrap.shorten(words, 160, placeholder=" ..."))
    context["metatags"] = f'{context.get("metatags", "")}<meta name="description" content="{content}">'


def front_page(app: Sphinx, name: str, template: str, context: dict, document: nodes.document | None) -> None:
    """Its title is that of the site, and it says itself what the licence is."""
    if name == app.config.root_doc:
        context.update(docstitle="", theme_extra_footer="")


def open_fold(writer, node: HideCodeCellNode) -> None:
    """myst-nb's own has a label that is not the text that is seen, and looks like a warning."""
    writer.body.append(f'<details class="folded"><summary>{html.escape(node["prompt_show"])}</summary>')


def close_fold(writer, node: HideCodeCellNode) -> None:
    writer.body.append("</details>")
