"""Rows of blocks that share a height, by what each block needs."""

from bisect import bisect_right
from collections.abc import Sequence


def share_rows(needs: Sequence[int], growing: Sequence[bool], rows: int) -> list[int]:
    """Rows per block, `rows` in all: its need where there is room, else at most a level that all
    share; what is left over goes in equal parts to the blocks that still grow, the first ones
    first.

    No block has a row to spare while another lacks one.
    """

    def filled_to(level: int) -> int:
        return sum(min(need, level) for need in needs)

    level = bisect_right(range(rows + 1), rows, key=filled_to) - 1
    heights = [min(need, level) for need in needs]
    takers = [block for block, need in enumerate(needs) if need > level]
    takers = takers or [block for block, grows in enumerate(growing) if grows]
    takers = takers or [*range(len(needs))]
    each, more = divmod(rows - sum(heights), len(takers))
    for number, block in enumerate(takers):
        heights[block] += each + (number < more)
    return heights
