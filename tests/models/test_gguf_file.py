import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from danlu.core.errors import UserError
from danlu.models.builtin.gguf_file import GGUF


def test_fields_and_tensors_are_those_written(tmp_path):
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("a.number", 7)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.flag", False)
    writer.add_array("a.words", ["炼丹", "", "fire"])
    writer.add_array("a.numbers", [1, -2, 3])
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = quantize(np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64), GGMLQuantizationType.Q8_0)
    writer.add_tensor("plain", plain)
    writer.add_tensor("packed", packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GGUF(path)
    assert found.fields["general.architecture"] == "llama"
    assert [found.fields[f"a.{key}"] for key in ("number", "float", "flag")] == [7, 0.5, False]
    assert found.fields["a.words"] == ["炼丹", "", "fire"]
    assert found.fields["a.numbers"] == [1, -2, 3]
    assert (found.tensor("plain") == plain).all()
    assert found.tensors["packed"].shape == (2, 64)
    assert (found.tensor("packed") == dequantize(packed, GGMLQuantizationType.Q8_0)).all()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04 and more than four bytes")
    with pytest.raises(UserError, match="not a GGUF file"):
        GGUF(tmp_path / "x.gguf")
