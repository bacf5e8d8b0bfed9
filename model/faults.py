"""Why can a training step not go on? Here, beside the code that serves, so that a command can name it without torch."""


class TrainingFault(Exception):
    """A step that cannot be done with what it was given; the message says what is wrong and how to mend it."""


class DimensionsError(ValueError):
    """A width that an encoder was not trained to cut its embeddings to; the message names those it was."""
