"""What becomes of a text that is longer than a graph reads?"""

from typing import Literal

LongText = Literal["truncate", "chunk"]
"""Its beginning is read; or all of it, piece by piece, and its embedding is the mean of theirs."""

MOST_PIECES = 64
"""That are read of a text; what is beyond is cut off."""
