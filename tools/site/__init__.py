"""The course as a web site: `python -m tools.site` makes it from notebooks, the outputs of solutions, and documents.

pages.py        which files become pages, and where links between them lead
labs.py         a notebook as a page: the lab without answers, and the solution
exercises.py    the list of all exercises
mathematics.py  TeX to MathML, and the font that sets it
markup.py       what is mended in a page's HTML
conf.py         Sphinx's settings
static/         what the pages load
build.py        all of it, in order
"""
