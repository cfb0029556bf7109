"""Show what a model is trained on: the words that count in the loss stand out, and every lost row is counted."""

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerFast

from danlu.core.terminal import CONTROL
from danlu.data.cache import TokenSet
from danlu.data.config import DataConfig
from danlu.data.packing import IGNORED
from danlu.data.pipeline import load_data
from danlu.data.recognise import LOOKED_AT
from danlu.data.sources import labels
from danlu.data.stream.data import first_rows
from danlu.samples import Sample
from danlu.tokens.tokenizer import load_tokenizer

STYLES = {
    (True, False): "green underline",
    (True, True): "bold green underline",
    (False, False): "",
    (False, True): "magenta",
}


def show(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerFast | str,
    learns_from: tuple[type[Sample], ...],
    *,
    examples: int = 2,
    ids: bool = False,
    seed: int = 0,
    console: Console | None = None,
) -> None:
    """Print some examples of each source, and what became of its rows."""
    console = console or Console()
    tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
    data = load_data(first_of(config, examples), tokenizer, learns_from, seed=seed)
    for one in [*data.sets, *data.held_out_sets]:
        for number in range(min(examples, len(one))):
            console.print(heading(one, number))
            console.print(row_text(one, number, tokenizer), soft_wrap=True)
            for line in id_lines(one, number) if ids else ():
                console.print(Text(line, "dim"), soft_wrap=True)
    console.print(Text("green and underlined: trained; magenta: special tokens", "dim"))
    for line in data.report.lines():
        console.print(Text(CONTROL.sub("", line)), soft_wrap=True)


def first_of(config: DataConfig, examples: int) -> DataConfig:
    """Of data that is streamed because there is so much, only the first rows."""
    if config.streaming is None:
        return config
    pairs = zip(config.sources, labels(config.sources), strict=True)
    some = [first_rows(source, name, LOOKED_AT + 10 * examples)[0] for source, name in pairs]
    return config.model_copy(update={"sources": some, "streaming": None, "held_out": 0})


def heading(one: TokenSet, number: int) -> Text:
    """Where a row came from, and how long it is."""
    ids, trained = one.row(number)
    return Text(
        f"\n{one.name}  {one.where(number)}  {len(ids):,} tokens, {np.count_nonzero(trained):,} trained", "bold"
    )


def id_lines(one: TokenSet, number: int) -> list[str]:
    """A row's ids, and under them what is learnt: the same ids, or -100."""
    ids, trained = one.row(number)
    labels = np.where(trained, ids.astype(np.int64), IGNORED)
    return [f"ids: {' '.join(map(str, ids.tolist()))}", f"labels: {' '.join(map(str, labels.tolist()))}"]


def row_text(one: TokenSet, number: int, tokenizer: PreTrainedTokenizerFast) -> Text:
    """A row's words, styled by what is trained."""
    ids, trained = one.row(number)
    text = Text()
    for words, is_trained, is_special in stretches(ids, trained, tokenizer):
        text.append(CONTROL.sub("", words), STYLES[is_trained, is_special])
    if one.was_cut(number):
        text.append(" … cut at max_length", "bold red")
    return text


def stretches(
    ids: np.ndarray, trained: np.ndarray, tokenizer: PreTrainedTokenizerFast
) -> Iterator[tuple[str, bool, bool]]:
    """(words, trained, special) in order. Neighbours are decoded together: a character may be several tokens."""
    added = set(tokenizer.added_tokens_decoder)
    flags = [(bool(learnt), int(id) in added) for id, learnt in zip(ids, trained, strict=True)]
    end, before = 0, ""
    for (is_trained, is_special), run in groupby(flags):
        end += len(list(run))
        # from the start each time: many decoders drop the space before their first word
        text = str(tokenizer.decode(ids[:end].tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        yield text[len(before) :], is_trained, is_special
        before = text
