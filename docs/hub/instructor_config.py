"""Where the course is on a hub, behind docs/nbgrader_config.py in the instructor's ~/.jupyter/nbgrader_config.py."""

from pathlib import Path

c = get_config()  # noqa: F821

c.CourseDirectory.root = str(Path.home() / "quantization")
