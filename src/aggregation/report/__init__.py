"""Report: index.html for everyone, and one page per notebook. No network, no script.

`index.index_page` is called by the publish notebook, `pages.write_page` by the runner (it needs
nbconvert, which takes seconds to import).
"""
