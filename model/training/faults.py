"""Why can a training step not go on? The base of every reason that is the caller's to mend."""


class TrainingFault(Exception):
    """A step that cannot be done with what it was given; the message says what is wrong and how to mend it."""
