"""Differences between ipywidgets 7, which Colab still has, and 8, which JupyterLab needs."""

from __future__ import annotations

import ipywidgets as widgets

TOOLTIP = "tooltip" if hasattr(widgets.IntSlider, "tooltip") else "description_tooltip"  # of all widgets but buttons


def view(widget: widgets.Widget) -> dict[str, dict]:
    """The data that makes a notebook show a widget: its `_repr_mimebundle_`, which ipywidgets 7 lacks."""
    model = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"application/vnd.jupyter.widget-view+json": model}
