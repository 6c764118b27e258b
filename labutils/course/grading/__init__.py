"""A class graded by nbgrader in several processes: `python -m labutils.grading LAB`, in a course folder.

nbgrader itself does all grading. A process of its own does for each submission what nbgrader does before marks are
written (`alone`); this process then writes them, one student after another, by the rest of nbgrader's steps
(`gradebook`).
"""
