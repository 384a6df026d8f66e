"""No settings are saved, and so none uploaded, in which an access token of the Hugging Face Hub stands."""

import re

# `hf_xxxx...` in an example is none
HUB_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_|api_org_)(?=(.)(?!\1{29}))(?P<secret>[A-Za-z0-9]{30,})(?![A-Za-z0-9_])", re.ASCII
)


def refuse_access_tokens(settings: str, refusal: str) -> None:
    """
    Args:
        settings (`str`): The text of a JSON file.
        refusal (`str`): What doesn't happen then, the beginning of the message.

    Raises:
        ValueError: if there is a token in the text; the message shows its first characters alone.
    """
    found = HUB_TOKEN.search(settings)
    if found is not None:
        raise ValueError(f"{refusal}: its settings hold an access token ({found[0][:7]}...). Take it out.")


__all__ = ["refuse_access_tokens"]
