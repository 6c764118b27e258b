"""Mathematics: TeX becomes MathML while the site is built, and browsers set it themselves with a font of the site.

No script and no other host takes part. The font is STIX Two Math, reduced to the signs that the pages use.
"""

from __future__ import annotations

import html
import logging
import re
from importlib.resources import as_file, files
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from docutils.nodes import SkipNode
from fontTools import subset
from fontTools.ttLib import TTFont
from math_core import LatexToMathML
from sphinx.application import Sphinx

FONT = ("ziamath.fonts", "STIXTwoMath-Regular.ttf")
MATH = re.compile(r"<math.*?</math>", re.DOTALL)
TAGS = re.compile(r"<[^>]+>")
RELATIONS = {"=", "≈", "≤", "<", "→", "←"}
SIGNS = {"+", "−"}  # between two terms, but not before one
DRAWN = "\N{SQUARE ROOT}"  # by <msqrt>, in whose text it does not stand

convert = LatexToMathML().convert_with_local_state


def setup(app: Sphinx) -> dict:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mathml(tex: str, block: bool = False) -> str:
    r"""TeX as MathML.

    >>> mathml("x^2")
    '<math><msup><mi>x</mi><mn>2</mn></msup></math>'

    math_core.LatexError for what is not TeX, or a command that it does not know.
    """
    return convert(tex, displaystyle=block)


def visit_inline(writer, node) -> None:
    writer.body.append(in_pieces(mathml(node.astext())))
    raise SkipNode


def visit_block(writer, node) -> None:
    writer.body.append(f'<div class="formula">{mathml(node.astext(), block=True)}</div>')
    raise SkipNode


def in_pieces(formula: str) -> str:
    """A formula of running text as several <math>, since browsers break lines only between them, not within.

    >>> in_pieces("<math><mi>x</mi><mo>=</mo><mn>1</mn></math>")
    '<math><mi>x</mi><mo>=</mo></math><math><mn>1</mn></math>'
    """
    pieces: list[list[Tag]] = [[]]
    for child in BeautifulSoup(formula, "html.parser").math.contents:
        before = pieces[-1][-1:]
        pieces[-1].append(child)
        if child.text in RELATIONS or (child.text in SIGNS and before and before[0].name != "mo"):
            pieces.append([])
    return "".join(f"<math>{''.join(map(str, piece))}</math>" for piece in pieces if piece)


def write_font(site: Path) -> None:
    """Write _static/mathematics.woff with the signs that the formulas of all pages hold."""
    logging.getLogger(subset.__name__).setLevel(logging.WARNING)
    signs = set(DRAWN)
    for page in site.rglob("*.html"):
        for formula in MATH.findall(page.read_text(encoding="utf-8")):
            signs |= set(html.unescape(TAGS.sub("", formula)))
    options = subset.Options(flavor="woff", layout_features=["*"])
    package, name = FONT
    with as_file(files(package) / name) as path:
        font = subset.load_font(str(path), options)
    reduced = subset.Subsetter(options)
    reduced.populate(text="".join(signs | italic(signs)))
    reduced.subset(font)
    _one_size(font, DRAWN)
    subset.save_font(font, str(site / "_static" / "mathematics.woff"), options)


def _one_size(font: TTFont, sign: str) -> None:
    """Leave a sign no larger variants, which a browser would stretch.

    The next larger root of the font is nearly twice as high as a letter, and Chromium takes it for any that does not
    quite fit the first: a root over x would be as high as one over a fraction.
    """
    variants = font["MATH"].table.MathVariants
    place = variants.VertGlyphCoverage.glyphs.index(font.getBestCmap()[ord(sign)])
    larger = variants.VertGlyphConstruction[place]
    larger.GlyphAssembly = None
    del larger.MathGlyphVariantRecord[1:]
    larger.VariantCount = 1


def italic(signs: set[str]) -> set[str]:
    """The signs that a browser draws in place of single letters in <mi>.

    >>> italic({"x", "1"})
    {'𝑥'}
    """
    latin = {c: chr(0x1D434 + i) for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}
    latin |= {c: chr(0x1D44E + i) for i, c in enumerate("abcdefghijklmnopqrstuvwxyz")} | {"h": "ℎ"}
    greek = {chr(0x391 + i): chr(0x1D6E2 + i) for i in range(25)} | {
        chr(0x3B1 + i): chr(0x1D6FC + i) for i in range(25)
    }
    return {letters[sign] for letters in (latin, greek) for sign in signs & letters.keys()}
