"""A picture has alt text and a sharp PNG, and does not depend on matplotlib's global settings."""

import base64
import io

import matplotlib
import pytest
from PIL import Image

from labutils.course.figures import Picture, new_figure


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
