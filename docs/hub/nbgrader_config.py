"""nbgrader for every account, as /etc/jupyter/nbgrader_config.py."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "quantization"
c.Exchange.root = "/srv/nbgrader/exchange"
