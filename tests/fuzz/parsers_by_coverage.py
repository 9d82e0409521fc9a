"""The head and body parsers against h11 and httptools, guided by coverage; outside CI.

    pip install atheris && python tests/fuzz/parsers_by_coverage.py [-max_total_time=600] [folder of a corpus]

It ends at the first message that another parser frames otherwise without a listed reason
(`tests/pure/parsers.py`), or that raises anything but a ProtocolError.
"""

import sys
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[1] / "pure"), str(Path(__file__).parents[2])]

with atheris.instrument_imports(include=["minicorn.http", "h11"]):
    import parsers


def judge(data: bytes) -> None:
    wrong = list(parsers.judge(data))
    if wrong:
        raise AssertionError("\n".join(wrong))


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Half of the time by the words of HTTP, else as libFuzzer does."""
    if seed % 2:
        return parsers.mutated(parsers.random.Random(seed))[:most]
    return bytes(atheris.Mutate(data, most))


if __name__ == "__main__":
    atheris.Setup(sys.argv, judge, custom_mutator=mutate)
    atheris.Fuzz()
