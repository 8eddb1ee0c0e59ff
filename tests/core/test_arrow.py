"""Arrays that are made in a short way are those that Arrow itself would make."""

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightbatch.core.arrow import decimal_array, number_array, repeated_text_array

USD = pa.decimal128(18, 9)


@given(st.lists(st.none() | st.sampled_from(["", "a", "good", "ä"]) | st.text()))
def test_texts_that_many_rows_share_stand_in_each(texts: list[str | None]) -> None:
    assert repeated_text_array(texts) == pa.array(texts, pa.string())


@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1)))
def test_decimals_come_from_whole_numbers_of_their_last_digit(numbers: list[int]) -> None:
    made = decimal_array(numbers, USD)

    made.validate(full=True)
    assert made == pa.array([Decimal(number).scaleb(-9) for number in numbers], USD)


@pytest.mark.parametrize("number", [10**18, -(10**18), 2**64])
def test_a_decimal_that_has_too_many_digits_is_refused(number: int) -> None:
    with pytest.raises(OverflowError, match="more than 18 digits"):
        decimal_array([0, number], USD)


@given(st.lists(st.integers(-(2**31), 2**31 - 1)), st.sampled_from([pa.int32(), pa.int64()]))
def test_numbers_of_either_width_are_as_they_were(numbers: list[int], type_: pa.DataType) -> None:
    assert number_array(numbers, type_) == pa.array(numbers, type_)
