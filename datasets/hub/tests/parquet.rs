//! Round trips of Parquet files.

use std::path::Path;
use std::sync::Arc;

use leyden_hub::parquet::{ParquetError, rows};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;

const SCHEMA: &str = "message row {
    REQUIRED BYTE_ARRAY id (UTF8);
    OPTIONAL DOUBLE result_float;
    OPTIONAL GROUP options (LIST) {
        REPEATED GROUP list { OPTIONAL BYTE_ARRAY element (UTF8); }
    }
}";

/// Writes two row groups of two rows each.
fn write(path: &Path, compression: Compression) {
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for group in 0..2 {
        let mut columns = writer.next_row_group().unwrap();
        let ids: Vec<ByteArray> =
            (0..2).map(|i| ByteArray::from(format!("row {}", 2 * group + i).as_str())).collect();
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&ids, None, None).unwrap();
        column.close().unwrap();
        // The second row of a group has no number.
        let mut column = columns.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[1.5], Some(&[1, 0]), None).unwrap();
        column.close().unwrap();
        // Two options in the first row, an empty list in the second.
        let options = ["A) 1", "B) ½"].map(ByteArray::from);
        let mut column = columns.next_column().unwrap().unwrap();
        column
            .typed::<ByteArrayType>()
            .write_batch(&options, Some(&[3, 3, 1]), Some(&[0, 1, 0]))
            .unwrap();
        column.close().unwrap();
        columns.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn rows_are_read_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let codecs =
        [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())];
    for codec in codecs {
        write(&path, codec);
        let reader = rows(&path).unwrap();
        assert_eq!(reader.row_count(), 4);
        let found: Vec<_> = reader.map(|row| serde_json::Value::Object(row.unwrap())).collect();
        assert_eq!(
            found,
            [
                json!({"id": "row 0", "result_float": 1.5, "options": ["A) 1", "B) ½"]}),
                json!({"id": "row 1", "result_float": null, "options": []}),
                json!({"id": "row 2", "result_float": 1.5, "options": ["A) 1", "B) ½"]}),
                json!({"id": "row 3", "result_float": null, "options": []}),
            ]
        );
    }
}

#[test]
fn a_truncated_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    write(&path, Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = rows(&path).err().expect("a truncated file was opened");
        assert!(matches!(error, ParquetError::Damaged { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("rows.parquet is not a complete Parquet file: "), "{message}");
    }
    let missing = rows(folder.path().join("none.parquet")).err().unwrap().to_string();
    assert!(missing.contains("none.parquet cannot be opened: "), "{missing}");
}

#[test]
fn a_damaged_row_group_does_not_affect_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    write(&path, Compression::SNAPPY);
    let mut bytes = std::fs::read(&path).unwrap();
    // The first page of the first column, right after the magic number.
    bytes[4..24].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    let found: Vec<_> = rows(&path).unwrap().collect();
    let good: Vec<_> = found.iter().flatten().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(good, ["row 2", "row 3"]);
    let message = found[0].as_ref().unwrap_err().to_string();
    assert!(message.contains("rows.parquet, row 1, cannot be read: "), "{message}");
}

/// The parquet crate panics on some of these files; the reader must return rows or an error.
#[test]
fn no_damaged_byte_causes_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    write(&path, Compression::SNAPPY);
    let whole = std::fs::read(&path).unwrap();
    let mut errors = 0;
    let places = (0..whole.len()).step_by(3);
    for place in places.clone() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x81;
        std::fs::write(&path, &bytes).unwrap();
        let message = match rows(&path) {
            Ok(reader) => reader.take(100).find_map(|row| row.err().map(|e| e.to_string())),
            Err(error) => Some(error.to_string()),
        };
        if let Some(message) = message {
            assert!(message.contains("rows.parquet"), "{message}");
            errors += 1;
        }
    }
    assert!(errors > places.len() / 10, "{errors}");
}
