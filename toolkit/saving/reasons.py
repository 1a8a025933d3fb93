"""The words in which a file is refused, or a model that its file would not give back."""


def refuse_if(wrong: object, reason: str) -> None:
    """Raise where something in a file is wrong."""
    if wrong:
        raise ValueError(reason)


def reason(error: BaseException) -> str:
    """Leave out the whole config, which Keras repeats for each level of nesting."""
    return str(error).rsplit("Exception encountered: ", 1)[-1]


def lost(reason: object) -> ValueError:
    """Make the error of a model that its file would not give back."""
    return ValueError(f"`model` would not come back as it is: {reason}")
