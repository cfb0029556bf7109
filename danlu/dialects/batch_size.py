"""DeepSpeed's three numbers, each of which follows from the other two and the ranks, as one: rows of a step."""

from danlu.dialects.reading import Block

TOTAL, MICRO, ACCUMULATION = "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"


def read_batch_size(block: Block, ranks: int) -> None:
    """The global batch, if the numbers given settle it; numbers that contradict each other are refused."""
    total, micro, passes = (block.whole(key, least=1) for key in (TOTAL, MICRO, ACCUMULATION))
    words = {TOTAL: total, MICRO: micro, ACCUMULATION: passes}
    if total is None and micro is None:
        if passes is not None:
            block.reading.not_needed(
                f"{block.at(ACCUMULATION)} {passes}",
                "the recipe's data.batch is the whole step, in as many passes as fit",
            )
        return
    rows = global_rows(total, micro, passes, ranks)
    if rows is None:
        given = ", ".join(f"{key} {value}" for key, value in words.items() if value is not None)
        block.refuse(
            TOTAL,
            f"{given}: on {ranks} rank{'s' * (ranks > 1)} these do not agree "
            f"({TOTAL} = {MICRO} x {ACCUMULATION} x ranks); give two of them, or the ranks that they are meant for",
        )
    if micro is None:
        found = f"{TOTAL} {total}"
    else:
        found = f"{MICRO} {micro} x {ACCUMULATION} {rows // micro // ranks} x {ranks} rank{'s' * (ranks > 1)}"
    block.reading.becomes(found, "data.batch", {"rows": rows})


def global_rows(total: int | None, micro: int | None, passes: int | None, ranks: int) -> int | None:
    """Rows of a step of all ranks, or None where the numbers contradict each other."""
    if total is None:
        assert micro is not None
        return micro * (passes or 1) * ranks
    if micro is None and passes is None:
        return total  # nothing to contradict; a step needs no equal shares here
    share = (micro or 1) * (passes or 1) * ranks
    settled = micro is not None and passes is not None
    return total if (total == share if settled else total % share == 0) else None
