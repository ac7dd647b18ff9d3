"""The four rows of data. Oracles: Table 7 of Perez et al. 2023, ml_dtypes.finfo, torch.finfo."""

import dataclasses
import math
import re

import ml_dtypes
import numpy as np
import pytest
import torch

from octoscale.numerics.formats import FORMAT_SETS, FORMATS, ROLES, Format, get_format, get_format_set

# Table 7, and the codes that its column "special values" means (IEEE: exponent field all ones).
TABLE_7 = {
    "e5m2fnuz": {
        "paper_name": "E5 (a)",
        "bias": 16,
        "max": 57344.0,
        "min_normal_exponent": -15,
        "min_subnormal_exponent": -17,
        "inf_codes": set(),
        "nan_codes": {0x80},
        "nan_code": 0x80,
        "max_code": 0x7F,
        "has_inf": False,
        "has_negative_zero": False,
    },
    "e5m2": {
        "paper_name": "E5 (b)",
        "bias": 15,
        "max": 57344.0,
        "min_normal_exponent": -14,
        "min_subnormal_exponent": -16,
        "inf_codes": {0x7C, 0xFC},
        "nan_codes": {0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF},
        "nan_code": 0x7F,
        "max_code": 0x7B,
        "has_inf": True,
        "has_negative_zero": True,
    },
    "e4m3fnuz": {
        "paper_name": "E4 (a)",
        "bias": 8,
        "max": 240.0,
        "min_normal_exponent": -7,
        "min_subnormal_exponent": -10,
        "inf_codes": set(),
        "nan_codes": {0x80},
        "nan_code": 0x80,
        "max_code": 0x7F,
        "has_inf": False,
        "has_negative_zero": False,
    },
    "e4m3fn": {
        "paper_name": "E4 (b)",
        "bias": 7,
        "max": 448.0,
        "min_normal_exponent": -6,
        "min_subnormal_exponent": -9,
        "inf_codes": set(),
        "nan_codes": {0x7F, 0xFF},
        "nan_code": 0x7F,
        "max_code": 0x7E,
        "has_inf": False,
        "has_negative_zero": True,
    },
}
TABLE_7_NUMBERS = [(name, key) for name, row in TABLE_7.items() for key in row]


def test_the_formats_are_those_of_table_7():
    assert FORMATS.keys() == TABLE_7.keys()
    assert all(fmt.name == name for name, fmt in FORMATS.items())


@pytest.mark.parametrize(("name", "number"), TABLE_7_NUMBERS, ids=lambda value: str(value))
def test_each_number_is_that_of_table_7(name, number):
    assert getattr(FORMATS[name], number) == TABLE_7[name][number]


def test_one_sign_bit_and_the_rest_make_a_byte(any_format):
    assert 1 + any_format.exponent_bits + any_format.mantissa_bits == 8


@pytest.mark.parametrize(("exponent_bits", "mantissa_bits", "bits"), [(5, 10, 16), (2, 1, 4)])
def test_a_row_that_is_no_byte_is_refused_with_the_rule(exponent_bits, mantissa_bits, bits):
    said = f"would have {bits} bits, a sign, {exponent_bits} of exponent and {mantissa_bits} of mantissa: codes have 8"
    with pytest.raises(ValueError, match=said):
        Format(
            name="toy",
            exponent_bits=exponent_bits,
            mantissa_bits=mantissa_bits,
            bias=15,
            special="ieee",
            paper_name="none",
        )


def test_range_agrees_with_ml_dtypes_finfo(any_format):
    info = ml_dtypes.finfo(any_format.torch_name)
    assert any_format.max == float(info.max) == -float(info.min)
    assert 2.0**any_format.min_normal_exponent == float(info.smallest_normal)
    assert 2.0**any_format.min_subnormal_exponent == float(info.smallest_subnormal)
    assert any_format.mantissa_bits == info.nmant
    assert any_format.exponent_bits == info.nexp
    assert 2.0**-any_format.mantissa_bits == float(info.eps)


def test_range_agrees_with_torch_finfo(fmt):
    """Without `eps`: torch 2.13 says 0.125 for e5m2fnuz, where ml_dtypes says 0.25, as do two mantissa bits."""
    info = torch.finfo(getattr(torch, fmt.torch_name))
    assert fmt.max == info.max == -info.min
    assert 2.0**fmt.min_normal_exponent == info.smallest_normal
    assert info.bits == 8


def test_special_codes_agree_with_ml_dtypes(any_format):
    values = np.arange(256, dtype=np.uint8).view(getattr(ml_dtypes, any_format.torch_name)).astype(np.float64)
    assert any_format.nan_codes == set(np.flatnonzero(np.isnan(values)))
    assert any_format.inf_codes == set(np.flatnonzero(np.isinf(values)))
    assert values[any_format.max_code] == any_format.max
    assert any_format.has_negative_zero == (values[0x80] == 0)


def test_max_exponent_is_the_exponent_of_max(any_format):
    """Oracle: math.frexp."""
    assert any_format.max_exponent == math.frexp(any_format.max)[1] - 1


def test_a_format_is_frozen(any_format):
    with pytest.raises(dataclasses.FrozenInstanceError):
        any_format.bias = 0


@pytest.mark.parametrize(("name", "e4", "e5"), [("ocp", "e4m3fn", "e5m2"), ("fnuz", "e4m3fnuz", "e5m2fnuz")])
def test_a_set_is_e4_for_weights_and_inputs_and_e5_for_gradients(name, e4, e5):
    """Oracle: section 3 of the paper."""
    assert get_format_set(name) == {"weight": e4, "input": e4, "grad_output": e5}


def test_every_set_has_a_known_format_for_every_role():
    assert FORMAT_SETS.keys() == {"ocp", "fnuz"}
    for formats in FORMAT_SETS.values():
        assert formats.keys() == set(ROLES)
        assert set(formats.values()) <= FORMATS.keys()


def test_get_format_returns_the_row(any_format):
    assert get_format(any_format.name) is any_format


def test_an_unknown_format_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=re.escape("'e4m3': the formats are e4m3fn, e5m2, e4m3fnuz, e5m2fnuz")):
        get_format("e4m3")


def test_an_unknown_format_set_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=re.escape("'amd': the format sets are ocp, fnuz")):
        get_format_set("amd")
