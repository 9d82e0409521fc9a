"""Records: fields by place and by name, defaults, equality, and what is refused."""

from __future__ import annotations

import pytest

from minicorn.record import Record, Value, as_dict, fresh, replace


class Point(Value):
    x: int
    y: int = 2
    name: str = ""


class Place(Point):
    floor: int = 0


class Basket(Record):
    owner: str
    fruit: list[str] = fresh(list)


class Grain(Record, quick=True):
    size: float
    colour: str = "white"


def test_fields_are_given_by_place_and_by_name() -> None:
    assert as_dict(Point(1)) == {"x": 1, "y": 2, "name": ""}
    assert as_dict(Point(5, name="here")) == {"x": 5, "y": 2, "name": "here"}
    assert as_dict(Grain(0.5)) == {"size": 0.5, "colour": "white"}
    assert as_dict(Grain(0.5, colour="red")) == {"size": 0.5, "colour": "red"}


@pytest.mark.parametrize("kind", [Point, Grain])
@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, "", 4), {}), ((1,), {"other": 3})])
def test_what_is_missing_or_no_field_is_refused(kind, values, named) -> None:
    with pytest.raises(TypeError):
        kind(*values, **named)


def test_a_class_has_the_fields_of_its_base_first() -> None:
    assert as_dict(Place(1, 2, "home", 3)) == {"x": 1, "y": 2, "name": "home", "floor": 3}
    match Place(1, 2, "home", 3):
        case Place(x, y, name, floor):
            assert (x, y, name, floor) == (1, 2, "home", 3)


def test_values_are_equal_by_their_fields_and_their_class() -> None:
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)
    assert Point(1) != Place(1)
    assert Grain(1.0) != Grain(1.0)


def test_a_fresh_default_is_nobody_elses() -> None:
    one, other = Basket("me"), Basket("you")
    one.fruit.append("apple")
    assert (one.fruit, other.fruit) == (["apple"], [])


def test_a_record_has_its_fields_alone() -> None:
    with pytest.raises(AttributeError):
        Basket("me").colour = "red"  # type: ignore[attr-defined]


def test_a_record_is_shown_as_it_is_written() -> None:
    point = replace(Point(1), name="there")
    assert repr(point) == "Point(x=1, y=2, name='there')"
    assert eval(repr(point)) == point
