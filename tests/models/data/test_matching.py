from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.contract import ContractSpec
from models.data.blocks import Kind
from models.data.dataset import DatasetError
from models.data.matching import how, match
from models.data.settings import SourceSettings

HEADER = ("time", "vib", "temp", "trial", "state", "w")


def settings(**keys: Any) -> SourceSettings:
    return msgspec.convert({"path": "x.csv", **keys}, SourceSettings)


def contract(**keys: Any) -> ContractSpec:
    return msgspec.convert({"features": ["temp", "vib"], "label": "state", **keys}, ContractSpec)


@pytest.mark.parametrize("header", [HEADER, HEADER[::-1], (*HEADER, "extra")])
def test_columns_are_matched_by_name_whatever_their_order_and_others_are_ignored(header: tuple[str, ...]) -> None:
    found = match(settings(), contract(classes=["ok", "fault"]), header)
    assert (found.features, found.labels) == (("temp", "vib"), ("state",))
    assert found.wanted == {"temp": Kind.NUMBER, "vib": Kind.NUMBER, "state": Kind.TEXT}


def test_labels_without_classes_are_numbers() -> None:
    assert match(settings(), contract(), HEADER).wanted["state"] is Kind.NUMBER


def test_without_a_contract_a_source_says_what_is_what() -> None:
    none = ContractSpec()
    assert match(settings(label="state"), none, HEADER).features == ("time", "vib", "temp", "trial", "w")
    found = match(settings(label="state", features=["vib", "time"]), none, HEADER)
    assert (found.features, found.labels) == (("vib", "time"), ("state",))


def test_what_has_another_part_is_no_feature_where_none_is_named() -> None:
    said = ContractSpec(label="state", weight="w", by="trial", validation=0.1)
    found = match(settings(time="time"), said, HEADER)
    assert found.features == ("vib", "temp")
    assert (found.weight, found.group, found.time) == ("w", "trial", None)


def test_groups_and_times_are_asked_for_only_where_somebody_goes_by_them() -> None:
    here = settings(time="time", group="trial")
    assert set(match(here, contract(), HEADER).wanted) == {"temp", "vib", "state"}
    found = match(here, contract(window={"length": 3}), HEADER)
    assert (found.group, found.time) == ("trial", "time")
    assert (found.wanted["trial"], found.wanted["time"]) == (Kind.TEXT, Kind.TIME)
    assert match(here, contract(validation=0.1), HEADER).group == "trial"
    assert match(here, contract(time_features=["hour"]), HEADER).time == "time"
    assert match(here, contract(missing="last"), HEADER).time == "time"


def test_the_jobs_group_counts_more_than_the_sources() -> None:
    assert match(settings(group="vib"), contract(by="trial", validation=0.1), HEADER).group == "trial"


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (("time", "state"), "no column 'temp', 'vib'; the table has time, state"),
        (("Temp", "vib", "state"), r"no column 'temp' \(is it 'Temp'\?\); the table has Temp, vib, state"),
        (("temp", "vib", "temp", "state"), "more than one column 'temp'; the table has temp, vib, temp, state"),
        (("temp", "vib", "vib"), "no column 'state' and more than one column 'vib'"),
        ((), "no column 'temp', 'vib', 'state'; the table has nothing"),
    ],
)
def test_all_that_is_missing_or_doubled_is_named_with_what_may_be_meant(header: tuple[str, ...], why: str) -> None:
    with pytest.raises(DatasetError, match=f"x.csv: {why}"):
        match(settings(), contract(), header)


def test_a_missing_column_says_what_to_do() -> None:
    with pytest.raises(DatasetError, match=r'rename = \{"HERE" = "NAME"\}'):
        match(settings(), contract(), ("vib", "state"))


def test_a_message_has_the_first_of_very_many_columns() -> None:
    with pytest.raises(DatasetError, match="column 18, column 19 and 980 more") as caught:
        match(settings(), contract(), [f"column {at}" for at in range(1000)])
    assert len(str(caught.value)) < 500


def test_a_label_is_no_feature() -> None:
    with pytest.raises(DatasetError, match="'state' is a label or a weight, and a feature as well"):
        match(settings(features=["state", "temp"]), ContractSpec(label="state"), HEADER)
    with pytest.raises(DatasetError, match="there is no feature"):
        match(settings(label="y"), ContractSpec(), ("y",))


def test_inputs_of_the_time_need_a_column_that_says_it() -> None:
    with pytest.raises(DatasetError, match='add time = "COLUMN"'):
        match(settings(), contract(time_features=["hour"]), HEADER)


def test_a_source_may_have_its_own_mind_of_what_is_missing() -> None:
    assert how(settings(), contract(missing="last")) == "last"
    assert how(settings(), contract(missing="mask")) == "mean"
    assert how(settings(missing="skip"), contract(missing="last")) == "skip"
