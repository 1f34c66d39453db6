"""The error of a URL that was not fetched."""


class FetchError(Exception):
    """A URL that was not fetched; the text is the reason, worded to follow a colon."""
