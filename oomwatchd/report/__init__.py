"""An incident as a page that stands alone."""
