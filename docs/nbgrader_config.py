"""nbgrader's settings for grading this course: they belong into the course folder's nbgrader_config.py."""

c = get_config()  # noqa: F821

c.Execute.timeout = 60  # seconds for a cell; the course's longest takes 15
# Of a cell that a student has copied, the last copy counts; without this, nbgrader stops there.
c.Autograde.sanitize_preprocessors.prepend(["labutils.course.copied_cells.release_copies"])
# A page of feedback has no kernel: it shows an explorer's picture, where its sliders would be an empty place.
c.NbConvertBase.display_data_priority = [
    "text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain",
]  # fmt: skip
