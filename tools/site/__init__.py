"""The course as a web site: `python -m tools.site` makes it from notebooks, the outputs of solutions, and documents.

pages.py        which files become pages, and where links between them lead
labs.py         a notebook as a page: the lab without answers, and the solution
questions.py    predictions, and what is folded after them
exercises.py    the list of all exercises
mathematics.py  TeX to MathML, and the font that sets it
markup.py       what is mended in a page's HTML
conf.py         Sphinx's settings
folder.py       where it is built
build.py        all of it, in order
static/         what the pages load

Explorers that move:

execution.py    a solution is executed in a kernel that records its explorers
recording.py    in that kernel: each displayed explorer, its states and its HTML
states.py       which states an explorer has, thinned out
pictures.py     what moves between the pictures of the states
placeholder.py  what stands on the page before the script runs
script.py       the file of a lab's states, which static/explorer.js loads
"""
