import unittest

from wit_world.imports.types import (
    Outcome_Skip,
    Value,
    Value_Bytes,
    Value_Float64,
    Value_Int64,
    Value_Json,
    Value_Null,
    Value_Text,
)

from plugin import decide, to_json


class ToJson(unittest.TestCase):
    def check(self, value: Value, expected: str) -> None:
        self.assertEqual(to_json(['"a"'], [value]), f'{{"a":{expected}}}')

    def test_keeps_all_digits(self) -> None:
        self.check(Value_Int64(-(2**63)), "-9223372036854775808")

    def test_has_no_nan(self) -> None:
        self.check(Value_Float64(float("nan")), "null")

    def test_embeds_json(self) -> None:
        self.check(Value_Json('{"b": 1.0}'), '{"b": 1.0}')

    def test_encodes_bytes(self) -> None:
        self.check(Value_Bytes(b"\x00\xff"), '"AP8="')

    def test_escapes_text(self) -> None:
        self.check(Value_Text('"\\\n\x1f🦀'), r'"\"\\\n\u001f🦀"')


class Decide(unittest.TestCase):
    def test_obeys_the_row(self) -> None:
        self.assertEqual(decide(Value_Text("skip")), Outcome_Skip())

    def test_publishes_unless_told_otherwise(self) -> None:
        self.assertIsNone(decide(Value_Null()))
        self.assertIsNone(decide(Value_Text("whatever")))
