"""A GGUF file with all its matrices in one number type: what llama.cpp reads.

    python gguf_of.py MODEL.gguf OUT.gguf --dtype bf16

Leyden and the other peers read quantised weights as the numbers they stand for; llama.cpp
would compute with them as they are, which is other work.
"""

import argparse

import gguf

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "bf16": gguf.LlamaFileType.MOSTLY_BF16}
# Written by the writer itself, or about the file that is left behind.
SKIPPED = {"general.architecture", "general.file_type", "general.quantization_version"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--dtype", choices=TYPES, default="bf16")
    args = parser.parse_args()
    reader = gguf.GGUFReader(args.model)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(args.out, architecture)
    writer.add_file_type(FILE_TYPES[args.dtype])
    for name, value in reader.fields.items():
        if name in SKIPPED or name.startswith("GGUF."):
            continue
        kind = value.types[0]
        of = value.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value.contents(), kind, sub_type=of)
    for tensor in reader.tensors:
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        # Norms stay in f32, as llama.cpp's own converter leaves them.
        kind = TYPES[args.dtype] if numbers.ndim > 1 else TYPES["f32"]
        writer.add_tensor(tensor.name, gguf.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
