"""nbgrader for who grades, as ~/.jupyter/nbgrader_config.py."""

from pathlib import Path

c = get_config()  # noqa: F821

c.CourseDirectory.root = str(Path.home() / "quantization")
c.Execute.timeout = 60  # seconds for a cell; the course's longest takes 15
c.Autograde.sanitize_preprocessors.prepend(["labutils.course.copied_cells.release_copies"])
