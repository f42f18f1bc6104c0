"""How messages say things."""


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `10,582 images`: a number and a noun whose plural ends in s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
