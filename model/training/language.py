"""How well are words guessed from their sentence? Masking, the head that guesses, and fitting one to a frozen body."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from model.faults import TrainingFault
from model.training.losses import NOT_ASKED, masked_language_loss
from model.training.networks import Inputs

MASK = "[MASK]"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK)


@dataclass(frozen=True)
class Vocabulary:
    """What masking asks of a tokenizer."""

    size: int
    mask: int
    special: tuple[int, ...]  # ids that are never to be guessed

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read a ``tokenizer.json`` with BERT's special tokens.

        Raises:
            TrainingFault: it has no [MASK].
        """
        tokenizer = Tokenizer.from_file(str(path))
        if (mask := tokenizer.token_to_id(MASK)) is None:
            raise TrainingFault(f"{path} has no {MASK}, so no word can be masked; take a tokenizer of BERT's kind")
        ids = (tokenizer.token_to_id(name) for name in SPECIAL)
        return cls(tokenizer.get_vocab_size(), mask, tuple(id_ for id_ in ids if id_ is not None))


def mask_tokens(
    input_ids: Tensor, attention_mask: Tensor, vocabulary: Vocabulary, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Ids to read and labels to guess, as BERT was trained (Devlin et al., arXiv 1810.04805, section 3.1).

    Of the tokens that are neither special nor padding, 15 % are to be guessed: of these 80 % are read as [MASK], 10 %
    as any token of the vocabulary, 10 % as they are.

    Args:
        input_ids: (texts, tokens) int64.
        attention_mask: (texts, tokens), 0 at padding.
        vocabulary: its ids.
        generator: draws the tokens; without one, torch's own does.

    Returns:
        Two (texts, tokens) int64: the ids, and the labels, which are :data:`NOT_ASKED` where nothing is to be guessed.
    """
    special = torch.isin(input_ids, torch.tensor(vocabulary.special))
    asked = attention_mask.bool() & ~special & (torch.rand(input_ids.shape, generator=generator) < 0.15)
    fate = torch.rand(input_ids.shape, generator=generator)
    random = torch.randint(vocabulary.size, input_ids.shape, generator=generator)
    read = input_ids.masked_fill(asked & (fate < 0.8), vocabulary.mask)
    read = torch.where(asked & (fate >= 0.9), random, read)
    return read, input_ids.masked_fill(~asked, NOT_ASKED)


class MlmHead(nn.Module):
    """BERT's head over a body's hidden states: dense, gelu, LayerNorm, the body's word embeddings, a bias a word.

    The dense layer starts as the identity: a head is then the same in every run, and close to the embeddings it reads.
    """

    def __init__(self, dim: int, words: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)
        self.LayerNorm = nn.LayerNorm(dim, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(words))
        nn.init.eye_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    @classmethod
    def of(cls, body: PreTrainedModel) -> "MlmHead":
        """A fresh head for a body."""
        return cls(body.config.hidden_size, body.config.vocab_size)

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        """(..., words) logits of (..., dim) hidden states, ``words`` being the (words, dim) embeddings of the body."""
        return functional.linear(self.LayerNorm(functional.gelu(self.dense(hidden))), words, self.bias)


def word_embeddings(body: PreTrainedModel) -> Tensor:
    """(words, dim): what a head shares with the body under it."""
    return body.get_input_embeddings().get_parameter("weight")


def fit_mlm_head(
    body: PreTrainedModel,
    batches: Sequence[Inputs],
    vocabulary: Vocabulary,
    steps: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> MlmHead:
    """Fit a head to a frozen body that has none, on masked texts: the same head for the same arguments.

    Args:
        body: put into evaluation mode; its weights stay as they are.
        batches: padded texts, read in turn as often as it takes.
        vocabulary: of the body's tokenizer.
        steps: one batch each.
        seed: of the masks.
        progress: told the steps done and the steps in all.
    """
    generator = torch.Generator().manual_seed(seed)
    head, words = MlmHead.of(body), word_embeddings(body).detach()
    optimiser = torch.optim.AdamW(head.parameters(), 1e-3)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    body.eval()  # type: ignore[no-untyped-call]
    for step in range(steps):
        inputs = batches[step % len(batches)]
        read, labels = mask_tokens(inputs["input_ids"], inputs["attention_mask"], vocabulary, generator)
        with torch.no_grad():
            hidden = body(input_ids=read, attention_mask=inputs["attention_mask"]).last_hidden_state.float()
        asked = labels != NOT_ASKED
        masked_language_loss(head(hidden[asked], words), labels[asked]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
        falling.step()
        progress(step + 1, steps)
    return head
