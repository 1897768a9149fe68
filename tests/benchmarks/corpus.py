"""The documents and questions of a benchmark: manuals out of a seeded generator, beside the samples that ship.

Every manual is Markdown with one section per machine, each about as long as one chunk: prose whose words follow Zipf's
law, and four facts with a number. Each question asks for one of these facts, in other words than the section's own, and
knows which document has it; so a benchmark can tell a fast search from one that is fast because it finds nothing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, product

SEED = 20_261_120

_MAKER_NAMES = """
Halden Brevik Tromsa Kvaloy Ostvik Lindra Morfeld Sandra Velten Aurich Norden Jever Esens Wittmar
"""
_MACHINE_NAMES = """
pump compressor turbine centrifuge conveyor boiler chiller mixer extruder press kiln separator evaporator crane
generator dosing-unit heat-exchanger filter
"""
# What the section says, and how a question asks for it.
_FACTS = (
    ("It delivers {n} litres per minute at full load.", "How much does the {name} deliver per minute?"),
    ("Replace its main seal every {n} operating hours.", "After how many hours does the {name} need a new seal?"),
    ("The permitted operating pressure ends at {n} millibar.", "Which pressure must the {name} not exceed?"),
    ("At nominal speed it draws {n} watts.", "What is the power consumption of the {name}?"),
)
# In the order of their frequency.
_VOCABULARY = """
inspection housing bearing operator temperature valve before after shift record pressure surface coolant lubricant alarm
sensor panel switch supply cable drain gasket torque bolt flange vibration noise level reading report spare part cabinet
key lock signal lamp reset start stop cycle load feed line tank hose clamp guard cover filter cartridge flow rate gauge
display menu code manual chapter table figure workshop technician contractor delivery storage pallet corrosion paint
primer rinse solvent brush cloth glove goggles permit ventilation ladder platform anchor rope hook schedule interval
season winter summer frost humidity dust sand salt rain drainage foundation concrete grout shim
"""
_WORDS = _VOCABULARY.split()
_WEIGHTS = list(accumulate(1 / rank for rank in range(1, len(_WORDS) + 1)))
_FORMS = (
    "Check the {} and the {} together with the {}.",
    "When the {} shows wear, note it in the {} and order a new {}.",
    "The {} next to the {} must stay dry during the {}.",
    "A worn {} leads to a hot {} within one {}.",
    "Do not open the {} while the {} is under load; wait for the {}.",
)


@dataclass(frozen=True, slots=True)
class Manual:
    """A file to upload."""

    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the key of the one document that answers it."""

    text: str
    key: str


def manuals(count: int, machines_each: int) -> list[Manual]:
    """`count` documents of `machines_each` sections, the same ones for the same numbers."""
    chance = random.Random(SEED)
    names = _names(count * machines_each)
    return [
        Manual(_key(number), _manual(chance, number, names[number * machines_each :][:machines_each]))
        for number in range(count)
    ]


def questions(count: int, machines_each: int) -> Iterator[Question]:
    """Every question that `manuals` of the same numbers answer, all different, in an order that mixes the documents."""
    names = _names(count * machines_each)
    numbered = [(number, fact) for fact in range(len(_FACTS)) for number in range(len(names))]
    random.Random(SEED + 1).shuffle(numbered)
    for number, fact in numbered:
        yield Question(_FACTS[fact][1].format(name=names[number]), _key(number // machines_each))


def _names(count: int) -> list[str]:
    every = [
        f"{maker} {machine} {series}00"
        for series, machine, maker in product(range(1, 10), _MACHINE_NAMES.split(), _MAKER_NAMES.split())
    ]
    random.Random(SEED + 2).shuffle(every)
    return every[:count]


def _key(number: int) -> str:
    return f"manuals/volume-{number:02}.md"


def _manual(chance: random.Random, number: int, names: list[str]) -> str:
    sections = [f"## {name}\n\n{_section(chance, name)}" for name in names]
    return "\n\n".join([f"# Maintenance manual, volume {number}", *sections]) + "\n"


def _section(chance: random.Random, name: str) -> str:
    facts = [sentence.format(n=chance.randrange(100, 10_000)) for sentence, _ in _FACTS]
    prose = [chance.choice(_FORMS).format(*_drawn(chance, 3)) for _ in range(5)]
    mixed = facts + prose
    chance.shuffle(mixed)
    return " ".join([f"This section is about the {name}.", *mixed])


def _drawn(chance: random.Random, count: int) -> list[str]:
    return chance.choices(_WORDS, cum_weights=_WEIGHTS, k=count)
