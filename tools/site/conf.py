"""Sphinx's settings: https://www.sphinx-doc.org/en/master/usage/configuration.html"""

from importlib.metadata import version as version_of

from tools.build_course import site_url, source_url

project = "Quantization labs"
version = release = version_of("quantization-labs")

extensions = ["myst_nb", "sphinx_copybutton", "tools.site.mathematics", "tools.site.markup"]

# Markdown and notebooks. Cells have been executed, and what they printed comes with them.
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # would come from another host
nb_merge_streams = True
nb_output_stderr = "show"
myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "sphinx_book_theme"
html_title = project
html_baseurl = f"{site_url()}/"
html_favicon = "static/favicon.svg"
html_use_index = False
html_static_path = ["static"]
html_css_files = ["site.css", "explorer.css"]
html_js_files = [("explorer.js", {"defer": "defer"}), ("guess.js", {"defer": "defer"})]
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False
html_permalinks_icon = "#"
html_sidebars = {"**": ["search-button-field.html", "sbt-sidebar-nav.html"]}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system is
html_theme_options = {
    "footer_content_items": ["extra-footer.html"],
    "extra_footer": "<p>Code under the MIT license, text and pictures under CC BY 4.0.</p>",
    "navbar_persistent": [],  # the side bar has the search
    "repository_url": source_url(),
    "use_repository_button": True,
    "use_download_button": False,  # pages have links to the notebook as a student opens it
    "show_navbar_depth": 1,
    "max_navbar_depth": 1,
    "home_page_in_toc": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
