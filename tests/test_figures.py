"""A picture carries its text, is sharp, and depends on no global state."""

import base64
import io

import matplotlib
import pytest
from PIL import Image

from labutils import palette
from labutils.figures import Picture, new_figure


def drawn():
    figure, axes = new_figure(4, 2)
    axes.plot([0, 1], [0, 1], label="x")
    axes.set(title="A line", xlabel="x", ylabel="y")
    axes.legend()
    return Picture(figure, "A line from 0 to 1.")


def test_a_picture_says_what_it_shows():
    data, metadata = drawn()._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A line from 0 to 1."
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.width == pytest.approx(1.5 * metadata["image/png"]["width"], abs=1)


def test_a_picture_without_a_text_is_refused():
    with pytest.raises(ValueError, match="alt must say"):
        Picture(new_figure()[0], " ")


def test_the_same_figure_gives_the_same_bytes_whatever_a_learner_did_to_matplotlib():
    before = drawn().png
    with matplotlib.rc_context({"axes.facecolor": "black", "savefig.dpi": 30, "savefig.transparent": True}):
        assert drawn().png == before


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["ORIGINAL", "QUANTIZED", "THEORY", "GOOD", "INK"])
def test_lines_stand_out_from_paper(name):
    """3:1, which WCAG 2.1 (1.4.11) asks of graphical objects."""
    colour = getattr(palette, name)
    assert (luminance(palette.PAPER) + 0.05) / (luminance(colour) + 0.05) >= 3
