//! Arrow types as this crate shows and stores them, and names as statements want them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};

/// A name in double quotes, as it may stand in a statement.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A short name for a type: SQL's where there is one, and `float[96]` for a vector of 96 floats.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field};
///
/// let vector = DataType::FixedSizeList(Arc::new(Field::new("item", DataType::Float32, true)), 96);
/// assert_eq!(loev_sql::type_name(&vector), "float[96]");
/// assert_eq!(loev_sql::type_name(&DataType::Utf8), "text");
/// ```
pub fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "int",
        DataType::Int64 => "bigint",
        DataType::UInt8 => "tinyint unsigned",
        DataType::UInt16 => "smallint unsigned",
        DataType::UInt32 => "int unsigned",
        DataType::UInt64 => "bigint unsigned",
        DataType::Float16 => "half",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes"
        }
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Timestamp(TimeUnit::Second, _) => "timestamp(0)",
        DataType::Timestamp(TimeUnit::Millisecond, _) => "timestamp(3)",
        DataType::Timestamp(TimeUnit::Microsecond, _) => "timestamp(6)",
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "timestamp",
        DataType::Null => "null",
        DataType::FixedSizeList(field, length) => {
            return format!("{}[{length}]", type_name(field.data_type()));
        }
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => return format!("{}[]", type_name(field.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("{} {}", field.name(), type_name(field.data_type())))
                .collect();
            return format!("struct({})", fields.join(", "));
        }
        DataType::Dictionary(_, value) => return type_name(value),
        other => return other.to_string().to_lowercase(),
    };
    name.to_owned()
}

/// The type to store a column as: views become the plain types that every reader of Parquet and
/// Arrow knows, at any depth. `None` if the type is already such.
pub(crate) fn without_views(data_type: &DataType) -> Option<DataType> {
    let inner = |field: &FieldRef| -> Option<FieldRef> {
        let data_type = without_views(field.data_type())?;
        Some(Arc::new(Field::clone(field).with_data_type(data_type)))
    };
    match data_type {
        DataType::Utf8View => Some(DataType::Utf8),
        DataType::BinaryView => Some(DataType::Binary),
        DataType::List(field) => inner(field).map(DataType::List),
        DataType::LargeList(field) => inner(field).map(DataType::LargeList),
        DataType::FixedSizeList(field, length) => {
            inner(field).map(|field| DataType::FixedSizeList(field, *length))
        }
        DataType::Struct(fields) if fields.iter().any(|field| inner(field).is_some()) => {
            Some(DataType::Struct(
                fields.iter().map(|field| inner(field).unwrap_or_else(|| Arc::clone(field))).collect(),
            ))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(data_type: DataType) -> FieldRef {
        Arc::new(Field::new("item", data_type, true))
    }

    #[test]
    fn names_are_short() {
        let draw = DataType::Struct(vec![Field::new("db", DataType::Float64, true)].into());
        assert_eq!(type_name(&draw), "struct(db double)");
        assert_eq!(type_name(&DataType::List(item(DataType::Utf8))), "text[]");
        assert_eq!(type_name(&DataType::UInt64), "bigint unsigned");
    }

    #[test]
    fn views_are_replaced_at_any_depth() {
        let nested =
            DataType::List(item(DataType::Struct(vec![Field::new("a", DataType::Utf8View, true)].into())));
        let plain =
            DataType::List(item(DataType::Struct(vec![Field::new("a", DataType::Utf8, true)].into())));
        assert_eq!(without_views(&nested), Some(plain.clone()));
        assert_eq!(without_views(&plain), None);
        assert_eq!(without_views(&DataType::FixedSizeList(item(DataType::Float32), 96)), None);
    }
}
